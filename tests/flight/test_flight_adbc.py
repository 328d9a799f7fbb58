"""What an ADBC client sees of the wire."""

from __future__ import annotations

import threading

import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from flight_fakes import SECRET


class TestLogin:
    def test_a_password_gives_a_token_that_is_used_from_then_on(self, connect, service):
        connect("ann").cursor().execute("SELECT 1")
        assert {c.kind for c in service.shown} == {"bearer"}

    def test_a_wrong_password_is_refused_at_connect(self, connect):
        with pytest.raises(adbc_driver_manager.ProgrammingError, match=r"wrong name.* \[SQLSTATE 28000\]"):
            connect("ann", "wrong")

    def test_closing_the_connection_closes_the_session(self, connect, service):
        connect("bob").close()
        assert service.closed == ["sid-bob"]


class TestStatements:
    def test_a_query(self, connect):
        cursor = connect().cursor()
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]

    def test_many_batches_arrive_in_order(self, connect):
        cursor = connect().cursor()
        cursor.execute("SELECT 25000")
        table = cursor.fetch_arrow_table()
        assert table.column(0).to_pylist() == list(range(25000))
        assert not table.schema.field(0).nullable

    def test_parameters_reach_the_session_and_select_rows(self, connect):
        cursor = connect().cursor()
        cursor.execute("SELECT ?", (7,))
        assert cursor.fetchall() == [(7,)]

    def test_a_statement_that_changes_rows_runs_once_and_counts(self, connect, service):
        cursor = connect().cursor()
        cursor.execute("INSERT 3")
        assert cursor.rowcount == 3
        assert [c for c in service.calls if c[0] == "update_prepared"] == [("update_prepared", False)]
        assert not [c for c in service.calls if c[0] in ("fetch", "executed")]

    def test_executemany_sends_the_parameter_rows(self, connect, service):
        cursor = connect().cursor()
        cursor.executemany("INSERT 3 ?", [(1,), (2,), (3,), (4,)])
        assert cursor.rowcount == 4
        assert ("update_prepared", True) in service.calls

    def test_executescript_is_an_update_without_preparation(self, connect, service):
        connect().cursor().executescript("INSERT 5")
        assert ("update", "INSERT 5", None) in service.calls

    def test_the_schema_of_a_query_is_known_without_running_it(self, connect, service):
        schema = connect().cursor().adbc_execute_schema("SELECT 9")
        assert schema == pa.schema([pa.field("n", pa.int64(), nullable=False)])
        assert not [c for c in service.calls if c[0] == "fetch"]

    def test_a_closed_cursor_closes_its_prepared_statement(self, connect, service):
        with connect().cursor() as cursor:
            cursor.execute("SELECT 1")
        assert ("close_prepared", b"SELECT 1") in service.calls

    def test_partitions_are_read_on_another_connection_of_the_same_user_only(self, connect):
        partitions, schema = connect("ann").cursor().adbc_execute_partitions("SELECT 1")
        assert len(partitions) == 1 and len(schema) == 1
        other = connect("ann").cursor()
        other.adbc_read_partition(partitions[0])
        assert other.fetchall() == [(1,)]
        with pytest.raises(adbc_driver_manager.Error, match="no such ticket"):
            stolen = connect("bob").cursor()
            stolen.adbc_read_partition(partitions[0])
            stolen.fetchall()


class TestTransactions:
    def test_without_autocommit_statements_carry_the_transaction(self, connect, service):
        connection = connect(autocommit=False)
        connection.cursor().execute("INSERT 1")
        connection.commit()
        assert ("prepare", "INSERT 1", b"tx1") in service.calls
        assert ("end", b"tx1", True) in service.calls

    def test_rollback(self, connect, service):
        connection = connect(autocommit=False)
        connection.rollback()
        assert ("end", b"tx1", False) in service.calls


class TestIngest:
    DATA = pa.table({"a": list(range(5000)), "b": ["x"] * 5000})
    MODES = {
        "create": ("create", "fail"),
        "append": ("fail", "append"),
        "replace": ("create", "replace"),
        "create_append": ("create", "append"),
    }

    @pytest.mark.parametrize("mode", MODES)
    def test_each_mode_says_what_it_means_and_counts_its_rows(self, connect, service, mode):
        assert connect().cursor().adbc_ingest("t", self.DATA, mode=mode) == 5000
        request, table, _ = service.ingested[0]
        assert (request.if_not_exist, request.if_exists) == self.MODES[mode]
        assert (request.table, request.namespace, request.catalog, request.temporary) == ("t", None, None, False)
        assert table.equals(self.DATA)

    def test_names_and_temporary_are_passed_on(self, connect, service):
        cursor = connect().cursor()
        cursor.adbc_ingest("t", self.DATA, mode="create", db_schema_name="s", catalog_name="c", temporary=True)
        request = service.ingested[0][0]
        assert (request.namespace, request.catalog, request.temporary) == ("s", "c", True)

    def test_call_headers_reach_the_session(self, connect, service):
        cursor = connect().cursor()
        cursor.adbc_statement.set_options(**{"adbc.flight.sql.rpc.call_header.x-kalam-primary-key": "a,b"})
        cursor.adbc_ingest("t", self.DATA, mode="create")
        headers = service.ingested[0][2]
        assert headers["x-kalam-primary-key"] == "a,b"
        assert "authorization" not in headers


