"""The settings: one typed, validated, frozen object, loaded once.

    command line  >  environment  >  TOML file  >  defaults
    --port 1         FLIGHTKALAM__SERVER__PORT=1     [server]        Field(default=…)
                                                     port = 1

Nothing else in the project reads the file or the environment.  A key that nobody knows, or a value that does not fit,
stops the start and says which key, where it was given and what is allowed: a misspelt limit must not quietly be none.
Each key has its unit, and under it its reason; `python -m flightkalam.config` writes them to docs/configuration.md.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import (
    ByteSize,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from flightkalam.config_auth import AuditConfig, AuthConfig, OidcConfig
from flightkalam.config_running import HttpConfig, LimitsConfig, LogConfig, MemoryConfig, TracingConfig
from flightkalam.config_section import Section, alternatives, is_loopback, setting
from flightkalam.errors import ConfigError

ENV_PREFIX = "FLIGHTKALAM__"
ENV_DELIMITER = "__"
# Variables that CREATE STORAGE may name.  No others: a storage must not be a way to send the process's other secrets to an
# address of one's choice.
STORAGE_PREFIX = "FLIGHTKALAM_STORAGE_"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_MIN_MEMORY = 64 * MIB
_PERCENT = re.compile(r"(\d{1,3}) ?%")
_COMMAND_LINE = "command line"


def storage_secrets(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the keys of a storage may be taken from, by variable."""
    return {name: value for name, value in environ.items() if name.startswith(STORAGE_PREFIX)}


# ---------------------------------------------------------------------------------------------------------------
# The sections


