"""The fixed results of Flight SQL: their exact schemas (nullability included: clients compare) and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import Any

import pyarrow as pa

from flightkalam.flight.ports import TableInfo
from flightkalam.flight.type_info import TYPES, described

# Several clients refuse a message above 4 MiB; half of it leaves room for the envelope.
MAX_BATCH_BYTES = 2 << 20


def _schema(*columns: tuple[str, pa.DataType] | tuple[str, pa.DataType, str]) -> pa.Schema:
    """A column is (name, type), or (name, type, "N") if it is never NULL."""
    return pa.schema([pa.field(c[0], c[1], nullable=len(c) == 2) for c in columns])


_TEXT, _INT, _BOOL = pa.utf8(), pa.int32(), pa.bool_()

CATALOGS = _schema(("catalog_name", _TEXT, "N"))
DB_SCHEMAS = _schema(("catalog_name", _TEXT), ("db_schema_name", _TEXT, "N"))
TABLES = _schema(("catalog_name", _TEXT), ("db_schema_name", _TEXT), ("table_name", _TEXT, "N"), ("table_type", _TEXT, "N"))
TABLES_WITH_SCHEMA = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
TABLE_TYPES = _schema(("table_type", _TEXT, "N"))
# key_sequence before key_name: so do the implementations, against the specification's comment.
PRIMARY_KEYS = _schema(
    ("catalog_name", _TEXT),
    ("db_schema_name", _TEXT),
    ("table_name", _TEXT, "N"),
    ("column_name", _TEXT, "N"),
    ("key_sequence", _INT, "N"),
    ("key_name", _TEXT),
)
FOREIGN_KEYS = _schema(
    ("pk_catalog_name", _TEXT),
    ("pk_db_schema_name", _TEXT),
    ("pk_table_name", _TEXT, "N"),
    ("pk_column_name", _TEXT, "N"),
    ("fk_catalog_name", _TEXT),
    ("fk_db_schema_name", _TEXT),
    ("fk_table_name", _TEXT, "N"),
    ("fk_column_name", _TEXT, "N"),
    ("key_sequence", _INT, "N"),
    ("fk_key_name", _TEXT),
    ("pk_key_name", _TEXT),
    ("update_rule", pa.uint8(), "N"),
    ("delete_rule", pa.uint8(), "N"),
)
XDBC_TYPE_INFO = _schema(
    ("type_name", _TEXT, "N"),
    ("data_type", _INT, "N"),
    ("column_size", _INT),
    ("literal_prefix", _TEXT),
    ("literal_suffix", _TEXT),
    ("create_params", pa.list_(pa.field("item", _TEXT, nullable=False))),
    ("nullable", _INT, "N"),
    ("case_sensitive", _BOOL, "N"),
    ("searchable", _INT, "N"),
    ("unsigned_attribute", _BOOL),
    ("fixed_prec_scale", _BOOL, "N"),
    ("auto_increment", _BOOL),
    ("local_type_name", _TEXT),
    ("minimum_scale", _INT),
    ("maximum_scale", _INT),
    ("sql_data_type", _INT, "N"),
    ("datetime_subcode", _INT),
    ("num_prec_radix", _INT),
    ("interval_precision", _INT),
)


def catalogs(names: Iterable[str]) -> pa.RecordBatch:
    return _batch(CATALOGS, sorted((name,) for name in names))


def db_schemas(pairs: Iterable[tuple[str, str]]) -> pa.RecordBatch:
    return _batch(DB_SCHEMAS, sorted(pairs))


def table_types(names: Iterable[str]) -> pa.RecordBatch:
    return _batch(TABLE_TYPES, sorted((name,) for name in names))


def tables(found: Iterable[TableInfo], include_schema: bool) -> pa.RecordBatch:
    ordered = sorted(found, key=lambda t: (t.catalog, t.schema, t.name, t.type))
    rows: list[tuple[Any, ...]] = [(t.catalog, t.schema, t.name, t.type) for t in ordered]
    if not include_schema:
        return _batch(TABLES, rows)
    return _batch(TABLES_WITH_SCHEMA, [(*row, _schema_bytes(t)) for row, t in zip(rows, ordered, strict=True)])


def _schema_bytes(table: TableInfo) -> bytes:
    """One encapsulated schema message: not a stream and not a file."""
    return schema_of(table).serialize().to_pybytes()


def schema_of(table: TableInfo) -> pa.Schema:
    schema = table.arrow_schema if table.arrow_schema is not None else pa.schema([])
    return described(schema, table.catalog, table.schema, table.name)


def primary_keys(catalog: str | None, schema: str | None, table: str, columns: Sequence[str]) -> pa.RecordBatch:
    rows = [(catalog, schema, table, column, i, None) for i, column in enumerate(columns, 1)]
    return _batch(PRIMARY_KEYS, rows)


def no_foreign_keys() -> pa.RecordBatch:
    return _batch(FOREIGN_KEYS, [])


def xdbc_type_info(data_type: int | None) -> pa.RecordBatch:
    return _batch(XDBC_TYPE_INFO, [astuple(t) for t in TYPES if data_type is None or t.data_type == data_type])


def _batch(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def in_pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch cut to what every client accepts; one piece where possible, since some read only the first."""
    if batch.nbytes <= MAX_BATCH_BYTES:
        yield batch
        return
    step = max(1, batch.num_rows * MAX_BATCH_BYTES // batch.nbytes)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)