class TestMetadata:
    def test_table_types(self, connect):
        assert connect().adbc_get_table_types() == ["TABLE", "VIEW"]

    def test_objects_in_full_depth(self, connect):
        objects = connect().adbc_get_objects(depth="all").read_all().to_pylist()
        assert [o["catalog_name"] for o in objects] == ["flightkalam"]
        by_name = {s["db_schema_name"]: s for s in objects[0]["catalog_db_schemas"]}
        tables = {t["table_name"]: t for t in by_name["main"]["db_schema_tables"]}
        assert set(tables) == {"t", "u"}
        columns = {c["column_name"]: c["xdbc_type_name"] for c in tables["t"]["table_columns"]}
        assert columns == {"id": "BIGINT", "doc": "JSON", "p": "DECIMAL"}

    def test_a_tables_schema(self, connect):
        schema = connect().adbc_get_table_schema("t", db_schema_filter="main")
        assert schema.names == ["id", "doc", "p"]
        assert schema.types == [pa.int64(), pa.utf8(), pa.decimal128(9, 2)]
        assert not schema.field("id").nullable

    def test_a_missing_tables_schema_is_not_found(self, connect):
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="NOT_FOUND"):
            connect().adbc_get_table_schema("missing")

    def test_server_info(self, connect):
        info = connect().adbc_get_info()
        assert info["vendor_name"] == "FlightKalam"
        assert info["vendor_arrow_version"] == pa.__version__

    def test_session_options_by_their_conventional_names(self, connect, service):
        connection = connect()
        connection.adbc_current_db_schema = "zoo"
        assert service.options == {"schema": "zoo"}
        assert connection.adbc_current_db_schema == "zoo"


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "sqlstate", "status"),
        [
            ("SqlSyntaxError", "42601", "INVALID_ARGUMENT"),
            ("UndefinedObject", "42P01", "NOT_FOUND"),
            ("DuplicateKey", "23505", "INVALID_ARGUMENT"),
            ("Unsupported", "0A000", "NOT_IMPLEMENTED"),
            ("AccessDenied", "42501", "UNAUTHORIZED"),
            ("Unauthenticated", "28000", "UNAUTHENTICATED"),
            ("Conflict", "40001", "UNKNOWN"),
            ("Cancelled", "57014", "CANCELLED"),
            ("DiskFull", "53100", "IO"),
            ("DataCorrupted", "XX001", "INTERNAL"),
        ],
    )
    def test_each_class_has_its_status_its_sqlstate_and_its_details(self, connect, error, sqlstate, status):
        with pytest.raises(adbc_driver_manager.Error) as caught:
            connect().cursor().execute(f"FAIL {error}")
        assert caught.value.status_code.name == status
        assert f"it did not work; try something else [SQLSTATE {sqlstate}]" in str(caught.value)
        assert "Traceback" not in str(caught.value) and "Python" not in str(caught.value)
        assert any(b"flightkalam" in value and sqlstate.encode() in value for _, value in caught.value.details)

    @pytest.mark.parametrize("error", ["SqlSyntaxError", "Conflict"])
    def test_a_long_message_is_cut_and_keeps_its_sqlstate(self, connect, error):
        with pytest.raises(adbc_driver_manager.Error, match=r"é{500,600}… \[SQLSTATE 4"):
            connect().cursor().execute(f"FAIL {error} 50000")

    def test_a_bug_leaves_as_a_number_only(self, connect):
        with pytest.raises(adbc_driver_manager.Error, match=r"internal error \d+.*\[SQLSTATE XX000\]") as caught:
            connect().cursor().execute("CRASH")
        everything = str(caught.value) + str(caught.value.details)
        assert SECRET not in everything and "Traceback" not in everything and ".py" not in everything

    def test_a_bug_in_the_middle_of_a_result_too(self, connect, service):
        cursor = connect().cursor()
        cursor.execute("SELECT breaks")
        with pytest.raises(Exception, match=r"internal error \d+") as caught:
            cursor.fetchall()
        assert SECRET not in str(caught.value) and "Traceback" not in str(caught.value)
        assert service.rows[0].closed.is_set()


class TestCancellation:
    """T-52: what a client abandons is released."""

    def test_a_cancelled_query_closes_its_rows(self, connect, service):
        cursor = connect().cursor()
        cursor.execute("SELECT forever")
        cursor.fetchone()
        cursor.adbc_cancel()
        assert service.rows[0].closed.wait(5)

    def test_a_query_that_is_still_computing_is_interrupted(self, connect, service):
        cursor = connect().cursor()
        stop = threading.Timer(0.3, cursor.adbc_cancel)
        stop.start()
        with pytest.raises(Exception, match=r"(?i)cancel"):
            cursor.execute("SELECT stuck")
            cursor.fetchall()
        assert service.rows[0].interrupted.wait(5)
        assert service.rows[0].closed.wait(5)

    def test_a_closed_connection_closes_its_rows(self, connect, service):
        connection = connect()
        cursor = connection.cursor()
        cursor.execute("SELECT forever")
        reader = cursor.fetch_record_batch()
        assert pc.sum(reader.read_next_batch().column(0)).as_py() > 0
        del reader
        cursor.close()
        connection.close()
        assert service.rows[0].closed.wait(5)
