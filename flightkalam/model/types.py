"""Column types: one row per SQL type, with its engine, Arrow and storage forms (SEMANTICS §1).

A column has three faces.  *wire* is the Arrow type a client sends and receives.  *storage* is the Arrow type of the hot
log and of Parquet: the same, but for INTERVAL, which Parquet cannot hold and which is stored as a struct of months, days
and microseconds.  *engine* is the type the SQL engine shall see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flightkalam.errors import InvalidValue, SqlSyntaxError, Unsupported, ValueOutOfRange

INTERVAL_STORAGE = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("micros", pa.int64())])
_LONGEST_MICROS = (2**63 - 1) // 1000  # on the wire an interval counts nanoseconds
_INTERVAL_DTYPE = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])


@dataclass(frozen=True, slots=True)
class ColumnType:
    """One SQL type.

    :param name: canonical SQL text, as DESCRIBE shows it and `parse_type` reads it back.
    :param engine: the SQL engine's name for it.
    :param wire: Arrow type on the wire.
    :param storage: Arrow type in the hot log and in Parquet.
    :param kind: the family, for rules: bool, int, float, decimal, text, blob, json, uuid, date, time, timestamp,
        timestamptz, interval, list, struct, embedding.
    """

    name: str
    engine: str
    wire: pa.DataType
    storage: pa.DataType
    kind: str
    precision: int | None = field(default=None, compare=False)
    scale: int | None = field(default=None, compare=False)

    @property
    def can_be_key(self) -> bool:
        """Types with one byte form per value and a total order; floats have NaN and two zeros (T-21)."""
        return self.kind in _KEY_KINDS

    @property
    def has_bounds(self) -> bool:
        """Whether a minimum and a maximum of a batch can decide a comparison."""
        return self.kind in _BOUNDED_KINDS

    def __str__(self) -> str:
        return self.name


_KEY_KINDS = frozenset({"bool", "int", "decimal", "text", "blob", "uuid", "date", "time", "timestamp", "timestamptz"})
_BOUNDED_KINDS = _KEY_KINDS | {"float"}


def _simple(name: str, engine: str, arrow: pa.DataType, kind: str, precision: int | None = None) -> ColumnType:
    return ColumnType(name, engine, arrow, arrow, kind, precision)


BOOLEAN = _simple("BOOLEAN", "BOOLEAN", pa.bool_(), "bool", 1)
SMALLINT = _simple("SMALLINT", "SMALLINT", pa.int16(), "int", 5)
INT = _simple("INT", "INTEGER", pa.int32(), "int", 10)
BIGINT = _simple("BIGINT", "BIGINT", pa.int64(), "int", 19)
REAL = _simple("REAL", "FLOAT", pa.float32(), "float", 24)
DOUBLE = _simple("DOUBLE", "DOUBLE", pa.float64(), "float", 53)
TEXT = _simple("TEXT", "VARCHAR", pa.utf8(), "text")
BLOB = _simple("BLOB", "BLOB", pa.binary(), "blob")
JSON = _simple("JSON", "JSON", pa.utf8(), "json")
UUID = _simple("UUID", "UUID", pa.utf8(), "uuid", 36)
DATE = _simple("DATE", "DATE", pa.date32(), "date", 10)
TIME = _simple("TIME", "TIME", pa.time64("us"), "time", 15)
TIMESTAMP = _simple("TIMESTAMP", "TIMESTAMP", pa.timestamp("us"), "timestamp", 26)
TIMESTAMPTZ = _simple("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", pa.timestamp("us", "UTC"), "timestamptz", 32)
INTERVAL = ColumnType("INTERVAL", "INTERVAL", pa.month_day_nano_interval(), INTERVAL_STORAGE, "interval")

_BY_WORD: dict[str, ColumnType] = {
    **dict.fromkeys(("BOOLEAN", "BOOL", "LOGICAL"), BOOLEAN),
    **dict.fromkeys(("SMALLINT", "INT2", "SHORT"), SMALLINT),
    **dict.fromkeys(("INT", "INTEGER", "INT4", "SIGNED"), INT),
    **dict.fromkeys(("BIGINT", "INT8", "LONG"), BIGINT),
    **dict.fromkeys(("REAL", "FLOAT4", "FLOAT"), REAL),
    **dict.fromkeys(("DOUBLE", "FLOAT8", "DOUBLE PRECISION"), DOUBLE),
    **dict.fromkeys(("TEXT", "VARCHAR", "STRING", "CHAR", "BPCHAR", "CHARACTER VARYING", "CHARACTER"), TEXT),
    **dict.fromkeys(("BLOB", "BYTEA", "BINARY", "VARBINARY", "BYTES"), BLOB),
    "JSON": JSON,
    "JSONB": JSON,
    "UUID": UUID,
    "DATE": DATE,
    **dict.fromkeys(("TIME", "TIME WITHOUT TIME ZONE"), TIME),
    **dict.fromkeys(("TIMESTAMP", "DATETIME", "TIMESTAMP WITHOUT TIME ZONE", "TIMESTAMP_US"), TIMESTAMP),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"), TIMESTAMPTZ),
    "INTERVAL": INTERVAL,
    # Columns that numbers themselves (SEMANTICS §1): the default is added by CREATE TABLE.
    **dict.fromkeys(("SERIAL", "BIGSERIAL"), BIGINT),
}
# What the engine may compute and a table cannot hold as it is; the column gets the type that loses nothing.
_WIDENED: dict[str, ColumnType] = {
    "TINYINT": SMALLINT,
    "UTINYINT": SMALLINT,
    "USMALLINT": INT,
    "UINTEGER": BIGINT,
    "TIMESTAMP_NS": TIMESTAMP,
    "TIMESTAMP_MS": TIMESTAMP,
    "TIMESTAMP_S": TIMESTAMP,
    '"NULL"': INT,
    "NULL": INT,
}


def decimal(precision: int, scale: int) -> ColumnType:
    if not 1 <= precision <= 38 or not 0 <= scale <= precision:
        raise InvalidValue(f"DECIMAL({precision},{scale}): precision must be 1..38 and scale 0..precision")
    arrow = pa.decimal128(precision, scale)
    name = f"DECIMAL({precision},{scale})"
    return ColumnType(name, name, arrow, arrow, "decimal", precision, scale)


def embedding(size: int) -> ColumnType:
    if not 1 <= size <= 65_536:
        raise InvalidValue(f"EMBEDDING({size}): the size must be 1..65536")
    arrow = pa.list_(pa.float32(), size)
    return ColumnType(f"EMBEDDING({size})", f"FLOAT[{size}]", arrow, arrow, "embedding", size)


def list_of(item: ColumnType) -> ColumnType:
    _refuse_nested(item)
    arrow = pa.list_(item.storage)
    return ColumnType(f"{item.name}[]", f"{_nested_engine(item)}[]", arrow, arrow, "list")


def struct_of(fields: list[tuple[str, ColumnType]]) -> ColumnType:
    if not fields:
        raise InvalidValue("STRUCT needs at least one field")
    seen: set[str] = set()
    for name, type_ in fields:
        _refuse_nested(type_)
        if name.lower() in seen:
            raise InvalidValue(f'STRUCT names the field "{name}" twice')
        seen.add(name.lower())
    arrow = pa.struct([(n, t.storage) for n, t in fields])
    names = ", ".join(f"{_field_name(n)} {t.name}" for n, t in fields)
    engine = ", ".join(f"{_field_name(n)} {_nested_engine(t)}" for n, t in fields)
    return ColumnType(f"STRUCT({names})", f"STRUCT({engine})", arrow, arrow, "struct")


def _refuse_nested(item: ColumnType) -> None:
    if item.kind == "interval":
        raise Unsupported("INTERVAL inside a list or struct is not supported; use BIGINT microseconds")


def _nested_engine(item: ColumnType) -> str:
    return "VARCHAR" if item.kind == "json" else item.engine


def _field_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ---------------------------------------------------------------------------------------------------------------
# Text -> type

_TYPE_TOKEN = re.compile(r'\s*("(?:[^"]|"")*"|[A-Za-z_]\w*|\d+|[\[\](),])')


class _TypeParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        at = 0
        stripped = text.rstrip()
        while at < len(stripped):
            match = _TYPE_TOKEN.match(stripped, at)
            if match is None:
                raise SqlSyntaxError(f'"{text.strip()}" is not a type')
            self.tokens.append(match.group(1))
            at = match.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise SqlSyntaxError(f'"{self.text.strip()}" is not a type: "{token}" expected')

    def parse(self) -> ColumnType:
        type_ = self.parse_item()
        while self.peek() == "[":
            type_ = self.parse_suffix(type_)
        return type_

    def parse_suffix(self, item: ColumnType) -> ColumnType:
        self.expect("[")
        if self.peek() == "]":
            self.next()
            return list_of(item)
        size = self.number()
        self.expect("]")
        if item is not REAL:
            raise Unsupported(f"{item.name}[{size}]: arrays of a fixed size hold REAL only; use {item.name}[]")
        return embedding(size)

    def number(self) -> int:
        token = self.next()
        if not token.isdigit():
            raise SqlSyntaxError(f'"{self.text.strip()}" is not a type: a number expected')
        return int(token)

    def arguments(self) -> list[int]:
        self.expect("(")
        numbers = [self.number()]
        while self.peek() == ",":
            self.next()
            numbers.append(self.number())
        self.expect(")")
        return numbers

    def words(self) -> str:
        word = self.next().upper()
        for following in ("PRECISION", "VARYING"):
            if self.peek().upper() == following:
                word += " " + self.next().upper()
        return word

    def parse_item(self) -> ColumnType:
        word = self.words()
        if word in ("DECIMAL", "NUMERIC", "DEC"):
            numbers = self.arguments() if self.peek() == "(" else [18, 3]
            if len(numbers) > 2:
                raise SqlSyntaxError(f'"{self.text.strip()}" is not a type: DECIMAL takes precision and scale')
            return decimal(numbers[0], numbers[1] if len(numbers) == 2 else 0)
        if word == "EMBEDDING":
            return embedding(self.arguments()[0])
        if word in ("STRUCT", "ROW"):
            return self.parse_struct()
        if word == "LIST" and self.peek() == "(":
            self.next()
            item = self.parse()
            self.expect(")")
            return list_of(item)
        return self.parse_word(word)

    def parse_struct(self) -> ColumnType:
        self.expect("(")
        fields: list[tuple[str, ColumnType]] = []
        while True:
            name = self.next()
            name = name[1:-1].replace('""', '"') if name.startswith('"') else name
            fields.append((name, self.parse()))
            if self.peek() != ",":
                break
            self.next()
        self.expect(")")
        return struct_of(fields)

    def parse_word(self, word: str) -> ColumnType:
        if word in ("TIME", "TIMESTAMP") and self.peek().upper() in ("WITH", "WITHOUT"):
            with_ = self.next().upper()
            for expected in ("TIME", "ZONE"):
                if self.next().upper() != expected:
                    raise SqlSyntaxError(f'"{self.text.strip()}" is not a type')
            word = f"{word} {with_} TIME ZONE"
        type_ = _BY_WORD.get(word)
        if type_ is None:
            hint = {"HUGEINT": "DECIMAL(38,0)", "UBIGINT": "DECIMAL(20,0)", "UHUGEINT": "DECIMAL(38,0)"}.get(word)
            hint = hint or (_WIDENED[word].name if word in _WIDENED else None)
            raise Unsupported(
                f'type "{self.text.strip()}" is not supported' + (f"; use {hint}" if hint else ""), sqlstate="42704"
            )
        if self.peek() == "(" and type_.kind in ("text", "blob", "timestamp", "timestamptz", "time"):
            self.length(type_)
        return type_

    def length(self, type_: ColumnType) -> None:
        length = self.arguments()[0]
        if type_.kind in ("text", "blob"):
            raise Unsupported(f"{type_.name}({length}): lengths are not enforced; use {type_.name} with a CHECK")
        if length != 6:
            raise Unsupported(f"{type_.name}({length}): times have microseconds; use {type_.name}")


@lru_cache(maxsize=4096)
def parse_type(text: str) -> ColumnType:
    """Read the SQL text of a column type.

    :raises Unsupported: a type that tables cannot hold (SQLSTATE 42704).
    :raises SqlSyntaxError: text that is no type.
    """
    parser = _TypeParser(text)
    type_ = parser.parse()
    if parser.peek():
        raise SqlSyntaxError(f'"{text.strip()}" is not a type: unexpected "{parser.peek()}"')
    return type_


@lru_cache(maxsize=4096)
def from_engine(text: str) -> ColumnType:
    """The column type that holds every value of one of the engine's types (for CREATE TABLE AS)."""
    word = text.strip().upper()
    if word in _WIDENED:
        return _WIDENED[word]
    if word in ("HUGEINT", "UHUGEINT", "VARINT", "BIGNUM"):
        return decimal(38, 0)
    if word == "UBIGINT":
        return decimal(20, 0)
    if word.endswith("[]"):
        return list_of(from_engine(text.strip()[:-2]))
    if word.startswith("ENUM("):
        return TEXT
    return parse_type(text)


