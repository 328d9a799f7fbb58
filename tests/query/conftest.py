from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from query_house import House, make_engine

from flightkalam.query.duckdb_engine import DuckDBEngine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    """One engine for all: a statement leaves nothing behind, which is what the tests rely on and prove."""
    made = make_engine(tmp_path_factory.getbasetemp())
    yield made
    made.close()


@pytest.fixture
def house(tmp_path: Path, engine: DuckDBEngine) -> House:
    return House(tmp_path, engine=engine)
