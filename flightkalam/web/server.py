"""The listener of the side port.

/healthz   200 while the process answers at all; restart it when it does not
/readyz    200 while calls are welcome; 503 while starting, draining, or when writes are refused
/metrics   figures for Prometheus
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flightkalam.errors import ConfigError
from flightkalam.telemetry import Sample
from flightkalam.web import exposition
from flightkalam.web.health import Health

_STOP_SECONDS = 5.0


def application(health: Health, samples: Callable[[], list[Sample]]) -> Starlette:
    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        verdict = await run_in_threadpool(health.ready)
        body = {"state": verdict.state} | ({} if verdict.problem is None else {"problem": verdict.problem})
        return JSONResponse(body, status_code=200 if verdict.problem is None else 503)

    async def metrics(_: Request) -> Response:
        # In a thread of its own: a gauge may have to wait for a lock, and the other paths must not.
        body = await run_in_threadpool(lambda: exposition.text(samples()))
        return Response(body, media_type=exposition.CONTENT_TYPE)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


class SidePort:
    """Listens from construction to `close`, in a thread of its own.

    :param port: 0 takes a free one, which `port` tells.
    :raises ConfigError: the address cannot be had.
    """

    def __init__(self, host: str, port: int, health: Health, samples: Callable[[], list[Sample]]) -> None:
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.location = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = uvicorn.Config(
            application(health, samples),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="kalam-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Safe to call twice."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._socket.close()


def _bound(host: str, port: int) -> socket.socket:
    """Bound here and not by the library, which ends the process when it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
        return bound
    except OSError as e:
        raise ConfigError(
            f"cannot listen on {host}:{port} for http: {e.strerror or e}; choose another http.port or do without (http.enabled)"
        ) from None
