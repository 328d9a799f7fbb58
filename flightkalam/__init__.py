"""FlightKalam: a multi-tenant Arrow Flight SQL data service."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightkalam.client import Connection, connect

__all__ = ["Connection", "__version__", "connect"]

try:
    __version__ = version("flightkalam")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+source"


def __getattr__(name: str) -> Any:
    """`connect` and `Connection` are loaded when first asked for: the server does not need its own client."""
    if name in ("connect", "Connection"):
        return getattr(importlib.import_module("flightkalam.client"), name)
    raise AttributeError(f"module 'flightkalam' has no attribute {name!r}")
