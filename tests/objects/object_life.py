"""Statements that every test of object stores says."""

from __future__ import annotations

from kalam_world import Client
from object_store import BUCKET, KEYS, Proxy


def create_storage(client: Client, proxy: Proxy, prefix: str, name: str = "far") -> None:
    client.run(f"CREATE STORAGE {name} WITH (TYPE='s3', URL='s3://{BUCKET}/{prefix}', ENDPOINT='{proxy.url}', {KEYS})")


def rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    found = client.run(sql).rows
    assert found is not None
    return [tuple(r.values()) for r in found.to_pylist()]


def flush(client: Client, table: str = "t") -> None:
    assert "completed" in rows(client, f"FLUSH TABLE {table} WAIT")[0]