def from_arrow(type_: pa.DataType, where: str) -> ColumnType:
    """The column type for a column that arrives as Arrow.

    :param where: the column's name, for the error.
    :raises Unsupported: an Arrow type that no column type holds without loss.
    """
    found = _from_arrow_simple(type_)
    if found is not None:
        return found
    if pa.types.is_dictionary(type_):
        return from_arrow(type_.value_type, where)
    if isinstance(type_, pa.BaseExtensionType):
        return _from_extension(type_, where)
    if pa.types.is_decimal(type_) and type_.precision <= 38 and 0 <= type_.scale <= type_.precision:
        return decimal(type_.precision, type_.scale)
    if pa.types.is_timestamp(type_):
        return TIMESTAMPTZ if type_.tz else TIMESTAMP
    if pa.types.is_fixed_size_list(type_) and pa.types.is_float32(type_.value_type):
        return embedding(type_.list_size)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return list_of(from_arrow(type_.value_type, where))
    if pa.types.is_struct(type_):
        return struct_of([(f.name, from_arrow(f.type, where)) for f in type_])
    raise Unsupported(f'column "{where}": Arrow type {type_} cannot be stored', sqlstate="42704")


def _from_extension(type_: pa.BaseExtensionType, where: str) -> ColumnType:
    if type_.extension_name == "arrow.uuid":
        return UUID
    if type_.extension_name == "arrow.json":
        return JSON
    return from_arrow(type_.storage_type, where)


