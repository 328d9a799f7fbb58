"""The schema that is announced, and batches that keep it.

The announced schema is a function of the engine's type names alone (`wire_schema`), and every batch is cast to it
(`conform`); so prepare, FlightInfo, GetSchema and the stream agree by construction.  All result columns are nullable:
the engine does not say which cannot be NULL, and a wrong promise corrupts clients.

    BIGINT … DOUBLE, DECIMAL, VARCHAR, BLOB, DATE, BOOLEAN    as they are        JSON, UUID, ENUM   utf8
    TIMESTAMP_S/MS/NS, TIME_NS   with their own unit           TIMESTAMPTZ        timestamp[us, UTC] (T-34)
    HUGEINT                      decimal128(38, 0)             INTERVAL           month_day_nano
    lists, structs, maps         of these                      NULL               int32
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from flightkalam.errors import InternalError, Unsupported, ValueOutOfRange
from flightkalam.query.compute import ResultColumn

MAX_BATCH_BYTES = 2 << 20

_SIMPLE: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.utf8(),
    "JSON": pa.utf8(),
    "UUID": pa.utf8(),
    "BLOB": pa.binary(),
    "GEOMETRY": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    "TIMESTAMPTZ_NS": pa.timestamp("ns", "UTC"),
    "INTERVAL": pa.month_day_nano_interval(),
    '"NULL"': pa.int32(),
    "NULL": pa.int32(),
}
# What Arrow has no plain type for: the statement must cast it, so that nothing is lost in silence.
_REFUSED = {
    "UHUGEINT": "VARCHAR",  # comes as a signed number: half of its values would turn negative
    "BIT": "VARCHAR",
    "BIGNUM": "VARCHAR",
    "VARIANT": "JSON",
    "TYPE": "VARCHAR",
    "TIME WITH TIME ZONE": "VARCHAR",
    "LAMBDA": "VARCHAR",
}
_TOKEN = re.compile(r"""\s*("(?:[^"]|"")*"|'(?:[^']|'')*'|[A-Za-z_][A-Za-z_0-9]*|[0-9]+|[\[\](),])""")


def wire_schema(columns: Sequence[ResultColumn]) -> pa.Schema:
    """The schema of a result.

    :raises Unsupported: a type that has to be cast before it can travel.
    """
    return pa.schema([pa.field(c.name, wire_type(c.type, c.name), nullable=True) for c in columns])


def wire_type(text: str, where: str = "?column?") -> pa.DataType:
    try:
        return _wire_type(text)
    except Unsupported as e:
        raise Unsupported(f'column "{where}": {e.message}') from None


@lru_cache(maxsize=4096)
def _wire_type(text: str) -> pa.DataType:
    parser = _Types(text)
    type_ = parser.type()
    if parser.peek():
        raise InternalError(f'the engine has a type "{text}" that is not understood')
    return type_


class _Types:
    """Reads the engine's name of a type."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _TOKEN.findall(text)
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else ""

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise InternalError(f'the engine has a type "{self.text}" that is not understood')

    def type(self) -> pa.DataType:
        type_ = self.item()
        while self.peek() == "[":
            self.next()
            size = int(self.next()) if self.peek() != "]" else None
            self.expect("]")
            type_ = pa.list_(type_) if size is None else pa.list_(type_, size)
        return type_

    def item(self) -> pa.DataType:
        word = self.words()
        if word == "DECIMAL":
            self.expect("(")
            precision = int(self.next())
            self.expect(",")
            scale = int(self.next())
            self.expect(")")
            return pa.decimal128(precision, scale)
        if word in ("STRUCT", "UNION") and self.peek() == "(":
            fields = self.fields()
            if word == "UNION":
                raise Unsupported("a UNION value cannot be sent; take a member of it or cast it to VARCHAR")
            return pa.struct(fields)
        if word == "MAP":
            self.expect("(")
            key = self.type()
            self.expect(",")
            value = self.type()
            self.expect(")")
            return pa.map_(key, value)
        if word == "ENUM":
            self.skip_brackets()
            return pa.utf8()
        return self.simple(word)

    def simple(self, word: str) -> pa.DataType:
        if word in _REFUSED:
            raise Unsupported(f"a value of type {word} cannot be sent; cast it to {_REFUSED[word]}")
        found = _SIMPLE.get(word)
        if found is None:
            raise Unsupported(f"a value of type {word} cannot be sent; cast it to VARCHAR")
        if self.peek() == "(":
            self.skip_brackets()
        return found

    def words(self) -> str:
        word = self.next()
        while self.peek() in ("WITH", "TIME", "ZONE", "PRECISION"):
            word += " " + self.next()
        return word

    def fields(self) -> list[pa.Field]:
        self.expect("(")
        fields: list[pa.Field] = []
        while True:
            name = self.next()
            name = name[1:-1].replace('""', '"') if name.startswith('"') else name
            fields.append(pa.field(name, self.type()))
            if self.peek() != ",":
                break
            self.next()
        self.expect(")")
        return fields

    def skip_brackets(self) -> None:
        self.expect("(")
        depth = 1
        while depth and self.peek():
            depth += {"(": 1, ")": -1}.get(self.next(), 0)


# ---------------------------------------------------------------------------------------------------------------
# Batches


def conform(batches: Iterable[pa.RecordBatch], schema: pa.Schema, max_bytes: int = MAX_BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Batches of exactly `schema`, none larger than `max_bytes` unless a single row is.

    Slices share their buffers with the engine's batch; no row is copied.
    """
    for batch in batches:
        if batch.num_rows:
            yield from split(to_schema(batch, schema), max_bytes)


