"""The fixed results: their schemas are compared by clients field by field, nullability included."""

from __future__ import annotations

import pyarrow as pa
import pytest
from flight_wire import bearer, descriptor, info, pb, rows

from flightkalam import errors
from flightkalam.flight import metadata, sql_info

UTF8, INT32, BOOL = "string", "int32", "bool"

# Written out once more, from the protocol and not from the code: (name, type, nullable).
FOREIGN = [
    ("pk_catalog_name", UTF8, True),
    ("pk_db_schema_name", UTF8, True),
    ("pk_table_name", UTF8, False),
    ("pk_column_name", UTF8, False),
    ("fk_catalog_name", UTF8, True),
    ("fk_db_schema_name", UTF8, True),
    ("fk_table_name", UTF8, False),
    ("fk_column_name", UTF8, False),
    ("key_sequence", INT32, False),
    ("fk_key_name", UTF8, True),
    ("pk_key_name", UTF8, True),
    ("update_rule", "uint8", False),
    ("delete_rule", "uint8", False),
]
SCHEMAS = {
    "CommandGetCatalogs": [("catalog_name", UTF8, False)],
    "CommandGetDbSchemas": [("catalog_name", UTF8, True), ("db_schema_name", UTF8, False)],
    "CommandGetTables": [
        ("catalog_name", UTF8, True),
        ("db_schema_name", UTF8, True),
        ("table_name", UTF8, False),
        ("table_type", UTF8, False),
    ],
    "CommandGetTableTypes": [("table_type", UTF8, False)],
    "CommandGetPrimaryKeys": [
        ("catalog_name", UTF8, True),
        ("db_schema_name", UTF8, True),
        ("table_name", UTF8, False),
        ("column_name", UTF8, False),
        ("key_sequence", INT32, False),
        ("key_name", UTF8, True),
    ],
    "CommandGetExportedKeys": FOREIGN,
    "CommandGetImportedKeys": FOREIGN,
    "CommandGetCrossReference": FOREIGN,
    "CommandGetXdbcTypeInfo": [
        ("type_name", UTF8, False),
        ("data_type", INT32, False),
        ("column_size", INT32, True),
        ("literal_prefix", UTF8, True),
        ("literal_suffix", UTF8, True),
        ("create_params", "list<item: string not null>", True),
        ("nullable", INT32, False),
        ("case_sensitive", BOOL, False),
        ("searchable", INT32, False),
        ("unsigned_attribute", BOOL, True),
        ("fixed_prec_scale", BOOL, False),
        ("auto_increment", BOOL, True),
        ("local_type_name", UTF8, True),
        ("minimum_scale", INT32, True),
        ("maximum_scale", INT32, True),
        ("sql_data_type", INT32, False),
        ("datetime_subcode", INT32, True),
        ("num_prec_radix", INT32, True),
        ("interval_precision", INT32, True),
    ],
    "CommandGetSqlInfo": [
        ("info_name", "uint32", False),
        (
            "value",
            "dense_union<string_value: string=0, bool_value: bool=1, bigint_value: int64=2, int32_bitmask: int32=3, "
            "string_list: list<item: string>=4, int32_to_int32_list_map: map<int32, list<item: int32>>=5>",
            False,
        ),
    ],
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_exactly_the_protocols_by_all_three_ways(client, name):
    message = getattr(pb, name)()
    promised = info(client, message)
    seen = (
        promised.schema,
        client.get_schema(descriptor(message), bearer()).schema,
        client.do_get(promised.endpoints[0].ticket, bearer()).read_all().schema,
    )
    for schema in seen:
        assert [(f.name, str(f.type), f.nullable) for f in schema] == SCHEMAS[name]


class TestListings:
    def test_catalogs(self, client):
        assert rows(client, pb.CommandGetCatalogs()).to_pydict() == {"catalog_name": ["flightkalam"]}

    def test_schemas_are_sorted_and_their_filters_passed_on(self, client, service):
        table = rows(client, pb.CommandGetDbSchemas(catalog="", db_schema_filter_pattern="m%"))
        assert table["db_schema_name"].to_pylist() == ["main", "zoo"]
        assert ("schemas", "", "m%") in service.calls

    def test_an_unset_filter_is_not_an_empty_one(self, client, service):
        rows(client, pb.CommandGetDbSchemas())
        assert ("schemas", None, None) in service.calls

    def test_tables_are_sorted_and_their_filters_passed_on(self, client, service):
        message = pb.CommandGetTables(
            catalog="c", db_schema_filter_pattern="s%", table_name_filter_pattern="%", table_types=["TABLE", "VIEW"]
        )
        assert rows(client, message)["table_name"].to_pylist() == ["t", "u"]
        assert ("tables", "c", "s%", "%", ("TABLE", "VIEW"), False) in service.calls

    def test_a_tables_schema_is_one_message_with_the_columns_metadata(self, client):
        table = rows(client, pb.CommandGetTables(include_schema=True))
        assert str(table.schema.field("table_schema")) == "pyarrow.Field<table_schema: binary not null>"
        schema = pa.ipc.read_schema(pa.py_buffer(table["table_schema"][0].as_py()))
        assert schema.names == ["id", "doc", "p"]
        prefix = b"ARROW:FLIGHT:SQL:"
        told = {k.removeprefix(prefix): v for k, v in schema.field("p").metadata.items() if k.startswith(prefix)}
        assert told == {
            b"CATALOG_NAME": b"flightkalam",
            b"SCHEMA_NAME": b"main",
            b"DB_SCHEMA_NAME": b"main",
            b"TABLE_NAME": b"t",
            b"TYPE_NAME": b"DECIMAL",
            b"PRECISION": b"9",
            b"SCALE": b"2",
            b"IS_AUTO_INCREMENT": b"0",
            b"IS_CASE_SENSITIVE": b"0",
            b"IS_READ_ONLY": b"0",
            b"IS_SEARCHABLE": b"1",
        }
        # What a column says of itself stands.
        assert schema.field("doc").metadata[prefix + b"TYPE_NAME"] == b"JSON"

    def test_a_primary_key_keeps_its_order(self, client):
        table = rows(client, pb.CommandGetPrimaryKeys(db_schema="main", table="t"))
        assert table["column_name"].to_pylist() == ["b", "a"]
        assert table["key_sequence"].to_pylist() == [1, 2]

    def test_a_missing_table_has_no_key(self, client):
        assert rows(client, pb.CommandGetPrimaryKeys(table="missing")).num_rows == 0

    def test_there_are_no_foreign_keys(self, client):
        for message in (
            pb.CommandGetExportedKeys(table="t"),
            pb.CommandGetImportedKeys(table="t"),
            pb.CommandGetCrossReference(pk_table="t", fk_table="u"),
        ):
            assert rows(client, message).num_rows == 0

    def test_many_rows_leave_in_pieces_that_every_client_accepts(self):
        batch = pa.record_batch({"x": ["y" * 1000] * 10_000})
        pieces = list(metadata.in_pieces(batch))
        assert max(piece.nbytes for piece in pieces) <= 2 * metadata.MAX_BATCH_BYTES
        assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([batch]))
        # A small answer is one piece: some clients read only the first.
        assert len(list(metadata.in_pieces(batch.slice(0, 100)))) == 1


