"""Statements in a form that reads well in a table: names, identifiers and slices as text, defaults left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from flightkalam.sql.statements import AsUser, Default, Ident, Name, Slice


def plain(value: Any) -> Any:
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, Ident):
        return value.value
    if isinstance(value, Slice):
        return value.text
    if isinstance(value, AsUser):
        return value.user
    if isinstance(value, Default):
        return "<default>"
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {"is": type(value).__name__} | {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != field.default
        }
    return value


def slices(value: Any) -> Iterator[Slice | Name]:
    """Every part of a statement that claims to be a place in the text."""
    if isinstance(value, Slice | Name):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from slices(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from slices(getattr(value, field.name))
