"""A pandas DataFrame in, a pandas DataFrame out: python examples/pandas_example.py [URI USER PASSWORD]"""

from __future__ import annotations

import sys

import adbc_driver_flightsql.dbapi as adbc
import pandas as pd
import pyarrow as pa

# The key of a table that an ingest makes is stated in a header; without it the table gets a hidden key.
PRIMARY_KEY = "adbc.flight.sql.rpc.call_header.x-kalam-primary-key"


def main(uri: str = "grpc://127.0.0.1:31337", user: str = "root", password: str = "secret-password") -> None:
    orders = pd.DataFrame(
        {
            "id": range(1, 7),
            "customer": ["ann", "bob", "ann", "cyd", "bob", "ann"],
            "amount": [12.5, 80.0, 7.25, None, 19.9, 3.0],
            "day": pd.date_range("2026-01-01", periods=6, tz="UTC"),
        }
    )
    login = {"username": user, "password": password, PRIMARY_KEY: "id"}
    with adbc.connect(uri, db_kwargs=login, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("orders", pa.Table.from_pandas(orders, preserve_index=False), mode="replace")
        cursor.execute("""
            SELECT customer, count(*) AS orders, sum(amount) AS total, max(day) AS latest
            FROM orders GROUP BY customer ORDER BY customer""")
        print(cursor.fetch_df())
        cursor.execute("DROP TABLE orders")


if __name__ == "__main__":
    main(*sys.argv[1:])
