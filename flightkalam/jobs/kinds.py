"""What jobs there are: for each kind its parameters, how urgent and how heavy it is, and how it is tried again.

    kind               parameters ("?": optional)                                  does
    flush              {"tables": ["ns.t", …], "owners"?: ["user" | null, …]}      hot rows become batches
    compact            {"table": "ns.t", "want"?: …, "owners"?: …}                 merges batches, lets go of dead rows
    retention          {"tables": ["ns.t", …]}                                     rows past ROW_RETENTION, tombstones
    stream_eviction    {"tables"?: ["ns.t", …]}                                    expired rows of STREAM tables
    manifest_eviction  {"idle_seconds"?: 3600}                                     unused manifests leave memory
    manifest_rebuild   {"table": "ns.t", "owners"?: …}                             manifests are made anew from the files
    orphan_sweep       {"tables"?: ["ns.t", …]}                                    files that no manifest names
    cleanup            {"table_id": n, "table"?: "ns.t"}                           files of a dropped table
    backup             {"name": "…"}                                               a copy of everything
    job_cleanup        {"keep_days"?: n}                                           old job records
    audit_retention    {}                                                          old audit records
    receipt_sweep      {}                                                          old idempotency keys
    store_rewrite      {}                                                          what was deleted leaves the store's files

Parameters are read when a job is made, never later: unknown fields are ignored, so that an older release can read the queue
of a newer one; what is missing or wrong is refused in one message that shows what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flightkalam.errors import InvalidValue
from flightkalam.jobs.compact_policy import Want

# A job's place in the queue: each level is worth ten minutes of waiting, so none waits for ever.
ASKED, SOON, BACKGROUND = 0, 1, 2

TableName = Annotated[str, Field(pattern=r"^[^.]+\..+$")]
_TABLES = '["ns.t", …]'
_OWNERS = '["user" | null, …]'


def expects(shape: str, default: Any = ..., **limits: Any) -> Any:
    """A parameter.  `shape` is what a message shows of it."""
    return Field(default=default, json_schema_extra={"shape": shape}, **limits)


class Parameters(BaseModel):
    """What one job is to do."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)

    @property
    def targets(self) -> tuple[str, ...]:
        """What the job works on; two jobs of one kind that share no target have nothing to do with each other."""
        return ("",)

    def covers(self, other: Parameters) -> bool:
        """Whether a job with these parameters does all that one with the others would."""
        return self == other


def _all_of(owners: list[str | None] | None, others: list[str | None] | None) -> bool:
    """Whether all of `others` are among `owners`; None: everybody."""
    return owners is None or (others is not None and set(owners) >= set(others))


class Nothing(Parameters):
    """No parameters."""


class Flush(Parameters):
    tables: list[TableName] = expects(_TABLES)
    owners: list[str | None] | None = expects(_OWNERS, None)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.tables) or ("",)

    def covers(self, other: Parameters) -> bool:
        return isinstance(other, Flush) and set(self.tables) == set(other.tables) and _all_of(self.owners, other.owners)


class Compact(Parameters):
    table: TableName = expects('"ns.t"')
    want: Literal["auto", "all", "overdue", "erase"] = expects('"auto" | "all" | "overdue" | "erase"', "all")
    owners: list[str | None] | None = expects(_OWNERS, None)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.table,)

    def covers(self, other: Parameters) -> bool:
        if not isinstance(other, Compact) or (self.table, self.want) != (other.table, other.want):
            return False
        return _all_of(self.owners, other.owners)

    @property
    def wanted(self) -> Want:
        return Want(self.want)


class Retention(Parameters):
    tables: list[TableName] = expects(_TABLES)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.tables) or ("",)


class OfTables(Parameters):
    tables: list[TableName] | None = expects(_TABLES, None)

    def covers(self, other: Parameters) -> bool:
        return self.tables is None or self == other


class ManifestEviction(Parameters):
    idle_seconds: int = expects("seconds", 3_600, ge=0)


class ManifestRebuild(Parameters):
    table: TableName = expects('"ns.t"')
    owners: list[str | None] | None = expects(_OWNERS, None)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.table,)


class Cleanup(Parameters):
    table_id: int = expects("number")
    table: str | None = expects('"ns.t"', None)

    @property
    def targets(self) -> tuple[str, ...]:
        return (str(self.table_id),)

    def covers(self, other: Parameters) -> bool:
        return isinstance(other, Cleanup) and self.table_id == other.table_id


class Backup(Parameters):
    name: str = expects('"name of the backup"', min_length=1)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.name,)


class JobCleanup(Parameters):
    keep_days: float | None = expects("days", None, ge=0)


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table.

    :param prefix: of the ids of its jobs.
    :param big: reads or writes whole files: only so many of them run at a time.
    :param priority: where nobody waits for it.
    :param attempts: how often it is begun at most, when what stopped it may be over later.
    :param repeats: one that comes while it runs is answered by the same job, which then looks once more.
    """

    name: str
    prefix: str
    parameters: type[Parameters]
    big: bool = False
    priority: int = BACKGROUND
    attempts: int = 5
    repeats: bool = False


_ROWS = (
    Kind("flush", "FL", Flush, big=True, repeats=True),
    Kind("compact", "CO", Compact, big=True),
    Kind("retention", "RE", Retention, big=True),
    Kind("stream_eviction", "SE", OfTables),
    Kind("manifest_eviction", "ME", ManifestEviction),
    Kind("manifest_rebuild", "MR", ManifestRebuild, big=True, priority=SOON),
    Kind("orphan_sweep", "OS", OfTables, big=True),
    Kind("cleanup", "CL", Cleanup, priority=SOON, attempts=20),
    Kind("backup", "BA", Backup, big=True, priority=ASKED, attempts=1),
    Kind("job_cleanup", "JC", JobCleanup),
    Kind("audit_retention", "AR", Nothing),
    Kind("receipt_sweep", "RS", Nothing),
    Kind("store_rewrite", "SR", Nothing, big=True),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ROWS}


def kind_of(name: str) -> Kind:
    """:raises InvalidValue: there is none; the message names those that there are."""
    found = KINDS.get(name)
    if found is None:
        raise InvalidValue(f'there is no kind of job named "{name[:80]}"; there are {", ".join(KINDS)}')
    return found


def shape(model: type[Parameters]) -> str:
    """What a kind's parameters look like: `{"table": "ns.t", "owners"?: ["user" | null, …]}`."""
    fields = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        text = extra["shape"] if isinstance(extra, dict) else "…"
        fields.append(f'"{name}"{"" if field.is_required() else "?"}: {text}')
    return "{" + ", ".join(fields) + "}"


def read(kind: Kind, parameters: object) -> Parameters:
    """The parameters of a new job.

    :raises InvalidValue: something is missing or wrong; all of it is said at once, with the expected shape.
    """
    try:
        return kind.parameters.model_validate(parameters)
    except ValidationError as e:
        wrong = "; ".join(dict.fromkeys(_wrong(error) for error in e.errors(include_url=False, include_input=False)))
        raise InvalidValue(f"a job of kind {kind.name} takes {shape(kind.parameters)}: {wrong}") from None


def _wrong(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if not where:
        return "the parameters must be an object"
    if error["type"] == "missing":
        return f'"{where}" is missing'
    if error["type"] == "string_pattern_mismatch":
        return f'"{where}" must name a table with its namespace, as in "main.t"'
    return f'"{where}": {error["msg"][0].lower()}{error["msg"][1:]}'
