"""A storage: where the batches, deletion vectors and manifests of a table may lie instead of the data directory."""

from __future__ import annotations

from dataclasses import dataclass, field

# The data directory itself; every table without STORAGE_ID is there.
LOCAL = "local"
# A secret given as `env:NAME` is taken from the environment when the storage is opened.
ENV = "env:"


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage as CREATE STORAGE made it.  Secrets stay out of every repr.

    :param type: "s3" or "folder".
    :param url: `s3://bucket/prefix` or `file:///path`; fixed, because the files of tables do not move.
    :param endpoint: of an S3 service that is not Amazon's.
    :param path_style: the bucket is in the path, not in the host's name.
    """

    name: str
    type: str
    url: str
    created_at_us: int = 0
    region: str | None = None
    endpoint: str | None = None
    path_style: bool = True
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def credentials(self) -> str:
        """How it logs in, without telling with what."""
        given = self.secret_access_key
        if given is None:
            return "none"
        return given if given.startswith(ENV) else "stored"
