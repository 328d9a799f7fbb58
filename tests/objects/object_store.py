"""An S3 server on loopback, and a proxy before it that fails as S3 does: late, wrongly, or after the deed."""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "kalam-tests"
KEYS = "ACCESS_KEY_ID='AKIATESTS', SECRET_ACCESS_KEY='hush-hush'"


class S3:
    """A real server of the S3 protocol."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://{self.host}:{self.port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def keys(self, prefix: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
        return sorted(o["Key"].removeprefix(f"{prefix}/") for o in found)

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def close(self) -> None:
        self._server.stop()


@dataclass
class Fault:
    """What befalls the next `times` requests that match.

    :param status: answered instead of the store's answer; 0: the connection is closed without one.
    :param after: the store does what it was asked to do first.
    :param pause: seconds before the answer.
    """

    method: str
    part: str = ""
    status: int = 0
    after: bool = False
    pause: float = 0.0
    times: int = 1
    before: Callable[[], None] | None = None


@dataclass
class Proxy:
    """Passes requests on to a store, save those that a fault befalls.  `log` has (method, path) of each request."""

    s3: S3
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False
    ignore_conditions: bool = False
    headers: dict[str, str] = field(default_factory=dict)  # of the last request

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, method: str, part: str = "", **how: object) -> Fault:
        fault = Fault(method, part, **how)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(fault)
        return fault

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.log.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.headers = {n.lower(): v for n, v in self.headers.items()}
                fault = proxy.take(self.command, self.path)
                if proxy.away:
                    return self._hang_up()
                if fault is not None:
                    if fault.before is not None:
                        fault.before()
                    if fault.after:
                        self._asked(body)
                    proxy._closed.wait(fault.pause)
                    if not fault.status:
                        return self._hang_up()
                    return self._answer(fault.status, {}, b"<Error><Code>Injected</Code></Error>")
                return self._answer(*self._asked(body))

            def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                connection = http.client.HTTPConnection(proxy.s3.host, proxy.s3.port, timeout=20)
                try:
                    headers = {
                        n: v for n, v in self.headers.items() if not (proxy.ignore_conditions and n.lower().startswith("if-"))
                    }
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    return answer.status, dict(answer.getheaders()), answer.read()
                finally:
                    connection.close()

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                        if name.lower() == "content-length" and self.command != "HEAD":
                            continue
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if self.command != "HEAD" else b"")

            def _hang_up(self) -> None:
                self.close_connection = True
                self.connection.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

        return Handler
