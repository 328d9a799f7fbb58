"""The listener itself: what is logged, how it stops, and TLS."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import structlog
from flight_fakes import SECRET
from flight_wire import bearer, info, pb, rows

from flightkalam import errors
from flightkalam.flight import commands, status
from flightkalam.flight.service import FlightKalamServer


class TestStatus:
    def test_every_class_of_ours_has_a_row(self):
        pending, seen = [errors.KalamError], []
        while pending:
            class_ = pending.pop()
            seen.append(class_)
            pending.extend(class_.__subclasses__())
        assert len(seen) > 15
        for class_ in seen:
            wire = status.to_flight(class_("what happened"))
            assert str(wire) == f"what happened [SQLSTATE {class_.sqlstate}]"

    def test_details_carry_the_code_and_the_sqlstate(self):
        wire = status.to_flight(errors.Conflict("again"))
        details = pb.Status.FromString(wire.extra_info)
        assert (details.code, details.message) == (2, "again [SQLSTATE 40001]")
        assert details.details[0].type_url == "type.googleapis.com/google.rpc.ErrorInfo"
        reason = pb.ErrorInfo.FromString(details.details[0].value)
        assert (reason.reason, reason.domain) == ("40001", "flightkalam")

    def test_running_out_of_memory_is_a_reason_to_retry(self):
        assert isinstance(status.to_flight(MemoryError()), flight.FlightUnavailableError)

    def test_a_bug_is_logged_with_its_traceback_under_its_number(self, client):
        with structlog.testing.capture_logs() as lines, pytest.raises(flight.FlightInternalError) as caught:
            info(client, pb.CommandStatementQuery(query="CRASH"))
        (line,) = [line for line in lines if line["event"] == "unexpected error"]
        assert f"internal error {line['incident']};" in str(caught.value)
        assert SECRET in str(line["exc_info"]) and line["exc_info"].__traceback__ is not None

    def test_a_refusal_is_not_logged_as_an_error(self, client):
        with structlog.testing.capture_logs() as lines, pytest.raises(pa.ArrowInvalid):
            info(client, pb.CommandStatementQuery(query="FAIL SqlSyntaxError"))
        assert not [line for line in lines if line["log_level"] == "error"]


class TestStreams:
    """T-52: what a client leaves behind is released."""

    def test_a_dropped_reader_closes_the_rows(self, client, service):
        promised = info(client, pb.CommandStatementQuery(query="SELECT forever"))
        reader = client.do_get(promised.endpoints[0].ticket, bearer())
        reader.read_chunk()
        reader.cancel()
        del reader
        assert service.rows[0].closed.wait(5)

    def test_a_deadline_interrupts_what_is_computing(self, client, service):
        promised = info(client, pb.CommandStatementQuery(query="SELECT stuck"))
        headers = [(b"authorization", b"Bearer token-ann")]
        with pytest.raises(flight.FlightTimedOutError):
            options = flight.FlightCallOptions(timeout=0.2, headers=headers)
            client.do_get(promised.endpoints[0].ticket, options).read_chunk()
        assert service.rows[0].interrupted.wait(5)
        assert service.rows[0].closed.wait(5)

    def test_a_finished_result_is_closed(self, client, service):
        assert rows(client, pb.CommandStatementQuery(query="SELECT 5000")).num_rows == 5000
        assert service.rows[0].closed.wait(5)

    def test_hundreds_of_abandoned_results_leave_nothing(self, client, service, server):
        promised = info(client, pb.CommandStatementQuery(query="SELECT forever"))
        for _ in range(100):
            reader = client.do_get(promised.endpoints[0].ticket, bearer())
            reader.cancel()
            del reader
        assert server._streams.wait_idle(10)
        assert all(r.closed.wait(5) for r in service.rows)


class TestDrain:
    def test_an_idle_server_stops_at_once(self, server):
        started = time.monotonic()
        assert server.drain(10)
        assert time.monotonic() - started < 5

    def test_running_results_end_by_themselves_within_the_deadline(self, client, server):
        promised = info(client, pb.CommandStatementQuery(query="SELECT 200000"))
        reader = client.do_get(promised.endpoints[0].ticket, bearer())
        reader.read_chunk()
        stopped = []
        drain = threading.Thread(target=lambda: stopped.append(server.drain(20)))
        drain.start()
        rest = sum(chunk.data.num_rows for chunk in iter_chunks(reader))
        drain.join(30)
        assert rest == 199_000
        assert stopped == [True]

    @pytest.mark.parametrize("sql", ["SELECT forever", "SELECT stuck"])
    def test_at_the_deadline_the_others_are_told_to_come_again(self, client, server, service, sql):
        promised = info(client, pb.CommandStatementQuery(query=sql))
        reader = client.do_get(promised.endpoints[0].ticket, bearer())
        stopped = []
        drain = threading.Thread(target=lambda: stopped.append(server.drain(0.3)))
        drain.start()
        with pytest.raises(flight.FlightUnavailableError, match=r"shutting down.*53300"):
            for _ in iter_chunks(reader):
                pass
        drain.join(30)
        assert stopped == [True]
        assert service.rows[0].closed.is_set()

    def test_new_work_is_refused_and_what_was_begun_may_end(self, client, service):
        promised = info(client, pb.CommandStatementQuery(query="SELECT 1"))
        service.draining = True
        with pytest.raises(flight.FlightUnavailableError, match="shutting down"):
            info(client, pb.CommandStatementQuery(query="SELECT 1"))
        with pytest.raises(flight.FlightUnavailableError, match="shutting down"):
            client.authenticate_basic_token("ann", "p:ann")
        assert client.do_get(promised.endpoints[0].ticket, bearer()).read_all().num_rows == 1
        request = pb.ActionEndTransactionRequest(transaction_id=b"tx1", action=1)
        list(client.do_action(flight.Action("EndTransaction", commands.pack(request)), bearer()))
        assert ("end", b"tx1", True) in service.calls


def iter_chunks(reader):
    while True:
        try:
            yield reader.read_chunk()
        except StopIteration:
            return


class TestSmallResults:
    @pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2000, 2001, 5000])
    def test_what_is_read_ahead_is_sent_once_and_in_order(self, client, service, rows):
        promised = info(client, pb.CommandStatementQuery(query=f"SELECT {rows}"))
        got = client.do_get(promised.endpoints[0].ticket, bearer()).read_all()
        assert got.column(0).to_pylist() == (list(range(rows)) if rows > 1 else [1])
        assert service.rows[0].closed.wait(5)


class TestTickets:
    def test_servers_that_share_a_key_accept_each_others_tickets(self, service):
        with (
            FlightKalamServer(service, "grpc://127.0.0.1:0", ticket_key=b"k" * 32) as one,
            FlightKalamServer(service, "grpc://127.0.0.1:0", ticket_key=b"k" * 32) as two,
            FlightKalamServer(service, "grpc://127.0.0.1:0") as stranger,
        ):
            ports = [server.port for server in (one, two, stranger)]
            clients = [flight.connect(f"grpc://127.0.0.1:{port}") for port in ports]
            ticket = info(clients[0], pb.CommandStatementQuery(query="SELECT 1")).endpoints[0].ticket
            assert clients[1].do_get(ticket, bearer()).read_all().num_rows == 1
            with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
                clients[2].do_get(ticket, bearer()).read_all()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A certificate authority, a server certificate for localhost and a client certificate for ann."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("pki")

    def run(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca", "-days", "2")
    (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name, subject in (("server", "/CN=localhost"), ("ann", "/CN=ann")):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        run(*sign, "-out", f"{name}.pem", "-days", "2", *(("-extfile", "ext") if name == "server" else ()))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestTls:
    def test_passwords_over_tls(self, service, pki):
        pair = [(pki["server.pem"], pki["server.key"])]
        with FlightKalamServer(service, "grpc+tls://localhost:0", tls_certificates=pair) as server:
            client = flight.connect(f"grpc+tls://localhost:{server.port}", tls_root_certs=pki["ca.pem"])
            assert client.authenticate_basic_token("ann", "p:ann")[1] == b"Bearer token-ann"
            assert rows(client, pb.CommandStatementQuery(query="SELECT 1")).num_rows == 1

    def test_a_client_certificate_is_an_identity(self, service, pki):
        pair = [(pki["server.pem"], pki["server.key"])]
        with FlightKalamServer(
            service,
            "grpc+tls://localhost:0",
            tls_certificates=pair,
            verify_client=True,
            root_certificates=pki["ca.pem"],
        ) as server:
            uri = f"grpc+tls://localhost:{server.port}"
            known = flight.connect(uri, tls_root_certs=pki["ca.pem"], cert_chain=pki["ann.pem"], private_key=pki["ann.key"])
            assert list(known.list_actions())
            assert (service.shown[-1].kind, service.shown[-1].user) == ("certificate", "ann")
            # A token says more than a certificate.
            list(known.list_actions(bearer("bob")))
            assert service.shown[-1].secret == "token-bob"
            with pytest.raises((flight.FlightUnavailableError, flight.FlightInternalError)):
                list(flight.connect(uri, tls_root_certs=pki["ca.pem"]).list_actions(bearer()))
