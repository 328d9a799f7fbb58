"""Tables, rows and queries through ADBC: python examples/adbc_basic.py [URI USER PASSWORD]"""

from __future__ import annotations

import sys

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa


def main(uri: str = "grpc://127.0.0.1:31337", user: str = "root", password: str = "secret-password") -> None:
    with (
        adbc.connect(uri, db_kwargs={"username": user, "password": password}, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("DROP TABLE IF EXISTS readings")
        cursor.execute("""
            CREATE TABLE readings (
                station TEXT, taken TIMESTAMPTZ, celsius DOUBLE,
                PRIMARY KEY (station, taken)
            )""")

        # A few rows by SQL, with parameters.
        cursor.executemany(
            "INSERT INTO readings VALUES (?, ?::TIMESTAMPTZ, ?)",
            [("harbour", "2026-01-01 00:00:00+00", 4.5), ("harbour", "2026-01-01 01:00:00+00", 4.1)],
        )

        # Many rows at once, as Arrow: one statement, all of them or none.
        hours = pa.array([1_767_225_600 + 3600 * i for i in range(1000)], pa.int64()).cast(pa.timestamp("s", "UTC"))
        hill = pa.table({"station": ["hill"] * 1000, "taken": hours, "celsius": [float(i % 24) for i in range(1000)]})
        print(cursor.adbc_ingest("readings", hill, mode="append"), "rows ingested")

        cursor.execute("SELECT station, count(*), avg(celsius) FROM readings GROUP BY station ORDER BY station")
        print(cursor.fetchall())

        # Results are Arrow, too: no row of them becomes a Python object unless you ask.
        cursor.execute("SELECT * FROM readings WHERE station = ? ORDER BY taken", ("hill",))
        print(cursor.fetch_arrow_table().schema)

        cursor.execute("DROP TABLE readings")


if __name__ == "__main__":
    main(*sys.argv[1:])