def _from_arrow_simple(type_: pa.DataType) -> ColumnType | None:
    is_ = pa.types
    rows = (
        (is_.is_boolean, BOOLEAN),
        (is_.is_int64, BIGINT),
        (is_.is_int32, INT),
        (is_.is_int16, SMALLINT),
        (is_.is_int8, SMALLINT),
        (is_.is_uint8, SMALLINT),
        (is_.is_uint16, INT),
        (is_.is_uint32, BIGINT),
        (is_.is_uint64, decimal(20, 0)),
        (is_.is_float64, DOUBLE),
        (is_.is_float32, REAL),
        (is_.is_float16, REAL),
        (is_.is_string, TEXT),
        (is_.is_large_string, TEXT),
        (is_.is_string_view, TEXT),
        (is_.is_null, TEXT),
        (is_.is_binary, BLOB),
        (is_.is_large_binary, BLOB),
        (is_.is_binary_view, BLOB),
        (is_.is_fixed_size_binary, BLOB),
        (is_.is_date, DATE),
        (is_.is_time, TIME),
    )
    for test, column_type in rows:
        if test(type_):
            return column_type
    return INTERVAL if type_ == pa.month_day_nano_interval() else None


# ---------------------------------------------------------------------------------------------------------------
# Arrays: wire -> storage -> wire