class TestXdbcTypes:
    def test_sorted_by_code_then_name(self, client):
        table = rows(client, pb.CommandGetXdbcTypeInfo())
        keys = list(zip(table["data_type"].to_pylist(), table["type_name"].to_pylist(), strict=True))
        assert keys == sorted(keys)
        assert {"BOOLEAN", "BIGINT", "TEXT", "DECIMAL", "TIMESTAMPTZ", "UUID", "JSON", "BLOB"} <= {k[1] for k in keys}

    def test_one_code(self, client):
        table = rows(client, pb.CommandGetXdbcTypeInfo(data_type=93))
        assert table["type_name"].to_pylist() == ["TIMESTAMP", "TIMESTAMPTZ"]
        assert table["datetime_subcode"].to_pylist() == [3, 5]
        assert rows(client, pb.CommandGetXdbcTypeInfo(data_type=77)).num_rows == 0

    def test_a_code_of_zero_is_not_no_code(self, client):
        assert rows(client, pb.CommandGetXdbcTypeInfo(data_type=0))["type_name"].to_pylist() == ["EMBEDDING"]


class TestSqlInfo:
    PUBLISHED = [*range(12), 100, 101, *range(500, 577)]

    def told(self, client, *codes):
        table = rows(client, pb.CommandGetSqlInfo(info=codes))
        return dict(zip(table["info_name"].to_pylist(), table["value"].to_pylist(), strict=True))

    def test_asking_for_nothing_asks_for_all(self, client):
        assert list(self.told(client)) == self.PUBLISHED

    def test_single_codes_each_once_and_unknown_ones_left_out(self, client):
        assert self.told(client, 504, 0, 504, 99_999) == {0: "FlightKalam", 504: '"'}

    def test_each_code_uses_the_union_member_that_its_readers_expect(self, client):
        column = rows(client, pb.CommandGetSqlInfo())["value"].combine_chunks()
        member = dict(zip(self.PUBLISHED, column.type_codes.to_pylist(), strict=True))
        strings = {0, 1, 2, 6, 7, 504, 513, 514, 529, 530, 531}
        bools = {3, 4, 5, 9, 10, 11, 500, 501, 502, 506, 515, 516, 518, 519, 520, 521, 523, 524, 527, 532, 536, 537}
        bools |= {539, 556, 563, 565, 566, 572, 573, 574, 575, 576}
        bigints = {*range(541, 556), *range(557, 563)}  # 562 too: JDBC casts it to a long
        lists = {508, 509, 510, 511, 512}
        assert {code for code, m in member.items() if m == 0} == strings
        assert {code for code, m in member.items() if m == 1} == bools
        assert {code for code, m in member.items() if m == 2} == bigints
        assert {code for code, m in member.items() if m == 4} == lists
        assert {code for code, m in member.items() if m == 5} == {517}
        assert {code for code, m in member.items() if m == 3} == {
            *(8, 100, 101, 503, 505, 507, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564, 567, 568, 569, 570, 571)
        }

    def test_what_the_service_says_goes_first_and_transactions_bring_their_consequences(self, client, service):
        service.info = {8: 1, 0: "Other"}
        assert self.told(client, 0, 8, 562, 563, 564) == {0: "Other", 8: 1, 562: 3, 563: True, 564: 8}
        service.info = {}
        assert self.told(client, 8, 562, 563, 564) == {8: 0, 562: 0, 563: False, 564: 0}

    def test_a_value_of_the_wrong_type_is_a_bug_that_is_named(self):
        for wrong in ({8: True}, {3: 1}, {0: 5}, {77: 1}):
            with pytest.raises(errors.InternalError, match="SqlInfo"):
                sql_info.batch([], wrong)
