"""The column types as XDBC (the common ground of ODBC and JDBC) describes them, and the metadata that names them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

# XdbcDataType
BIT, BIGINT, VARBINARY, UNKNOWN = -7, -5, -3, 0
DECIMAL, INTEGER, SMALLINT, REAL, DOUBLE, DATETIME, INTERVAL, VARCHAR = 3, 4, 5, 7, 8, 9, 10, 12
DATE, TIME, TIMESTAMP = 91, 92, 93
# XdbcDatetimeSubcode
SUB_DATE, SUB_TIME, SUB_TIMESTAMP, SUB_TIMESTAMP_TZ = 1, 2, 3, 5

_NULLABLE = 1
_SEARCH_NONE, _SEARCH_BASIC, _SEARCH_FULL = 0, 2, 3
_METADATA = b"ARROW:FLIGHT:SQL:"


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One row of GetXdbcTypeInfo; the field names and their order are the result's columns.

    :param column_size: digits of a number, characters of a text, None if unbounded.
    """

    type_name: str
    data_type: int
    column_size: int | None = None
    literal_prefix: str | None = None
    literal_suffix: str | None = None
    create_params: tuple[str, ...] | None = None
    nullable: int = _NULLABLE
    case_sensitive: bool = False
    searchable: int = _SEARCH_BASIC
    unsigned_attribute: bool | None = None
    fixed_prec_scale: bool = False
    auto_increment: bool | None = None
    local_type_name: str | None = None
    minimum_scale: int | None = None
    maximum_scale: int | None = None
    sql_data_type: int = UNKNOWN
    datetime_subcode: int | None = None
    num_prec_radix: int | None = None
    interval_precision: int | None = None


def _number(name: str, code: int, digits: int, *, radix: int = 10, scale: int | None = 0) -> TypeRow:
    return TypeRow(
        name,
        code,
        digits,
        unsigned_attribute=False,
        auto_increment=False,
        minimum_scale=scale,
        maximum_scale=scale,
        sql_data_type=code,
        num_prec_radix=radix,
    )


def _text(name: str) -> TypeRow:
    return TypeRow(name, VARCHAR, None, "'", "'", None, _NULLABLE, True, _SEARCH_FULL, sql_data_type=VARCHAR)


def _moment(name: str, code: int, size: int, prefix: str, subcode: int, scale: int) -> TypeRow:
    return TypeRow(
        name,
        code,
        size,
        prefix,
        "'",
        minimum_scale=scale,
        maximum_scale=scale,
        sql_data_type=DATETIME,
        datetime_subcode=subcode,
    )


TYPES: tuple[TypeRow, ...] = tuple(
    sorted(
        (
            TypeRow("BOOLEAN", BIT, 1, sql_data_type=BIT),
            _number("SMALLINT", SMALLINT, 5),
            _number("INT", INTEGER, 10),
            _number("BIGINT", BIGINT, 19),
            _number("REAL", REAL, 24, radix=2, scale=None),
            _number("DOUBLE", DOUBLE, 53, radix=2, scale=None),
            TypeRow(
                "DECIMAL",
                DECIMAL,
                38,
                create_params=("precision", "scale"),
                unsigned_attribute=False,
                auto_increment=False,
                minimum_scale=0,
                maximum_scale=38,
                sql_data_type=DECIMAL,
                num_prec_radix=10,
            ),
            _text("TEXT"),
            _text("JSON"),
            TypeRow("UUID", VARCHAR, 36, "'", "'", sql_data_type=VARCHAR),
            TypeRow("BLOB", VARBINARY, None, "'", "'::BLOB", sql_data_type=VARBINARY),
            _moment("DATE", DATE, 10, "DATE '", SUB_DATE, 0),
            _moment("TIME", TIME, 15, "TIME '", SUB_TIME, 6),
            _moment("TIMESTAMP", TIMESTAMP, 26, "TIMESTAMP '", SUB_TIMESTAMP, 6),
            _moment("TIMESTAMPTZ", TIMESTAMP, 32, "TIMESTAMPTZ '", SUB_TIMESTAMP_TZ, 6),
            TypeRow("INTERVAL", INTERVAL, None, "INTERVAL '", "'", sql_data_type=INTERVAL),
            TypeRow("EMBEDDING", UNKNOWN, None, create_params=("size",), searchable=_SEARCH_NONE),
        ),
        key=lambda row: (row.data_type, row.type_name),
    )
)

_NAMES = (
    (pa.types.is_boolean, "BOOLEAN"),
    (lambda t: pa.types.is_int8(t) or pa.types.is_int16(t) or pa.types.is_uint8(t), "SMALLINT"),
    (lambda t: pa.types.is_int32(t) or pa.types.is_uint16(t), "INT"),
    (lambda t: pa.types.is_int64(t) or pa.types.is_uint32(t), "BIGINT"),
    (pa.types.is_float32, "REAL"),
    (pa.types.is_float64, "DOUBLE"),
    (pa.types.is_decimal, "DECIMAL"),
    (lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t), "TEXT"),
    (lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_binary_view(t), "BLOB"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (pa.types.is_timestamp, "TIMESTAMP"),
    (pa.types.is_interval, "INTERVAL"),
    (pa.types.is_fixed_size_list, "EMBEDDING"),
    (pa.types.is_struct, "STRUCT"),
    (lambda t: pa.types.is_list(t) or pa.types.is_large_list(t), "LIST"),
)


def type_name(type_: pa.DataType) -> str:
    """The SQL name of an Arrow type, for a column that brings none of its own."""
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return "TIMESTAMPTZ"
    return next((name for test, name in _NAMES if test(type_)), str(type_).upper())


def described(schema: pa.Schema, catalog: str, namespace: str, table: str) -> pa.Schema:
    """The schema with Flight SQL's column metadata; what a column brings along is kept."""
    place = {
        b"CATALOG_NAME": catalog,
        # The specification's comment says DB_SCHEMA_NAME, its implementations say SCHEMA_NAME.
        b"SCHEMA_NAME": namespace,
        b"DB_SCHEMA_NAME": namespace,
        b"TABLE_NAME": table,
    }
    return pa.schema([_describe(field, place) for field in schema], metadata=schema.metadata)


def _describe(field: pa.Field, place: dict[bytes, str]) -> pa.Field:
    facts = {**place, b"TYPE_NAME": type_name(field.type), b"IS_AUTO_INCREMENT": "0", b"IS_SEARCHABLE": "1"}
    if pa.types.is_decimal(field.type):
        facts |= {b"PRECISION": str(field.type.precision), b"SCALE": str(field.type.scale)}
    facts |= {b"IS_CASE_SENSITIVE": "1" if facts[b"TYPE_NAME"] == "TEXT" else "0", b"IS_READ_ONLY": "0"}
    metadata = {_METADATA + key: value.encode() for key, value in facts.items()}
    return field.with_metadata(metadata | (field.metadata or {}))
