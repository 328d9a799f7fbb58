"""What a program does with SQLAlchemy, in the words that 1.4 and 2 share.  Run as a script: `dialect_tour.py URL`."""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import warnings

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()
NOON = dt.datetime(2024, 1, 2, 12, 0, 0, 123456)


class Note(Base):  # type: ignore[valid-type, misc]
    __tablename__ = "notes"
    id = sa.Column(sa.Integer, primary_key=True)
    title = sa.Column(sa.String(40), nullable=False)
    price = sa.Column(sa.Numeric(10, 2))
    ratio = sa.Column(sa.Float)
    done = sa.Column(sa.Boolean, default=False)
    at = sa.Column(sa.DateTime)
    day = sa.Column(sa.Date)
    raw = sa.Column(sa.LargeBinary)
    extra = sa.Column(sa.JSON)


def tour(engine: Engine) -> None:
    """Everything once; raises at the first thing that is not as it should be."""
    orm(engine)
    core(engine)
    reflection(engine)
    frames(engine)
    engine.dispose()


def orm(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # it is there
    with Session(engine) as session:
        note = Note(
            title="O'Hara; ü",
            price=decimal.Decimal("12.50"),
            ratio=0.25,
            at=NOON,
            day=NOON.date(),
            raw=b"\0\xff",
            extra={"a": [1, None]},
        )
        session.add_all([note, Note(title="second"), Note(title="third")])
        session.commit()
        assert isinstance(note.id, int) and note.id > 2**31, "drawn by the service and brought back"
        found = session.get(Note, note.id)
        assert found is not None
        assert (found.title, found.price, found.ratio, found.done) == ("O'Hara; ü", decimal.Decimal("12.50"), 0.25, False)
        assert (found.at, found.day, found.raw, found.extra) == (NOON, NOON.date(), b"\0\xff", {"a": [1, None]})
        found.title = "changed"
        session.commit()
        titles = session.execute(sa.select(Note.title).order_by(Note.title)).scalars().all()
        assert titles == ["changed", "second", "third"], titles
        session.delete(found)
        session.commit()
        assert session.query(Note).filter(Note.title.ilike("SEC%")).count() == 1
        assert session.query(Note).order_by(Note.title).limit(1).offset(1).one().title == "third"
        session.add(Note(title="never"))
        session.rollback()
        assert session.query(Note).count() == 2


def core(engine: Engine) -> None:
    metadata = sa.MetaData()
    pairs = sa.Table(
        "pairs", metadata, sa.Column("a", sa.BigInteger), sa.Column("b", sa.Text), sa.PrimaryKeyConstraint("a", "b")
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(pairs.insert(), [{"a": i, "b": "x"} for i in range(100)])
        assert connection.execute(pairs.update().where(pairs.c.a == 1).values(b="y")).rowcount == 1
        assert connection.execute(pairs.delete().where(pairs.c.a.in_([2, 3]))).rowcount == 2
        count = connection.execute(sa.select(sa.func.count()).select_from(pairs)).scalar()
        assert count == 98, count
    try:
        with engine.begin() as connection:
            connection.execute(pairs.insert(), {"a": 5, "b": "x"})
    except sa.exc.DBAPIError as e:
        assert "23505" in str(e)
    else:
        raise AssertionError("a duplicate key must be refused")


def reflection(engine: Engine) -> None:
    inspector = sa.inspect(engine)
    assert {"notes", "pairs"} <= set(inspector.get_table_names())
    assert "main" in inspector.get_schema_names()
    assert inspector.get_pk_constraint("pairs")["constrained_columns"] == ["a", "b"]
    columns = {c["name"]: c for c in inspector.get_columns("notes")}
    assert not columns["title"]["nullable"] and isinstance(columns["price"]["type"], sa.Numeric)
    assert inspector.get_indexes("notes") == inspector.get_foreign_keys("notes") == []
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE VIEW titles AS SELECT title FROM notes"))
    inspector = sa.inspect(engine)
    assert inspector.get_view_names() == ["titles"] and "titles" not in inspector.get_table_names()
    assert "SELECT title" in inspector.get_view_definition("titles")
    table = sa.Table("notes", sa.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 2


def frames(engine: Engine) -> None:
    frame = pd.DataFrame({"n": [1, 2, 3], "word": ["a", None, "c"], "at": pd.to_datetime(["2024-01-01"] * 3)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # the index that pandas asks for
        frame.to_sql("frames", engine, if_exists="fail", index=True)
        frame.to_sql("frames", engine, if_exists="append", index=True)
        frame.to_sql("frames", engine, if_exists="replace", index=False, chunksize=2)
    back = pd.read_sql("SELECT * FROM frames ORDER BY n", engine)
    assert back["n"].tolist() == [1, 2, 3] and back["word"].tolist()[::2] == ["a", "c"]
    assert pd.read_sql_table("frames", engine)["at"].nunique() == 1


if __name__ == "__main__":
    tour(sa.create_engine(sys.argv[1]))
    print("done", sa.__version__)
