"""Whether the server of these settings answers: for health checks, which have no password to log in with.

A server that says "log in first" has answered.
"""

from __future__ import annotations

import ipaddress
import socket

import pyarrow as pa
import pyarrow.flight as flight

from flightkalam.cli.client import message_of
from flightkalam.config import ServerConfig
from flightkalam.errors import KalamError


def ping(server: ServerConfig, timeout_s: float) -> str:
    """
    :return: where it answered.
    :raises KalamError: it does not answer, or not as a Flight server.
    """
    host = _reachable(server.host)
    if server.tls_client_ca is not None and server.tls_client_port is None:
        return _connect(host, server.port, timeout_s)
    scheme = "grpc+tls" if server.tls else "grpc"
    location = f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"
    try:
        # The certificate is for the name that clients use, and no secret is sent here.
        with flight.connect(location, disable_server_verification=server.tls) as client:
            list(client.list_actions(flight.FlightCallOptions(timeout=timeout_s)))
    except flight.FlightUnauthenticatedError:
        pass
    except (flight.FlightError, pa.ArrowException, OSError) as error:
        raise KalamError(f"no server answers at {location}: {message_of(error)}") from None
    return location


def _connect(host: str, port: int, timeout_s: float) -> str:
    """With client certificates compulsory nobody answers us; that somebody listens is all there is to see."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        raise KalamError(f"nobody listens at {host}:{port}: {error.strerror or error}") from None
    return f"{host}:{port}"


def _reachable(host: str) -> str:
    """An address to listen on everywhere is none to connect to."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
