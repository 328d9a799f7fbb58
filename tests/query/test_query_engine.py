"""The embedded engine: locked, cancellable, and silent about what is behind it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from query_house import House, make_engine, make_table

from flightkalam.errors import (
    Cancelled,
    DataCorrupted,
    InternalError,
    InvalidValue,
    KalamError,
    OutOfMemory,
    SqlSyntaxError,
    UndefinedObject,
    Unsupported,
    ValueOutOfRange,
)
from flightkalam.query.compute import Caller, CancelToken, Setting
from flightkalam.query.duckdb_engine import DuckDBEngine, ulid_array
from flightkalam.query.engine_errors import Failure, clean, translate

LONG = "SELECT sum(hash(a.x) % 7 + hash(b.x) % 5) FROM range(1000000) a(x), range(100000) b(x)"


def engine_table(house: House, text: str) -> pa.Table:
    return house.engine.table(text, {}, Setting())


# ---------------------------------------------------------------------------------------------------------------
# The second wall: what holds even if the guard were wrong


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '/tmp/flightkalam-test-out'",
        "ATTACH '/tmp/flightkalam-test.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1TB'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET lock_configuration = false",
        "RESET lock_configuration",
        "SET GLOBAL threads = 64",
        "SELECT * FROM python_object",
    ],
)
def test_the_engine_reaches_nothing_by_itself(house: House, text: str) -> None:
    python_object = pa.table({"a": [1]})
    assert python_object.num_rows == 1
    with pytest.raises(KalamError) as caught:
        engine_table(house, text)
    assert not isinstance(caught.value, InternalError)


def test_only_the_data_directory_is_readable(tmp_path: Path) -> None:
    root, other = tmp_path / "data", tmp_path / "data-other"
    for folder in (root, other):
        folder.mkdir()
        (folder / "a.txt").write_text("x")
    engine = make_engine(root)
    try:
        assert engine.table(f"SELECT content FROM read_text('{root}/a.txt')", {}, Setting()).num_rows == 1
        for path in (f"{other}/a.txt", f"{root}/../data-other/a.txt"):
            with pytest.raises((Unsupported, DataCorrupted)):
                engine.table(f"SELECT content FROM read_text('{path}')", {}, Setting())
    finally:
        engine.close()


def test_inputs_live_as_long_as_their_statement(house: House) -> None:
    inputs = {"__kalam_x": pa.table({"a": [1, 2]})}
    assert house.engine.table("SELECT sum(a) AS s FROM __kalam_x", inputs, Setting()).to_pylist() == [{"s": 3}]
    with pytest.raises(UndefinedObject):
        house.engine.table("SELECT * FROM __kalam_x", {}, Setting())


def test_a_reader_is_an_input_too(house: House) -> None:
    table = pa.table({"a": range(10)})
    result = house.engine.table("SELECT count(*) AS n FROM __kalam_r", {"__kalam_r": table.to_reader()}, Setting())
    assert result.to_pylist() == [{"n": 10}]


def test_what_holds_for_one_statement_does_not_stay(house: House) -> None:
    house.engine.table("SELECT 1", {}, Setting("Asia/Tokyo", Caller("ann", "user", "root")))
    row = house.engine.table("SELECT current_user AS u, current_setting('TimeZone') AS z", {}, Setting()).to_pylist()
    assert row == [{"u": None, "z": "Etc/UTC"}]


def test_an_unknown_time_zone_is_an_error_of_the_client(house: House) -> None:
    with pytest.raises(InvalidValue):
        house.engine.table("SELECT 1", {}, Setting("Mars/Olympus"))


# ---------------------------------------------------------------------------------------------------------------
# Streams


def test_two_streams_at_once(house: House) -> None:
    streams = [
        house.engine.stream(
            f"SELECT x + {i} AS x FROM range(100000) t(x)", {}, Setting(), batch_rows=2048, cancel=CancelToken()
        )
        for i in (0, 1)
    ]
    first, second = (iter(s) for s in streams)
    for _ in range(3):
        a, b = next(first), next(second)
        assert b.column(0)[0].as_py() - a.column(0)[0].as_py() == 1
    for s in streams:
        s.close()


def test_a_running_statement_stops_when_cancelled(house: House) -> None:
    """T-52."""
    cancel = CancelToken()
    timer = threading.Timer(0.2, cancel.cancel, ["stopped by a test"])
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled, match="stopped by a test"):
        house.engine.table(LONG, {}, Setting(), cancel=cancel)
    assert time.monotonic() - began < 5
    assert engine_table(house, "SELECT 1 AS a").num_rows == 1


def test_a_stream_stops_between_batches(house: House) -> None:
    cancel = CancelToken()
    stream = house.engine.stream("SELECT * FROM range(100000000)", {}, Setting(), batch_rows=2048, cancel=cancel)
    batches = iter(stream)
    next(batches)
    cancel.cancel()
    with pytest.raises(Cancelled):
        for _ in batches:
            pass


def test_a_cancelled_statement_does_not_begin(house: House) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        house.engine.table("SELECT 1", {}, Setting(), cancel=cancel)


def test_a_closed_stream_gives_back_its_inputs(house: House) -> None:
    """T-52: nothing of ours hangs on a stream that was left early."""
    import gc
    import weakref

    reader = pa.table({"a": range(1_000_000)}).to_reader(max_chunksize=1000)
    gone = weakref.ref(reader)
    cancel = CancelToken()
    stream = house.engine.stream("SELECT * FROM __kalam_r", {"__kalam_r": reader}, Setting(), batch_rows=1000, cancel=cancel)
    next(iter(stream))
    stream.close()
    stream.close()
    del stream, reader
    gc.collect()
    assert gone() is None
    cancel.cancel()


def test_an_error_in_the_middle_of_a_stream_keeps_its_kind(house: House) -> None:
    stream = house.engine.stream(
        "SELECT CASE WHEN x < 100000 THEN x ELSE CAST('x' || x AS BIGINT) END AS y FROM range(200000) t(x)",
        {},
        Setting(),
        batch_rows=2048,
        cancel=CancelToken(),
    )
    with pytest.raises(InvalidValue) as caught:
        for _ in stream:
            pass
    assert caught.value.sqlstate == "22P02"


def test_memory_is_limited(tmp_path: Path) -> None:
    engine = DuckDBEngine(ids=lambda n: np.arange(n), memory_limit="64MB", threads=1)
    try:
        with pytest.raises(OutOfMemory):
            engine.table("SELECT list(x ORDER BY x DESC) AS l FROM range(20000000) t(x)", {}, Setting())
    finally:
        engine.close()


def test_large_sorts_go_to_the_temporary_directory(tmp_path: Path) -> None:
    engine = DuckDBEngine(ids=lambda n: np.arange(n), memory_limit="100MB", threads=1, temp_directory=tmp_path / "spill")
    try:
        text = "SELECT count(*) AS n FROM (SELECT x, hash(x)::VARCHAR AS h FROM range(3000000) t(x) ORDER BY h LIMIT 2999999)"
        assert engine.table(text, {}, Setting()).to_pylist() == [{"n": 2_999_999}]
    finally:
        engine.close()


# ---------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("text", "kind", "state"),
    [
        ("SELECT 'a'::INT", InvalidValue, "22P02"),
        ("SELECT 300::TINYINT", ValueOutOfRange, "22003"),
        ("SELECT 9223372036854775807 + 1", ValueOutOfRange, "22003"),
        ("SELECT nope", UndefinedObject, "42703"),
        ("SELECT nope FROM (SELECT 1 AS a)", UndefinedObject, "42703"),
        ("SELECT nofunc(1)", UndefinedObject, "42883"),
        ("SELECT nope.f(1)", UndefinedObject, "42883"),
        ("SELECT abs('a', 'b')", InvalidValue, "42804"),
        ("SELECT * FROM nope", UndefinedObject, "42P01"),
        ("SELECT 1::nosuchtype", UndefinedObject, "42704"),
        ("SELECT a FROM (SELECT 1 AS a) x, (SELECT 2 AS a) y", UndefinedObject, "42702"),
        ("SELECT (SELECT unnest([1, 2]))", InvalidValue, "21000"),
        ("SELECT 1 WHERE", SqlSyntaxError, "42601"),
        ("SELECT error('mine')", InvalidValue, "22023"),
        ("SELECT a, count(*) FROM (SELECT 1 AS a)", InvalidValue, "42000"),
        ("SELECT * FROM read_parquet(['/nonexistent/main/t~1/batch-7.parquet'])", KalamError, None),
    ],
)
def test_errors_have_a_state_and_no_inside(house: House, text: str, kind: type[KalamError], state: str | None) -> None:
    with pytest.raises(kind) as caught:
        engine_table(house, text)
    assert state is None or caught.value.sqlstate == state
    message = str(caught.value)
    for hidden in ("LINE 1", "^", "Did you mean", "Candidate", "/nonexistent", "__kalam", "\n", "Error:"):
        assert hidden not in message


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('IO Error: Cannot open file "/var/lib/x/main/t~1/batch-3.parquet": gone', 'Cannot open file "batch-3.parquet": gone'),
        ("Invalid Input Error: Invalid Input Error: bad\n\nLINE 1: SELECT", "bad"),
        ('Binder Error: column "a" not found\nCandidate bindings: "__kalam_t0.b"', 'column "a" not found'),
        (
            'Catalog Error: Table with name __kalam_t0 does not exist!\nDid you mean "pg_class"?',
            "Table with name (internal) does not exist!",
        ),
        ("Binder Error: x in /opt/data/secret/file", "x in (file)"),
    ],
)
def test_messages_are_cleaned(raw: str, text: str) -> None:
    assert clean(raw) == text


def test_an_unknown_failure_is_ours() -> None:
    assert isinstance(translate(Failure("SomethingNewException", "Something New Error: x")), InternalError)
    assert isinstance(translate(Failure("OSError", "Interrupted!")), Cancelled)
    assert isinstance(translate(Failure("OSError", "Out of Memory Error: x")), OutOfMemory)


# ---------------------------------------------------------------------------------------------------------------
# Ids


def test_ulids_keep_the_order_and_the_time_of_their_ids() -> None:
    ids = (np.arange(5000, dtype=np.int64) << 22) + 77
    texts = ulid_array(ids).to_pylist()
    assert len(set(texts)) == 5000
    assert sorted(texts) == texts
    assert all(len(t) == 26 and t[0] <= "7" and not set(t) & set("ILOU") for t in texts)
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    milliseconds = [sum(digits.index(c) << (5 * (9 - i)) for i, c in enumerate(t[:10])) for t in texts]
    assert milliseconds == [1_704_067_200_000 + i for i in range(5000)]


def test_prepared_plans_are_not_shared_between_callers(house: House) -> None:
    house.add(make_table("t", {"k": "BIGINT", "owner": "TEXT"}), hot=[{"k": 1, "owner": "ann"}, {"k": 2, "owner": "bob"}])
    for user, k in (("ann", 1), ("bob", 2), ("ann", 1)):
        rows = house.rows("SELECT k FROM t WHERE owner = current_user", setting=Setting(caller=Caller(user, "user", user)))
        assert rows == [(k,)]
