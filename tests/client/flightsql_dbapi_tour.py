"""What flightsql-dbapi 0.2.2 does, and the dialect for SQLAlchemy that comes with it.  Run as a script: URI PASSWORD."""

from __future__ import annotations

import importlib
import sys

import pyarrow as pa
import sqlalchemy as sa
from flightsql import FlightSQLClient, connect

host, port = sys.argv[1].removeprefix("grpc://").split(":")
client = FlightSQLClient(host=host, port=int(port), user="root", password=sys.argv[2], insecure=True)


def rows(info):  # type: ignore[no-untyped-def]
    return client.do_get(info.endpoints[0].ticket).read_all().to_pylist()


assert rows(client.execute("SELECT 1 AS a, 'x' AS b")) == [{"a": 1, "b": "x"}]
assert client.execute_update("INSERT INTO t VALUES (3, 'c')") == 1
assert "t" in {r["table_name"] for r in rows(client.get_tables(include_schema=False))}
assert all(len(r["table_schema"]) > 0 for r in rows(client.get_tables(include_schema=True)))
assert {"main"} <= {r["db_schema_name"] for r in rows(client.get_db_schemas())}
with client.prepare("SELECT v FROM t WHERE id = 3") as prepared:
    assert rows(prepared.execute(None)) == [{"v": "c"}]
with client.prepare("SELECT v FROM t WHERE id = ?") as prepared:
    assert rows(prepared.execute(pa.record_batch({"id": [1]}))) == [{"v": "a"}]
cursor = connect(client).cursor()
cursor.execute("SELECT * FROM t ORDER BY id")
assert [tuple(r) for r in cursor.fetchall()] == [(1, "a"), (2, "b"), (3, "c")]

importlib.import_module("flightsql.sqlalchemy")  # registers its dialect
engine = sa.create_engine(f"datafusion+flightsql://root:{sys.argv[2]}@{host}:{port}?insecure=True")
with engine.connect() as connection:
    assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar() == 3
print("done")
