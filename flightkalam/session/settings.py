"""What a session may set: the default namespace, the time zone and the statement timeout; nothing else."""

from __future__ import annotations

import copy
import zoneinfo

import pyarrow as pa

from flightkalam.catalog.names import CATALOG, DEFAULT_NAMESPACE
from flightkalam.errors import InvalidValue, Unsupported, undefined_namespace
from flightkalam.session.acts import number_of_parts
from flightkalam.session.execution import Execution
from flightkalam.sql import statements as s

SCHEMA, TIME_ZONE, TIMEOUT = "schema", "timezone", "statement_timeout"
_ALIASES = {"search_path": SCHEMA, "current_schema": SCHEMA, "time_zone": TIME_ZONE, "time zone": TIME_ZONE}
COMPRESSION, PARTITIONS = "compression", "partitions"
SETTINGS = (SCHEMA, TIME_ZONE, TIMEOUT)
_UNITS = {"": 0.001, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


class Settings:
    """:param time_zone: what holds until the session sets another."""

    def __init__(self, time_zone: str) -> None:
        self._default_zone = time_zone
        self.namespace = DEFAULT_NAMESPACE
        self.time_zone = time_zone
        self.timeout_s: float | None = None
        self.compression: str | None = None  # of results; the wire's matter, kept here for it
        self.partitions = 1  # parts of a result at most
        self.as_user: str | None = None  # on whose behalf the session's statements run; set as a session option only

    def at(self, namespace: str, time_zone: str) -> Settings:
        """These settings as they were for a statement that was planned elsewhere."""
        if (namespace, time_zone) == (self.namespace, self.time_zone):
            return self
        made = copy.copy(self)
        made.namespace, made.time_zone = namespace, time_zone
        return made

    def apply(self, e: Execution, statement: s.Statement) -> None:
        """USE, SET or RESET."""
        match statement:
            case s.Use(namespace=namespace):
                self._set_namespace(e, namespace.value)
            case s.Set(name=name):
                self.set(e, name, statement.value)
            case s.Reset(name="all"):
                for name in SETTINGS:
                    self.set(e, name, None)
            case s.Reset(name=name):
                self.set(e, name, None)

    def set(self, e: Execution, name: str, value: str | None) -> None:
        """:param value: None for the default."""
        known = _known(name)
        if known == SCHEMA:
            self._set_namespace(e, value or DEFAULT_NAMESPACE)
        elif known == TIME_ZONE:
            self._set_time_zone(value)
        else:
            self.timeout_s = _seconds(value)

    def set_option(self, e: Execution, name: str, value: object) -> None:
        """A session option of the wire: `catalog`, `schema`, `time_zone`, `statement_timeout`, `compression`, `partitions`."""
        text = None if value is None else _text_of(name, value)
        if name == "catalog":
            if text not in (None, "", CATALOG):
                raise InvalidValue(f'catalog "{text}" does not exist; the only one is {CATALOG}')
        elif name in ("schema", "time_zone", "statement_timeout"):
            self.set(e, name, text or None)
        elif name == COMPRESSION:
            if text not in (None, "", "none", "lz4", "zstd"):
                raise InvalidValue(f'compression "{text}" is not known; it is none, lz4 or zstd')
            self.compression = None if text in (None, "", "none") else text
        elif name == PARTITIONS:
            self.partitions = number_of_parts(f'session option "{name}"', text) if text else 1
        else:
            known = f"catalog, schema, time_zone, statement_timeout, {COMPRESSION}, {PARTITIONS} and as_user"
            raise Unsupported(f'session option "{name}" is not known; there are {known}')

    def show(self, name: str) -> pa.Table:
        known = _known(name)
        value = {
            SCHEMA: self.namespace,
            TIME_ZONE: self.time_zone,
            TIMEOUT: "0" if self.timeout_s is None else f"{self.timeout_s * 1000:.0f}ms",
        }[known]
        return pa.table([[value]], schema=pa.schema([pa.field(known, pa.utf8(), nullable=False)]))

    def _set_namespace(self, e: Execution, name: str) -> None:
        first = name.split(",")[0].strip().strip('"')
        found = {n.name.lower(): n.name for n in e.state.visible_namespaces(e.visible)}
        if first.lower() not in found:
            raise undefined_namespace(first)
        self.namespace = found[first.lower()]

    def _set_time_zone(self, value: str | None) -> None:
        if value is None:
            self.time_zone = self._default_zone
            return
        known = {z.lower(): z for z in zoneinfo.available_timezones()}
        zone = known.get(value.lower())
        if zone is None:
            raise InvalidValue(f'time zone "{value}" is not known; name one such as Europe/Berlin or UTC')
        self.time_zone = zone


def _text_of(name: str, value: object) -> str:
    if isinstance(value, (bool, list)):
        raise InvalidValue(f'session option "{name}" takes a text or a number')
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _known(name: str) -> str:
    known = _ALIASES.get(name, name)
    if known not in SETTINGS:
        raise Unsupported(f'"{name}" cannot be set or shown; a session has schema, TimeZone and statement_timeout')
    return known


def _seconds(value: str | None) -> float | None:
    """`0` (none), milliseconds, or a number with a unit: `5s`, `2min`."""
    if value is None:
        return None
    text = value.strip().lower()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip()
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise InvalidValue(f"statement_timeout {value!r}: give milliseconds, or a number with ms, s, min or h") from None
    if seconds < 0:
        raise InvalidValue("statement_timeout must not be negative")
    return seconds or None
