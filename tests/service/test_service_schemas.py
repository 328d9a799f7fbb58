"""A result has one schema, whoever tells it: prepare, GetFlightInfo, GetSchema and the stream itself."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from kalam_world import ROOT_PASSWORD, InProcess, World
from service_types import KINDS, ddl

from flightkalam.flight import commands
from flightkalam.flight import flight_sql_pb2 as pb

QUERIES = [
    "SELECT * FROM t",
    "SELECT * FROM t WHERE false",
    "SELECT count(*) AS n, count(*) FROM t",
    "SELECT sum(i16), sum(i32), sum(i64), sum(f32), sum(f64), sum(d9), sum(d38) FROM t",
    "SELECT avg(i32), min(text), max(tstz), first(uuid), any_value(blob) FROM t",
    "SELECT i64 + 1, i64 * i64, -i16, i16 + i16, i32 / 2, i32 // 2, i32 % 2, d9 * d9, f32 + f32 FROM t",
    "SELECT NULL",
    "SELECT NULL AS n, [] AS l, [NULL] AS m",
    "SELECT 1 AS a, 1.5 AS b, 1e3 AS c, 'x' AS d, true AS e, 10000000000 AS f, 12345678901234567890123456789012345678 AS g",
    "SELECT DATE '2020-01-01' AS d, TIME '10:00' AS t, TIMESTAMP '2020-01-01' AS ts, TIMESTAMPTZ '2020-01-01' AS tz, INTERVAL 1 DAY AS i",
    "SELECT '550e8400-e29b-41d4-a716-446655440000'::UUID AS u, '{\"a\": 1}'::JSON AS j, 'x'::BLOB AS b",
    "SELECT 1::TINYINT AS a, 1::UTINYINT AS b, 1::USMALLINT AS c, 1::UINTEGER AS d, 1::UBIGINT AS e, 1::HUGEINT AS f",
    "SELECT [1, 2] AS l, [[1]] AS ll, {'a': 1, 'b': {'c': [true]}} AS s, [1.0, 2.0]::FLOAT[2] AS e",
    "SELECT map {'k': 1} AS m, [uuid] AS lu, {'u': uuid, 'z': tstz} AS s FROM t",
    "SELECT 'a'::ENUM('a', 'b') AS e",
    "SELECT json -> 'a' AS a, json ->> 'a' AS b, to_json(i32) AS c, json_object('x', 1) AS d FROM t",
    "SELECT to_json(st) AS j, row_to_json(st) AS r FROM t",
    "SELECT iv, iv + INTERVAL 1 DAY, tstz - tstz, ts - INTERVAL 1 HOUR, date + 1 FROM t",
    "SELECT now() AS a, current_date AS b, current_timestamp AS c, today() AS d, localtimestamp AS e",
    "SELECT current_user, current_role, current_schema(), current_database(), version(), current_actor()",
    "SELECT snowflake_id(), uuid_v7(), ulid(), uuid(), random()",
    "SELECT _seq, _deleted FROM t",
    "SELECT t._seq > 0 AS fresh, * FROM t",
    "SELECT a.id, b.id FROM t a LEFT JOIN t b ON a.id = b.id + 1",
    "SELECT id AS x, id AS x, id AS X FROM t",
    'SELECT 1 AS "weird "" name", 3 AS "🦆"',
    "SELECT id FROM t UNION ALL SELECT 1.5",
    "SELECT id FROM t UNION SELECT NULL",
    "SELECT CASE WHEN true THEN 1 ELSE 2.5 END, coalesce(NULL, 1), nullif(1, 1), greatest(1, 2.5)",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    "SELECT row_number() OVER (ORDER BY id), rank() OVER (ORDER BY id), ntile(2) OVER (ORDER BY id), lag(text) OVER (ORDER BY id) FROM t",
    "SELECT list(id), array_agg(text), string_agg(text, ','), histogram(i16), list(st) FROM t",
    "SELECT count(DISTINCT id), approx_count_distinct(id), median(i32), mode(text), stddev(f64), bool_or(bool), bit_and(i32) FROM t",
    "SELECT * FROM range(3)",
    "SELECT unnest([1, 2, 3]) AS u",
    "SELECT unnest({'a': 1, 'b': 'x'})",
    "SELECT * FROM v",
    "SELECT * FROM v, t WHERE v.k = t.id",
    "SELECT * FROM empty",
    "SELECT * EXCLUDE (id), COLUMNS('i..') FROM t",
    "VALUES (1, 'x'), (2, NULL)",
    "FROM t",
    "TABLE t",
    "SELECT (SELECT max(id) FROM t) AS m, EXISTS (SELECT 1 FROM t) AS e",
    "SELECT CAST(id AS TEXT), id::DOUBLE, TRY_CAST('x' AS INT), text::BLOB FROM t WHERE id < 0",
    "SELECT emb, emb[1], list_sum(emb), array_cosine_similarity(emb, emb) FROM t",
    "SELECT st.a, st.c.d, ls[1].k, li[1:2] FROM t",
    "SELECT extract(year FROM tstz), date_part('epoch', ts), date_trunc('day', ts), strftime(date, '%Y') FROM t",
    "PIVOT (SELECT id, i32 FROM t) ON id IN (1, 2) USING sum(i32)",
    "SELECT i32, count(*) FROM t GROUP BY ROLLUP (i32) ORDER BY ALL LIMIT 3",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.schemata",
    "SELECT * FROM system.tables",
    "SELECT * FROM system.columns",
    "SELECT * FROM system.jobs",
    "SHOW TABLES",
    "SHOW NAMESPACES",
    "SHOW JOBS",
    "SHOW timezone",
    "SHOW CREATE TABLE t",
    "SHOW COLUMNS FROM t",
    "DESCRIBE t",
    "DESCRIBE v",
    "DESCRIBE SELECT * FROM t",
    "EXPLAIN SELECT * FROM t",
    "EXPLAIN ANALYZE SELECT * FROM t",
    "EXPLAIN (FORMAT JSON) SELECT * FROM t",
    "CHECK TABLE t",
    "FLUSH TABLE t WAIT",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("schemas"))
    root = made.in_process()
    root.run(ddl("t"))
    root.run(ddl("empty"))
    root.run("CREATE VIEW v (k, twice) AS SELECT id, i64 * 2 FROM t")
    root.run("INSERT INTO t (id, i32, text, li) VALUES (1, 1, 'a', [1]), (2, NULL, NULL, NULL)")
    made.flush()
    root.run("INSERT INTO t (id, i32, text) VALUES (3, 3, 'c')")
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[flight.FlightClient]:
    with flight.connect(world.uri) as connected:
        yield connected


@pytest.fixture(scope="module")
def options(client: flight.FlightClient) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[client.authenticate_basic_token("root", ROOT_PASSWORD)])


@pytest.mark.parametrize("sql", QUERIES, ids=lambda q: q[:60])
def test_everybody_tells_the_same_schema(client, options, sql):
    described = flight.FlightDescriptor.for_command(commands.pack(pb.CommandStatementQuery(query=sql)))
    info = client.get_flight_info(described, options)
    told = client.get_schema(described, options).schema
    action = flight.Action("CreatePreparedStatement", commands.pack(pb.ActionCreatePreparedStatementRequest(query=sql)))
    answer = pb.Any.FromString(next(iter(client.do_action(action, options))).body.to_pybytes())
    prepared = pb.ActionCreatePreparedStatementResult.FromString(answer.value)
    dataset = pa.ipc.read_schema(pa.py_buffer(prepared.dataset_schema))
    handle = commands.pack(pb.CommandPreparedStatementQuery(prepared_statement_handle=prepared.prepared_statement_handle))
    again = client.get_flight_info(flight.FlightDescriptor.for_command(handle), options)
    streams = [client.do_get(i.endpoints[0].ticket, options).read_all() for i in (info, again)]
    for schema in (told, dataset, again.schema, *(s.schema for s in streams)):
        assert schema.equals(info.schema, check_metadata=True)
    for stream in streams:
        stream.validate(full=True)


def test_in_process_too(world):
    client: InProcess = world.in_process()
    for sql in QUERIES:
        assert client.run(sql).rows is not None  # compares prepared, planned and streamed


def test_parameters_take_the_type_of_what_stands_beside_them(client, options, world):
    sql = "SELECT id, ? AS given FROM t WHERE text = ?"
    with world.adbc().connection.cursor() as cursor:
        cursor.execute(sql, (1.5, "a"))
        table = cursor.fetch_arrow_table()
        assert table.to_pylist() == [{"id": 1, "given": 1.5}] and table.schema.field("given").type == pa.float64()


def test_the_arrow_type_of_each_column_type(world):
    rows = world.in_process().run("SELECT * FROM t").rows
    assert rows is not None
    for kind in KINDS:
        assert rows.schema.field(kind.name).type == kind.arrow