def to_storage(array: pa.Array | pa.ChunkedArray, type_: ColumnType, where: str) -> pa.Array | pa.ChunkedArray:
    """Cast an array from a client or the engine to the column's storage type, exactly or not at all; only a binary fraction
    becomes the nearest REAL or DECIMAL, as everywhere in SQL.

    :param where: column name for the error.
    :raises ValueOutOfRange: a value that does not fit (overflow, lost fraction, nanoseconds, invalid text).
    """
    if isinstance(array, pa.ChunkedArray) and array.num_chunks == 1:
        array = array.chunk(0)
    if array.type == type_.storage and type_.kind not in ("uuid", "json"):
        return array
    try:
        return _to_storage(array, type_)
    except pa.ArrowInvalid as e:
        raise ValueOutOfRange(f'column "{where}" is {type_.name}: {_first_line(e)}') from None
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        raise InvalidValue(
            f'column "{where}" is {type_.name}; values of Arrow type {array.type} cannot be stored in it',
            sqlstate="42804",
        ) from None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:300]


def _to_storage(array: pa.Array | pa.ChunkedArray, type_: ColumnType) -> pa.Array | pa.ChunkedArray:
    if isinstance(array.type, pa.BaseExtensionType):
        array = _plain(array)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if type_.kind == "interval":
        return _interval_to_storage(array)
    if type_.kind == "uuid":
        return _canonical_uuid(array)
    if type_.kind == "timestamptz" and pa.types.is_timestamp(array.type) and array.type.tz is None:
        array = array.cast(pa.timestamp("us")).cast(type_.storage)
    if type_.kind in ("text", "json") and not _is_text(array.type) and not pa.types.is_null(array.type):
        raise pa.ArrowNotImplementedError("not text")
    if type_.kind == "time" and pa.types.is_timestamp(array.type):
        raise pa.ArrowNotImplementedError("not a time of day")
    _refuse_lost_fields(array.type, type_.storage)
    cast = array.cast(type_.storage, safe=True)
    _refuse_silent_loss(array, cast, type_)
    return cast


