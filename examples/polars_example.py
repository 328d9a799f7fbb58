"""A polars DataFrame in, a polars DataFrame out: python examples/polars_example.py [URI USER PASSWORD]"""

from __future__ import annotations

import sys

import adbc_driver_flightsql.dbapi as adbc
import polars as pl


def main(uri: str = "grpc://127.0.0.1:31337", user: str = "root", password: str = "secret-password") -> None:
    trips = pl.DataFrame(
        {"id": range(6), "city": ["Wien", "Graz", "Wien", "Linz", "Graz", "Wien"], "km": [3.2, 8.0, 1.1, 5.5, 2.0, 9.4]}
    )
    with (
        adbc.connect(uri, db_kwargs={"username": user, "password": password}, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("DROP TABLE IF EXISTS trips")
        cursor.execute("CREATE TABLE trips (id BIGINT PRIMARY KEY, city TEXT, km DOUBLE)")
        cursor.adbc_ingest("trips", trips.to_arrow(), mode="append")

        by_city = pl.read_database(
            "SELECT city, count(*) AS trips, sum(km) AS km FROM trips GROUP BY city ORDER BY city", connection
        )
        print(by_city)
        cursor.execute("DROP TABLE trips")


if __name__ == "__main__":
    main(*sys.argv[1:])
