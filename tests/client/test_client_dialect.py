"""flightkalam:// in SQLAlchemy: a schema of one's own, the ORM, reflection, pandas.  The scenario itself is in `dialect_tour`,
which also runs under SQLAlchemy 1.4 with an old pyarrow."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from dialect_tour import tour
from kalam_world import ROOT_PASSWORD, World
from sqlalchemy.dialects import registry
from sqlalchemy.engine import Engine

from flightkalam.client.dialect import type_of

registry.register("flightkalam", "flightkalam.client.dialect", "FlightKalamDialect")


def engine_of(world: World, user: str = "root", password: str = ROOT_PASSWORD, **options: str) -> Engine:
    host = world.uri.removeprefix("grpc://")
    more = "&".join(f"{k}={v}" for k, v in options.items())
    return sa.create_engine(f"flightkalam://{user}:{password}@{host}/main?{more}")


def test_the_tour(world: World) -> None:
    tour(engine_of(world))


def test_a_foreign_key_is_refused_by_the_service_and_an_index_left_out(world: World) -> None:
    engine = engine_of(world)
    metadata = sa.MetaData()
    sa.Table("parents", metadata, sa.Column("id", sa.BigInteger, primary_key=True))
    sa.Table("children", metadata, sa.Column("id", sa.BigInteger, sa.ForeignKey("parents.id"), primary_key=True))
    with pytest.raises(sa.exc.DBAPIError, match="REFERENCES|FOREIGN KEY"):
        metadata.create_all(engine)
    indexed = sa.Table(
        "indexed", sa.MetaData(), sa.Column("id", sa.Text, primary_key=True), sa.Column("v", sa.Text, index=True)
    )
    with pytest.warns(sa.exc.SAWarning, match="left out"):
        indexed.create(engine)
    engine.dispose()


def test_errors_are_sqlalchemys(world: World) -> None:
    engine = engine_of(world)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="42P01"):
        connection.execute(sa.text("SELECT * FROM nowhere"))
    with pytest.raises(sa.exc.NoSuchTableError):
        sa.inspect(engine).get_columns("nowhere")
    with pytest.raises(sa.exc.ArgumentError, match="unknown option 'colour'"):
        engine_of(world, colour="red").connect()
    engine.dispose()


def test_autocommit_and_rollback(world: World) -> None:
    engine = engine_of(world)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE TABLE t (id INT PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    with engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (2)"))
        connection.rollback()
        connection.execute(sa.text("INSERT INTO t VALUES (3)"))
        connection.commit()
        assert connection.execute(sa.text("SELECT id FROM t ORDER BY id")).scalars().all() == [1, 3]
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DECIMAL(10,2)", "NUMERIC"),
        ("TIMESTAMPTZ", "TIMESTAMP"),
        ("DOUBLE", "FLOAT"),
        ("EMBEDDING(3)", "EMBEDDING(3)"),
        ("INT[]", "INT[]"),
    ],
)
def test_types_of_columns(text: str, expected: str) -> None:
    found = type_of(text)
    assert expected in (type(found).__name__.upper(), getattr(found, "text", ""), found.__visit_name__.upper()) or (
        expected == "NUMERIC" and isinstance(found, sa.Numeric)
    )
