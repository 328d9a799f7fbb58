"""What Tab offers: keywords, tables and columns that fit what stands left of the cursor.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_KEYWORD_LIST = """
    ALTER TABLE, AND, AS, AS USER, ASC, BEGIN, BETWEEN, BY, CASE, CHECK TABLE, COMMIT, COMPACT TABLE, COUNT,
    CREATE NAMESPACE, CREATE SHARED TABLE, CREATE STREAM TABLE, CREATE TABLE, CREATE USER, CREATE USER TABLE,
    CREATE VIEW, CROSS JOIN, DEFAULT, DELETE FROM, DESC, DESCRIBE, DISTINCT, DROP NAMESPACE, DROP TABLE,
    DROP VIEW, ELSE, END, EXCEPT, EXECUTE AS USER, EXISTS, EXPLAIN, EXPLAIN ANALYZE, FALSE, FLUSH ALL TABLES,
    FLUSH TABLE, FROM, FULL JOIN, GROUP BY, HAVING, IF EXISTS, IF NOT EXISTS, IN, INSERT INTO, INTERSECT,
    IS NOT NULL, IS NULL, JOIN, KILL JOB, KILL QUERY, LEFT JOIN, LIKE, LIMIT, MERGE INTO, NOT, NULL, OFFSET, ON,
    ON CONFLICT, OR, ORDER BY, OVER, PARTITION BY, PRIMARY KEY, QUALIFY, REBUILD MANIFEST, RETURNING, RIGHT JOIN, ROLLBACK,
    SELECT, SET, SHOW CREATE TABLE, SHOW JOBS, SHOW MANIFEST CACHE, SHOW NAMESPACES, SHOW TABLES, THEN, TRUE, TRUNCATE,
    UNION ALL, UPDATE, USE, USING, VALUES, WAIT, WHEN, WHERE, WITH
    """
KEYWORDS = tuple(word.strip() for word in _KEYWORD_LIST.split(","))
_WORD = re.compile(r'[\w$"]*$')
_QUALIFIER = re.compile(r'([\w$]+|"(?:[^"]|"")+")\.[\w$"]*$')
# What names a table comes next: FROM a, b | JOIN | INTO | UPDATE | TABLE | DESCRIBE.
_TABLE_NEXT = re.compile(
    r'\b(?:FROM|JOIN|INTO|UPDATE|TABLE|DESCRIBE|USING)\s+(?:[\w$."]+(?:\s+(?:AS\s+)?[\w$]+)?\s*,\s*)*[\w$".]*$',
    re.IGNORECASE,
)
_NAMESPACE_NEXT = re.compile(r"\b(?:USE|NAMESPACE|SCHEMA|IN)\s+\w*$", re.IGNORECASE)
_ALIAS = re.compile(
    r"\b(?:FROM|JOIN|INTO|UPDATE|,)\s*(?P<name>[\w$]+(?:\.[\w$]+)?)(?:\s+(?:AS\s+)?(?P<alias>[\w$]+))?", re.IGNORECASE
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Names:
    """What exists: namespace -> table -> columns."""

    tables: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    @classmethod
    def from_objects(cls, catalogs: Iterable[Mapping[str, Any]]) -> Names:
        """Out of what ADBC's GetObjects gives."""
        found: dict[str, dict[str, list[str]]] = {}
        for catalog in catalogs:
            for schema in catalog["catalog_db_schemas"] or ():
                tables = found.setdefault(schema["db_schema_name"], {})
                for table in schema["db_schema_tables"] or ():
                    tables[table["table_name"]] = [c["column_name"] for c in table["table_columns"] or ()]
        return cls(found)

    def columns(self, namespace: str | None, table: str) -> Sequence[str]:
        for name, tables in self.tables.items():
            if namespace is None or name.casefold() == namespace.casefold():
                for candidate, columns in tables.items():
                    if candidate.casefold() == table.casefold():
                        return columns
        return ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` replaces the `replaces` characters left of the cursor."""

    text: str
    replaces: int
    kind: str


def candidates(before: str, names: Names, default_namespace: str = "main") -> list[Candidate]:
    """What could come at the end of `before`, the likeliest first."""
    word = _word(before)
    if (qualifier := _QUALIFIER.search(before)) is not None:
        return _matching(word, _behind(_bare(qualifier[1]), before, names))
    if _TABLE_NEXT.search(before) is not None:
        return _matching(word, _tables(names, default_namespace))
    if _NAMESPACE_NEXT.search(before) is not None:
        return _matching(word, ((n, "namespace") for n in names.tables))
    return _matching(word, _anything(before, names, default_namespace)) if word else []


def _word(before: str) -> str:
    match = _WORD.search(before)
    return match[0] if match else ""


def _behind(name: str, before: str, names: Names) -> Iterator[tuple[str, str]]:
    """After `name.`: the columns of the table or alias, or the tables of the namespace."""
    namespace, table = _aliases(before).get(name.casefold(), (None, name))
    yield from ((c, "column") for c in names.columns(namespace, table))
    for known, tables in names.tables.items():
        if known.casefold() == name.casefold():
            yield from ((t, "table") for t in tables)


def _tables(names: Names, default_namespace: str) -> Iterator[tuple[str, str]]:
    yield from ((t, "table") for t in names.tables.get(default_namespace, ()))
    yield from ((n, "namespace") for n in names.tables)


def _anything(before: str, names: Names, default_namespace: str) -> Iterator[tuple[str, str]]:
    named = _aliases(before)
    for namespace, table in named.values():
        yield from ((c, "column") for c in names.columns(namespace, table))
    yield from ((name, "table") for name in named if len(name) > len(_word(before)))
    yield from ((k, "keyword") for k in KEYWORDS)
    yield from _tables(names, default_namespace)
    for tables in names.tables.values():
        yield from ((c, "column") for columns in tables.values() for c in columns)


def _aliases(before: str) -> dict[str, tuple[str | None, str]]:
    """The tables that the text names so far, by alias and by name."""
    found: dict[str, tuple[str | None, str]] = {}
    for match in _ALIAS.finditer(before):
        namespace, _, table = match["name"].rpartition(".")
        found[table.casefold()] = (namespace or None, table)
        if match["alias"]:
            found[match["alias"].casefold()] = (namespace or None, table)
    return found


def _matching(word: str, offered: Iterable[tuple[str, str]]) -> list[Candidate]:
    start = word.lstrip('"').casefold()
    seen: dict[str, Candidate] = {}
    for text, kind in offered:
        if text.casefold().startswith(start):
            shown = text if kind == "keyword" else _quoted(text, word)
            seen.setdefault(shown, Candidate(_cased(shown, word, kind), len(word), kind))
    return list(seen.values())


def _quoted(name: str, word: str) -> str:
    if _PLAIN.fullmatch(name.casefold()) and not word.startswith('"'):
        return name
    return '"' + name.replace('"', '""') + '"'


def _cased(text: str, word: str, kind: str) -> str:
    """Keywords as they were begun: who types `sel` wants `select`."""
    return text.lower() if kind == "keyword" and word and word == word.lower() else text


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