def _refuse_lost_fields(from_: pa.DataType, to: pa.DataType) -> None:
    """A cast of structs leaves out the fields that the target lacks, and says nothing."""
    if pa.types.is_struct(from_) and pa.types.is_struct(to):
        names = {f.name for f in to}
        for field_ in from_:
            if field_.name not in names:
                raise pa.ArrowInvalid(f'the struct has no field "{field_.name}"')
            _refuse_lost_fields(field_.type, to.field(field_.name).type)
    elif _is_list(from_) and _is_list(to):
        _refuse_lost_fields(from_.value_type, to.value_type)


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def _refuse_silent_loss(array: pa.Array | pa.ChunkedArray, cast: pa.Array | pa.ChunkedArray, type_: ColumnType) -> None:
    """What a safe cast lets pass all the same."""
    if type_.kind == "date" and pa.types.is_timestamp(array.type):
        local = array if array.type.tz is None else pc.local_timestamp(array)
        if _any(pc.not_equal(cast.cast(local.type), local)):
            raise pa.ArrowInvalid("a timestamp has a time of day")
    if type_ == REAL and pa.types.is_float64(array.type) and _any(pc.and_(pc.is_inf(cast), pc.is_finite(array))):
        raise pa.ArrowInvalid("a number is too large")
    if type_.kind == "bool" and pa.types.is_integer(array.type) and _any(pc.not_equal(cast.cast(array.type), array)):
        raise pa.ArrowInvalid("a number is neither 0 nor 1")