class ServerConfig(Section):
    """Where the service listens and keeps its data."""

    data_dir: Path = setting(Path("flightkalam-data"))
    """Everything the service keeps lies here: the log, the catalog and, in `cold`, the Parquet files. One running
    server owns it. A relative path is relative to the working directory."""

    host: str = setting("127.0.0.1", min_length=1)
    """The address to listen on. Loopback by default, so that a first start exposes nothing."""

    port: int = setting(31337, ge=0, le=65535)
    """The port to listen on; 0 takes any free one and prints it."""

    node_id: str = setting("node-0", min_length=1, max_length=128, allowed="text of 1 to 128 characters")
    """Hashed into the 10 node bits of every Snowflake id: ids of servers with different values do not meet."""

    tls_cert: Path | None = setting(None)
    """The server's certificate chain, PEM. Given together with `tls_key`."""

    tls_key: Path | None = setting(None, allowed="a path, given together with `tls_cert`", validate_default=True)
    """The private key of `tls_cert`, PEM."""

    tls_client_ca: Path | None = setting(None, allowed="a path, only with `tls_cert` and `tls_key`", validate_default=True)
    """The authorities, PEM, whose client certificates are required (mutual TLS). A listener that requires them takes no
    passwords by handshake; `tls_client_port` has a second one for those who have no certificate."""

    tls_client_port: int | None = setting(
        None, ge=0, le=65535, allowed="a port from 0 to 65,535, only with `tls_client_ca`", validate_default=True
    )
    """Client certificates are required on this port instead, and `port` takes passwords and tokens. Flight tells a server the
    certificate's name only without handshake, so one listener cannot do both."""

    plain_text_beyond_loopback: bool = setting(False, allowed="true, or TLS, or a loopback host", validate_default=True)
    """Passwords and rows would cross the network in plain text, so a listener without TLS beyond loopback has to be
    asked for. Set it only where something in front of the service does TLS."""

    drain_seconds: int = setting(20, unit="seconds", ge=0, le=3600)
    """How long running statements may go on after a stop was asked for, before they are cancelled. Below the 30 s
    after which orchestrators kill."""

    max_sql_bytes: int = setting(1_000_000, unit="bytes", ge=1_000, le=64_000_000)
    """Longer statements are refused before they are parsed: parsing costs memory that no other limit sees."""

    public_location: str = setting(
        "",
        pattern=r"^$|^grpc(\+tcp|\+tls)?://.+$",
        allowed="empty, or a URI that begins with grpc://, grpc+tcp:// or grpc+tls://",
    )
    """The URI that clients are told to fetch results from, such as `grpc+tls://db.example.org:31337`; empty: the
    connection they already have, which is right unless a proxy renames the server."""

    @field_validator("tls_key")
    @classmethod
    def _certificate_and_key_together(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("tls_cert") is None):
            raise ValueError("server.tls_cert and server.tls_key are only useful together")
        return value

    @field_validator("tls_client_ca")
    @classmethod
    def _client_ca_needs_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("tls_cert") is None:
            raise ValueError("client certificates need TLS: set server.tls_cert and server.tls_key too")
        return value

    @field_validator("tls_client_port")
    @classmethod
    def _client_port_needs_client_ca(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("tls_client_ca") is None:
            raise ValueError("a port for client certificates needs server.tls_client_ca")
        if value is not None and value == info.data.get("port") != 0:
            raise ValueError("this is server.port; each listener needs a port of its own")
        return value

    @field_validator("plain_text_beyond_loopback")
    @classmethod
    def _plain_text_is_asked_for(cls, value: bool, info: ValidationInfo) -> bool:
        host = info.data.get("host", "127.0.0.1")
        if not value and info.data.get("tls_cert") is None and not is_loopback(host):
            raise ValueError(
                f'server.host "{host}" is beyond loopback and there is no TLS: set server.tls_cert and server.tls_key, '
                "or ask for plain text by setting this key to true"
            )
        return value

    @property
    def tls(self) -> bool:
        return self.tls_cert is not None


class StorageConfig(Section):
    """How writes reach the disk."""

    durability: Literal["sync", "async"] = setting("sync")
    """`sync`: the write-ahead log is on disk before a write is acknowledged. `async`: acknowledged first, so a power
    cut loses the last moments; for tests and for data that can be loaded again."""

    hot_stage_bytes: ByteSize = setting(MIB, unit="bytes", ge=64 * KIB, le=GIB)
    """An ingest larger than this goes to a staged segment file, not through the log, which would write it twice."""

    cache_bytes: ByteSize = setting(10 * GIB, unit="bytes", ge=MIB)
    """Local copies of batches that lie in object stores (`CREATE STORAGE`); the longest unused go first. What running
    statements read stays, even beyond the limit."""

    object_timeout_seconds: int = setting(30, unit="seconds", ge=1, le=600)
    """The longest that one request to an object store may take."""

    object_retries: int = setting(5, unit="requests", ge=0, le=20)
    """How often a request to an object store is repeated that got no answer, or one that may be another next time. The
    pauses between them grow from 0.05 to 2 seconds."""


class EngineConfig(Section):
    """What one statement may use."""

    memory_limit: str = setting(
        "60%", unit="% or bytes", allowed='a share from "1%" to "100%", or a size of at least 64 MiB such as "8 GiB"'
    )
    """Memory of the SQL engine, as a share of the machine's (or container's) memory or as a size; beyond it the engine
    spills to disk. The rest is for hot rows, caches and results under way."""

    threads: int = setting(0, unit="threads", ge=0, le=1024)
    """Worker threads of the SQL engine; 0: one per core."""

    temp_limit_bytes: ByteSize = setting(0, unit="bytes", ge=0)
    """Disk the engine may spill to; 0: its own bound, 90 % of what is free. A bound keeps one query from filling the
    disk that the log needs."""

    statement_timeout_seconds: int = setting(0, unit="seconds", ge=0, le=604_800)
    """A statement that runs longer is cancelled; 0: never. A session may set its own with `SET statement_timeout`."""

    partition_seconds: int = setting(300, unit="seconds", ge=1, le=86_400)
    """How long the parts of a result that was asked for in parts can be fetched, unless the client renews them. Their
    snapshot is held meanwhile, and with it the files that compactions have replaced."""

    max_batch_bytes: ByteSize = setting(2 * MIB, unit="bytes", ge=64 * KIB, le=64 * MIB)
    """The largest record batch sent to a client. Below the 4 MiB at which gRPC clients refuse a message unless told
    otherwise."""

    time_zone: str = setting("UTC", allowed="a name of the IANA time zone database, such as Europe/Vienna")
    """The time zone of a new session: it decides how TIMESTAMPTZ is read from and shown as text."""

    @field_validator("memory_limit")
    @classmethod
    def _memory_limit_is_share_or_size(cls, value: str) -> str:
        share = _PERCENT.fullmatch(value.strip())
        if not (1 <= int(share[1]) <= 100 if share else _size(value) >= _MIN_MEMORY):
            raise ValueError("too small or too large")
        return value.strip()

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone") from None
        return value

    def memory_bytes(self, ram_bytes: int) -> int:
        """The memory limit in bytes on a machine with `ram_bytes`."""
        share = _PERCENT.fullmatch(self.memory_limit)
        return max(_MIN_MEMORY, ram_bytes * int(share[1]) // 100) if share else _size(self.memory_limit)


class FlushConfig(Section):
    """From the log to Parquet."""

    check_interval_seconds: int = setting(10, unit="seconds", ge=1, le=86_400)
    """How often the scheduler looks for tables whose flush policy is due."""

    hot_bytes: ByteSize = setting(GIB, unit="bytes", ge=0)
    """Memory of rows that are not flushed yet, over all tables. Above it the largest scopes are flushed at once, whatever
    their policy says, until three quarters are left; 0 sets no such limit."""

    rows_per_batch: int = setting(1_000_000, unit="rows", ge=1_024, le=100_000_000)
    """A flush of more rows writes several batch files, so that its memory stays bounded."""

    row_group_rows: int = setting(24_576, unit="rows", ge=1_024, le=131_072)
    """Rows of a Parquet row group. Between 16 and 32 thousand a point lookup takes half the time it takes at 131
    thousand, scans are as fast, and files grow by 1 %."""

    compression: Literal["zstd", "lz4", "snappy", "none"] = setting("zstd")
    """Codec of the Parquet pages. zstd at level 1 is nearly as fast as lz4 and far smaller."""


class CompactionConfig(Section):
    """Merging small batches."""

    enabled: bool = setting(True)
    """Whether the scheduler compacts tables by itself. Without it deleted values stay in the files until somebody runs
    COMPACT TABLE, and reads slow down as batches grow in number."""

    small_batches: int = setting(10, unit="batches", ge=1, le=10_000)
    """So many batches with less than half of `flush.rows_per_batch` rows are left alone; more are merged. Each costs
    every scan a file."""

    overlapping_batches: int = setting(10, unit="batches", ge=1, le=10_000)
    """So many batches over one key are left alone; more are merged. Each costs every search by key a probe."""

    dead_percent: int = setting(20, unit="percent", ge=1, le=100)
    """A batch of which more rows are superseded is written anew."""


class RetentionConfig(Section):
    """Letting go of what has been kept for long enough."""

    check_interval_seconds: int = setting(3_600, unit="seconds", ge=1, le=43_200)
    """How often rows past their table's ROW_RETENTION are deleted, and deleted or superseded values leave the files
    once DELETED_RETENTION_HOURS have passed."""

    stream_interval_seconds: int = setting(60, unit="seconds", ge=1, le=86_400)
    """How often expired rows of STREAM tables, which no query sees any more, leave memory and log."""


class JobsConfig(Section):
    """Background work: flushes, compactions, sweeps, backups."""

    workers: int = setting(2, unit="jobs", ge=1, le=64)
    """Jobs at a time. The ones beyond `big_at_once` are for small jobs, which then need not wait for a long compaction."""

    big_at_once: int = setting(1, unit="jobs", ge=1, le=64, allowed="an integer from 1 to jobs.workers")
    """Jobs at a time that read or write whole files. On two cores a second one only takes from the queries."""

    busy_percent: int = setting(50, unit="percent", ge=1, le=100)
    """How much of its time a job works while queries come; between its steps it rests. Alone it works all the time."""

    stop_grace_seconds: int = setting(5, unit="seconds", ge=0, le=3_600)
    """At a shutdown, what running jobs are given to end. Those that have not ended then are stopped between two steps and
    begin again at the next start."""

    keep_days: int = setting(7, unit="days", ge=0, le=36_500)
    """How long the records of finished jobs are kept."""

    keep_most: int = setting(10_000, unit="records", ge=0, le=1_000_000)
    """Records of finished jobs kept at most; the oldest go first."""

    @field_validator("big_at_once")
    @classmethod
    def _big_ones_are_jobs_too(cls, value: int, info: ValidationInfo) -> int:
        workers = info.data.get("workers")
        if workers is not None and value > workers:
            raise ValueError(f"more than jobs.workers = {workers}")
        return value


class ManifestConfig(Section):
    """Caches of what lies in the cold tier."""

    ttl_seconds: int = setting(60, unit="seconds", ge=0, le=86_400)
    """A cached manifest older than this is revalidated against its file before it is used."""

    max_entries: int = setting(50_000, unit="manifests", ge=1, le=10_000_000)
    """Manifests kept in the cache; the longest unused go first."""

    key_cache_bytes: ByteSize = setting(256 * MIB, unit="bytes", ge=0)
    """Decoded key columns of cold batches kept in memory, which make repeated updates of flushed rows cheap."""

    row_cache_bytes: ByteSize = setting(64 * MIB, unit="bytes", ge=0)
    """Decoded row groups of cold batches kept in memory, which make reads and changes of single rows by key cheap, and reads of
    small batches."""

    small_batch_rows: int = setting(4_096, unit="rows", ge=0, le=1_000_000)
    """A query over cold batches that have no more rows than these together reads them from `row_cache_bytes` of memory rather
    than from their files: a user's own rows, mostly. 0 leaves all reading to the engine."""

    bloom_cache_bytes: ByteSize = setting(256 * MIB, unit="bytes", ge=0)
    """Bloom filters of cold batches kept in memory, so that a search by key opens no file in vain; 0 uses none."""


class BackupConfig(Section):
    """Copies made by BACKUP TO."""

    folder: Path | None = setting(None)
    """Where backups are kept; by default the folder `backups` of the data directory. On the file system of the data
    directory a backup is made of hard links and costs next to nothing, but shares the fate of that disk: copy it away, or
    choose a folder on another one."""


class IngestConfig(Section):
    """Bulk loading."""

    batch_rows: int = setting(65_536, unit="rows", ge=1, le=1_048_576)
    """Small client batches are joined up to this many rows before they are written: a thousand batches of ten rows
    cost a thousand log records."""


class Config(BaseSettings):
    """All settings.  Constructed bare it holds the defaults: only `load` looks at files and the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    server: ServerConfig = Field(default_factory=ServerConfig)
    auth: AuthConfig = Field(default_factory=AuthConfig)
    oidc: OidcConfig = Field(default_factory=OidcConfig)
    audit: AuditConfig = Field(default_factory=AuditConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    flush: FlushConfig = Field(default_factory=FlushConfig)
    compaction: CompactionConfig = Field(default_factory=CompactionConfig)
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    jobs: JobsConfig = Field(default_factory=JobsConfig)
    manifest: ManifestConfig = Field(default_factory=ManifestConfig)
    backup: BackupConfig = Field(default_factory=BackupConfig)
    ingest: IngestConfig = Field(default_factory=IngestConfig)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    memory: MemoryConfig = Field(default_factory=MemoryConfig)
    http: HttpConfig = Field(default_factory=HttpConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    tracing: TracingConfig = Field(default_factory=TracingConfig)

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        return (init_settings,)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        overrides: Mapping[str, object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Config:
        """The settings out of all sources.

        :param overrides: what the command line gave, by dotted key (`server.port`); None means not given.
        :raises ConfigError: all unknown keys and bad values together, so that one start finds them all.
        """
        given: dict[str, _Given] = {}
        for layer in (_file_layer(path), _environment_layer(environ), _command_line_layer(overrides or {})):
            given.update(layer)
        problems = [_unknown(key, g.source) for key, g in given.items() if key not in KEYS]
        known = {key: g for key, g in given.items() if key in KEYS}
        try:
            config = cls(**_nested(known))
        except ValidationError as e:
            problems += [_bad_value(error, known) for error in e.errors(include_url=False, include_input=False)]
        if problems:
            raise ConfigError("the settings do not fit:\n" + "\n".join(f"  - {p}" for p in problems)) from None
        return config

    def shown(self) -> dict[str, str]:
        """Every key with its value as text, secrets masked: what `system.settings` lists."""
        return {key.name: _value_text(getattr(getattr(self, key.section), key.field)) for key in KEYS.values()}


# ---------------------------------------------------------------------------------------------------------------
# Keys: what the sections say about themselves


@dataclass(frozen=True, slots=True)
class Key:
    """One setting as documentation and messages show it."""

    section: str
    field: str
    allowed: str
    unit: str
    default: str
    reason: str
    secret: bool

    @property
    def name(self) -> str:
        return f"{self.section}.{self.field}"

    @property
    def env(self) -> str:
        return f"{ENV_PREFIX}{self.section}{ENV_DELIMITER}{self.field}".upper()


def _keys() -> Iterator[Key]:
    for section, model in sections().items():
        for field, info in model.model_fields.items():
            extra = info.json_schema_extra
            assert isinstance(extra, dict) and info.description, f"{section}.{field} has no reason"
            yield Key(
                section=section,
                field=field,
                allowed=str(extra["allowed"]) or _allowed(info),
                unit=str(extra["unit"]),
                default=_value_text(info.default),
                reason=" ".join(info.description.split()),
                secret=SecretStr in alternatives(info.annotation),
            )


def sections() -> dict[str, type[Section]]:
    """Section name to its model, in the order of the documentation."""
    fields = Config.model_fields.items()
    return {name: info.annotation for name, info in fields if isinstance(info.annotation, type)}


def _allowed(info: FieldInfo) -> str:
    kind = alternatives(info.annotation)[0]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    noun = {bool: "true or false", int: "an integer", float: "a number", ByteSize: "a size", Path: "a path"}.get(kind, "text")
    low = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
    if low is None:
        return noun
    show = _size_text if kind is ByteSize else lambda n: f"{n:,}"
    return f"{noun} from {show(low)} to {show(high)}" if high is not None else f"{noun}, {show(low)} or more"


def _value_text(value: object) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, int) else str(value)


def _size_text(n: Any) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if n and n % unit == 0:
            return f"{n // unit} {name}"
    return str(n)


def _size(text: str) -> int:
    return int(TypeAdapter(ByteSize).validate_python(text.strip()))


KEYS: Mapping[str, Key] = {key.name: key for key in _keys()}


# ---------------------------------------------------------------------------------------------------------------
# Layers: what each source gives, by dotted key


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: str


def _file_layer(path: Path | None) -> dict[str, _Given]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            file.read(1)
        values = TomlConfigSettingsSource(Config, path)()
    except OSError as e:
        raise ConfigError(f"the settings file {path} cannot be read: {e.strerror}; check --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        # Only the position of the fault: the text around it may be a password.
        where = str(e) if isinstance(e, tomllib.TOMLDecodeError) else "it is not UTF-8"
        raise ConfigError(f"the settings file {path} is not TOML: {where}") from None
    return {key: _Given(value, f"file {path}") for key, value in _flat(values)}


def _environment_layer(environ: Mapping[str, str]) -> dict[str, _Given]:
    names = {name: name for name in environ if name.upper().startswith(ENV_PREFIX)}
    dotted = {name: name[len(ENV_PREFIX) :].lower().replace(ENV_DELIMITER, ".") for name in names}
    unknown = {key: _Given(None, f"environment {name}") for name, key in dotted.items() if key not in KEYS}
    reader = EnvSettingsSource(Config, env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER)
    reader.env_vars = {name.lower(): environ[name] for name, key in dotted.items() if key in KEYS}
    return unknown | {key: _Given(value, f"environment {KEYS[key].env}") for key, value in _flat(reader())}


def _command_line_layer(overrides: Mapping[str, object]) -> dict[str, _Given]:
    return {key: _Given(value, _COMMAND_LINE) for key, value in _flat(overrides) if value is not None}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and (value or prefix + name not in Config.model_fields):
            yield from _flat(value, f"{prefix}{name}.") if value else [(prefix + name, None)]
        elif not isinstance(value, Mapping):
            yield prefix + name, value


def _nested(given: Mapping[str, _Given]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, g in given.items():
        values.setdefault(KEYS[key].section, {})[KEYS[key].field] = g.value
    return values


# ---------------------------------------------------------------------------------------------------------------
# Messages


def _unknown(key: str, source: str) -> str:
    if key in Config.model_fields:
        return f"{key} ({source}) is a section, not a key: its keys are written {key}.<name>"
    names = {**{k.field: k.name for k in KEYS.values()}, **{k: k for k in KEYS}}
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"the nearest is {names[near[0]]}" if near else "docs/configuration.md lists them all"
    return f"{key} ({source}) is not a known key; {hint}"


def _bad_value(error: Mapping[str, Any], given: Mapping[str, _Given]) -> str:
    key = KEYS[".".join(str(part) for part in error["loc"][:2])]
    g = given.get(key.name)
    what = key.name if g is None or key.secret else f"{key.name} = {str(g.value)[:80]!r}"
    detail = error["msg"].removeprefix("Value error, ")[:200] if error["type"] == "value_error" else "this does not fit"
    return f"{what} ({g.source if g else 'default'}): {detail}; allowed: {key.allowed}"


# ---------------------------------------------------------------------------------------------------------------
# Documentation


def configuration_markdown() -> str:
    """docs/configuration.md, from the sections."""
    parts = [_PREAMBLE]
    for section, model in sections().items():
        parts.append(f"\n## [{section}]\n\n{(model.__doc__ or '').strip()}\n\n")
        parts.append("| key | allowed | unit | default | environment | why |\n|-|-|-|-|-|-|\n")
        parts += [_row(key) for key in KEYS.values() if key.section == section]
    return "".join(parts)


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default else "none"
    cells = (f"`{key.field}`", key.allowed, key.unit or "–", default, f"`{key.env}`", key.reason)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


_PREAMBLE = """\
# Configuration

FlightKalam reads its settings once, at the start, from four places; an earlier one wins:

1. the command line (`flightkalam serve --port 8815`, `--set flush.check_interval_seconds=5`),
2. the environment: `FLIGHTKALAM__SECTION__KEY`, such as `FLIGHTKALAM__SERVER__PORT=8815`,
3. one TOML file (`--config flightkalam.toml`),
4. the defaults below.

```toml
[server]
host = "0.0.0.0"
tls_cert = "/etc/flightkalam/cert.pem"
tls_key = "/etc/flightkalam/key.pem"

[engine]
memory_limit = "8 GiB"
```

An unknown key or a value that does not fit stops the start; the message names the key, where it was given and what is
allowed. Sizes are numbers of bytes or texts such as `"64 MiB"`. `system.settings` shows the values in force, secrets
masked.

This page is generated: change `flightkalam/config.py` or a file beside it, then run `python -m flightkalam.config`.
"""


def _rewrite() -> None:
    (Path(__file__).parents[1] / "docs" / "configuration.md").write_text(configuration_markdown(), encoding="utf-8")


if __name__ == "__main__":
    _rewrite()