def to_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema, check_metadata=True):
        for i, field in enumerate(schema):
            _check_decimal(batch.column(i), field.type, field.name)
        return batch
    if batch.num_columns != len(schema):
        raise InternalError(f"the engine sent {batch.num_columns} columns where {len(schema)} were announced")
    arrays = [to_type(batch.column(i), field.type, field.name) for i, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def to_type(array: pa.Array, type_: pa.DataType, where: str) -> pa.Array:
    """An array of the engine in the announced type."""
    if array.type == type_:
        _check_decimal(array, type_, where)
        return array
    try:
        return _to_type(array, type_, where)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as e:
        raise InternalError(
            f'column "{where}" was announced as {type_} and came as {array.type}: {str(e).splitlines()[0]}'
        ) from None


def _to_type(array: pa.Array, type_: pa.DataType, where: str) -> pa.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_)
    if pa.types.is_map(type_):
        return _map(array, type_, where)
    if _is_list(type_):
        return _list(array, type_, where)
    if pa.types.is_struct(type_):
        return _struct(array, type_, where)
    return array if array.type == type_ else array.cast(type_)


def _validity(array: pa.Array) -> pa.Buffer | None:
    return array.buffers()[0] if array.null_count else None


def _list(array: pa.Array, type_: pa.DataType, where: str) -> pa.Array:
    if pa.types.is_fixed_size_list(type_):
        child = to_type(array.values, type_.value_type, where)
        return pa.Array.from_buffers(type_, len(array), [_validity(array)], array.null_count, array.offset, children=[child])
    child = to_type(array.values, type_.value_type, where)
    buffers = [_validity(array), array.buffers()[1]]
    return pa.Array.from_buffers(type_, len(array), buffers, array.null_count, array.offset, children=[child])


def _map(array: pa.Array, type_: pa.DataType, where: str) -> pa.Array:
    keys, items = to_type(array.keys, type_.key_type, where), to_type(array.items, type_.item_type, where)
    entries = pa.StructArray.from_arrays([keys, items], fields=[type_.key_field, type_.item_field])
    buffers = [_validity(array), array.buffers()[1]]
    return pa.Array.from_buffers(type_, len(array), buffers, array.null_count, array.offset, children=[entries])


def _struct(array: pa.Array, type_: pa.DataType, where: str) -> pa.Array:
    children = [to_type(array.field(i), f.type, where) for i, f in enumerate(type_)]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(children, fields=list(type_), mask=mask)


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


_LARGEST = 10**38 - 1


def _check_decimal(array: pa.Array, type_: pa.DataType, where: str) -> None:
    """The engine's 128-bit integers have room for values that DECIMAL(38) has not."""
    if type_ != pa.decimal128(38, 0) or not len(array):
        return
    high = np.frombuffer(array.buffers()[1], np.int64)[1::2][array.offset : array.offset + len(array)]
    limit = _LARGEST >> 64
    suspect = (high > limit - 1) | (high < -limit)
    if array.null_count:
        suspect &= array.is_valid().to_numpy(zero_copy_only=False)
    if not suspect.any():
        return
    if any(v is not None and abs(int(v)) > _LARGEST for v in array.filter(pa.array(suspect)).to_pylist()):
        raise ValueOutOfRange(f'column "{where}" has a value of more than 38 digits; cast it to VARCHAR or DOUBLE')


def split(batch: pa.RecordBatch, max_bytes: int = MAX_BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Slices of a batch, each encoded in `max_bytes` at most; halves until it fits, for rows differ in size."""
    pending: list[pa.RecordBatch] = [batch]
    while pending:
        part = pending.pop()
        size = encoded_bytes(part)
        if size <= max_bytes or part.num_rows <= 1:
            yield part
            continue
        pieces = min(part.num_rows, -(-size // max_bytes) + (1 if part.num_rows > 64 else 0))
        rows = -(-part.num_rows // pieces)
        slices = [part.slice(at, rows) for at in range(0, part.num_rows, rows)]
        pending.extend(reversed(slices))


def encoded_bytes(batch: pa.RecordBatch) -> int:
    """The size of a batch on the wire: of the rows of a slice, not of the buffers behind it."""
    return int(batch.nbytes) + 64 * batch.num_columns * 4