def _any(mask: pa.Array | pa.ChunkedArray) -> bool:
    return bool(pc.any(mask).as_py())


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The storage array of an extension array; uuids become text."""
    if array.type.extension_name == "arrow.uuid":
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        return pa.chunked_array([_uuid_text(c.storage) for c in chunks], pa.utf8())
    if isinstance(array, pa.ChunkedArray):
        return pa.chunked_array([c.storage for c in array.chunks], array.type.storage_type)
    return array.storage


def _uuid_text(array: pa.Array) -> pa.Array:
    """fixed_size_binary(16)[n] -> canonical lower-case utf8[n], without touching a row in Python."""
    n = len(array)
    raw = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + n) * 16].reshape(n, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    out = np.full((n, 36), ord("-"), np.uint8)
    columns = [i for i in range(36) if i not in (8, 13, 18, 23)]
    out[:, columns[0::2]] = digits[raw >> 4]
    out[:, columns[1::2]] = digits[raw & 15]
    offsets = np.arange(0, 36 * (n + 1), 36, dtype=np.int32)
    text = pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(out.tobytes()))
    return pc.if_else(array.is_valid(), text, pa.scalar(None, pa.utf8())) if array.null_count else text


_UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def _canonical_uuid(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_fixed_size_binary(array.type) and array.type.byte_width == 16:
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        return pa.chunked_array([_uuid_text(c) for c in chunks], pa.utf8())
    text = pc.utf8_lower(array.cast(pa.utf8()))
    good = pc.all(pc.match_substring_regex(text, _UUID_PATTERN)).as_py()
    if good is False:
        raise pa.ArrowInvalid("a value is not a UUID such as 550e8400-e29b-41d4-a716-446655440000")
    return text


def _interval_to_storage(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if array.type == INTERVAL_STORAGE:
        return array
    if isinstance(array, pa.ChunkedArray):
        return pa.chunked_array([_interval_to_storage(c) for c in array.chunks], INTERVAL_STORAGE)
    if pa.types.is_duration(array.type):
        micros = array.cast(pa.duration("us")).cast(pa.int64())
        if _any(pc.greater(pc.abs_checked(micros), _LONGEST_MICROS)):
            raise pa.ArrowInvalid("an interval is longer than 292 years of microseconds")
        zeros = pa.array(np.zeros(len(array), np.int32))
        return pa.StructArray.from_arrays([zeros, zeros, micros], fields=list(INTERVAL_STORAGE), mask=array.is_null())
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), INTERVAL_STORAGE)
    if array.type != pa.month_day_nano_interval():
        raise pa.ArrowNotImplementedError("not an interval")
    n = len(array)
    raw = (
        np.frombuffer(array.buffers()[1], _INTERVAL_DTYPE)[array.offset : array.offset + n]
        if n
        else np.empty(0, _INTERVAL_DTYPE)
    )
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    nanos = np.where(valid, raw["nanos"], 0)
    if (nanos % 1000).any():
        raise pa.ArrowInvalid("an interval has nanoseconds; microseconds are the finest kept")
    parts = [pa.array(np.where(valid, raw[f], 0).astype(np.int32)) for f in ("months", "days")]
    return pa.StructArray.from_arrays([*parts, pa.array(nanos // 1000)], fields=list(INTERVAL_STORAGE), mask=pa.array(~valid))


def interval_from_storage(array: pa.Array) -> pa.Array:
    """struct(months, days, micros)[n] -> month_day_nano_interval[n]."""
    n = len(array)
    out = np.zeros(n, _INTERVAL_DTYPE)
    months, days, micros = (pc.fill_null(a, 0).to_numpy(zero_copy_only=False) for a in array.flatten())
    out["months"], out["days"], out["nanos"] = months, days, micros * 1000
    validity = pa.array(array.is_valid()).buffers()[1] if array.null_count else None
    return pa.Array.from_buffers(pa.month_day_nano_interval(), n, [validity, pa.py_buffer(out.tobytes())])


# ---------------------------------------------------------------------------------------------------------------
# Widening


def widens(old: ColumnType, new: ColumnType) -> bool:
    """Whether every value of `old` is a value of `new`, so that ALTER COLUMN … SET DATA TYPE may be made (T-31)."""
    if old == new:
        return True
    pair = (old.kind, new.kind)
    if pair == ("int", "int"):
        return (old.precision or 0) < (new.precision or 0)
    if pair == ("int", "float"):
        return (old.precision or 0) <= (5 if new == REAL else 10)
    if pair == ("int", "decimal"):
        return (new.precision or 0) - (new.scale or 0) >= (old.precision or 0)
    if pair == ("float", "float"):
        return old == REAL and new == DOUBLE
    if pair == ("decimal", "decimal"):
        return (new.scale or 0) >= (old.scale or 0) and (new.precision or 0) - (new.scale or 0) >= (old.precision or 0) - (
            old.scale or 0
        )
    return pair in {("date", "timestamp"), ("json", "text"), ("uuid", "text")}
