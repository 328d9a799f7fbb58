"""FlightKalam: a multi-tenant Arrow Flight SQL data service."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("flightkalam")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+source"
