from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import pyarrow.flight as flight
import pytest
from flight_fakes import FakeService

from flightkalam.flight.service import FlightKalamServer


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[FlightKalamServer]:
    with FlightKalamServer(service, "grpc://127.0.0.1:0", ticket_key=b"k" * 32) as running:
        yield running


@pytest.fixture
def uri(server: FlightKalamServer) -> str:
    return f"grpc://127.0.0.1:{server.port}"


@pytest.fixture
def client(uri: str) -> Iterator[flight.FlightClient]:
    with flight.connect(uri) as connected:
        yield connected


@pytest.fixture
def connect(uri: str) -> Iterator[Callable[..., AbstractContextManager[adbc.Connection]]]:
    opened: list[adbc.Connection] = []

    def connect_as(user: str = "ann", password: str | None = None, **options: Any) -> adbc.Connection:
        login = {"username": user, "password": password if password is not None else f"p:{user}"}
        opened.append(adbc.connect(uri, db_kwargs=login, **{"autocommit": True, **options}))
        return opened[-1]

    yield connect_as
    for connection in opened:
        connection.close()
