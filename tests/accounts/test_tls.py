"""TLS and client certificates, with certificates made on the fly and real clients."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kalam_world import ROOT_PASSWORD, World, config, password_of

from flightkalam.app import Listener, listen, open_kalam
from flightkalam.auth.identity import Role
from flightkalam.cli.ping import ping
from flightkalam.config import Config
from flightkalam.errors import ConfigError

OPTION = "adbc.flight.sql.client_option."


@dataclass(frozen=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def made(name: str, issuer: Pair | None = None, *names: x509.GeneralName, days: int = 2) -> Pair:
    """A certificate of that common name; its own issuer if none is given."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=3))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(issuer is None, None), True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


CA, OTHER_CA = made("a test authority"), made("another authority")
SERVER = made("server", CA, x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tls")
    for name, text in (("cert", SERVER.pem), ("key", SERVER.key_pem), ("ca", CA.pem)):
        (folder / name).write_text(text)
    return {name: folder / name for name in ("cert", "key", "ca")}


def tls(files: dict[str, Path], **more: Any) -> dict[str, dict[str, Any]]:
    return {"server": {"tls_cert": files["cert"], "tls_key": files["key"], **more}}


@pytest.fixture
def both(tmp_path: Path, files: dict[str, Path]) -> Iterator[World]:
    """Passwords and tokens on one port, client certificates on another."""
    pattern = {"auth": {"certificate_user": r"([^.]+)(?:\.clients\.example\.org)?"}}
    world = World(tmp_path, {**tls(files, tls_client_ca=files["ca"], tls_client_port=0), **pattern})
    assert world.uri
    yield world
    world.close()


def certificate_uri(world: World) -> str:
    assert world._listener is not None and world._listener.certificate_location is not None
    return world._listener.certificate_location


def connect(uri: str, client: Pair | None = None, **more: str) -> adbc.Connection:
    options = {OPTION + "tls_root_certs": CA.pem, **more}
    if client is not None:
        options |= {OPTION + "mtls_cert_chain": client.pem, OPTION + "mtls_private_key": client.key_pem}
    return adbc.connect(uri, db_kwargs=options, autocommit=True)


def ask(connection: adbc.Connection, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


WHO = "SELECT CURRENT_USER, CURRENT_ROLE"


def test_a_certificate_is_its_user_without_a_password(both: World) -> None:
    both.user("ann", Role.SERVICE)
    with connect(certificate_uri(both), made("ann", CA)) as connection:
        assert ask(connection, WHO) == [("ann", "service")]
        ask(connection, "CREATE USER TABLE t (k BIGINT PRIMARY KEY)")
        ask(connection, "INSERT INTO t VALUES (1), (2)")
        assert ask(connection, "SELECT count(*) FROM t") == [(2,)]
        both.kalam.parts.accounts.set_role("ann", Role.USER)
        assert ask(connection, WHO) == [("ann", "user")]
        both.kalam.parts.accounts.drop("ann")
        with pytest.raises(adbc_driver_manager.Error, match="certificate names no user"):
            ask(connection, WHO)


def test_an_alternative_name_comes_before_the_common_name(both: World) -> None:
    both.user("ann", Role.USER)
    both.user("bob", Role.USER)
    with connect(certificate_uri(both), made("ann", CA, x509.DNSName("bob.clients.example.org"))) as connection:
        assert ask(connection, WHO) == [("bob", "user")]


@pytest.mark.parametrize("name", ["nobody", "ann.elsewhere.example.org", "a:nn", "ANN", " ann", "." * 5])
def test_a_certificate_of_nobody_is_refused_and_recorded(both: World, name: str) -> None:
    both.user("ann", Role.USER)
    with pytest.raises(adbc_driver_manager.Error, match="the client certificate names no user of this service"):
        with connect(certificate_uri(both), made(name, CA)) as connection:
            ask(connection, WHO)
    log = "SELECT outcome, details FROM system.audit_log WHERE action = 'LOGIN'"
    (outcome, details), *_ = ask(root(both), log)
    assert outcome == "denied" and "certificate" in details and name not in details


def root(world: World) -> adbc.Connection:
    connection = connect(world.uri, username="root", password=ROOT_PASSWORD)
    world._clients.append(connection)  # type: ignore[arg-type]
    return connection


@pytest.mark.parametrize(
    "client", [None, made("ann", OTHER_CA), made("ann"), made("ann", CA, days=-1)], ids=["none", "foreign", "own", "expired"]
)
def test_without_a_good_certificate_there_is_no_connection(both: World, client: Pair | None) -> None:
    both.user("ann", Role.USER)
    with pytest.raises(adbc_driver_manager.Error) as refusal:
        with connect(certificate_uri(both), client, username="ann", password=password_of("ann")) as connection:
            ask(connection, WHO)
    assert "ann" not in str(refusal.value).replace("channel", "")


def test_passwords_and_tokens_have_the_other_port(both: World) -> None:
    both.user("ann", Role.USER)
    with connect(both.uri, username="ann", password=password_of("ann")) as connection:
        assert ask(connection, WHO) == [("ann", "user")]
        token = ask(connection, "CREATE TOKEN 't' FOR USER 'ann'")[0][2]
    bearer = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    with connect(both.uri, **bearer) as connection:
        assert ask(connection, WHO) == [("ann", "user")]
    # Without credentials a certificate is worth nothing there: it is not asked for.
    with pytest.raises(adbc_driver_manager.Error, match="log in first"):
        with connect(both.uri, made("ann", CA)) as connection:
            ask(connection, WHO)


def test_a_token_says_more_than_a_certificate(both: World) -> None:
    both.user("ann", Role.USER)
    both.user("svc", Role.SERVICE)
    _, token = both.kalam.parts.api_tokens.create("svc", "t", None, by="root")
    bearer = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    with connect(certificate_uri(both), made("ann", CA), **bearer) as connection:
        assert ask(connection, WHO) == [("svc", "service")]


def test_two_connections_of_one_certificate_have_transactions_of_their_own(both: World) -> None:
    both.user("ann", Role.USER)
    ann = made("ann", CA)
    with connect(certificate_uri(both), ann) as one, connect(certificate_uri(both), ann) as other:
        ask(one, "CREATE USER TABLE t (k BIGINT PRIMARY KEY)")
        one.adbc_connection.set_autocommit(False)
        ask(one, "INSERT INTO t VALUES (1)")
        ask(other, "INSERT INTO t VALUES (2)")
        assert ask(other, "SELECT k FROM t") == [(2,)]
        one.rollback()
        assert ask(other, "SELECT k FROM t") == [(2,)]


def test_one_listener_that_requires_certificates(tmp_path: Path, files: dict[str, Path]) -> None:
    world = World(tmp_path, tls(files, tls_client_ca=files["ca"]))
    try:
        world.user("ann", Role.USER)
        with connect(world.uri, made("ann", CA)) as connection:
            assert ask(connection, WHO) == [("ann", "user")]
        with pytest.raises(adbc_driver_manager.Error):
            connect(world.uri, username="ann", password=password_of("ann")).close()
    finally:
        world.close()


def test_a_server_whose_certificate_is_not_known_is_not_told_the_password(tmp_path: Path, files: dict[str, Path]) -> None:
    world = World(tmp_path, tls(files))
    try:
        options = {OPTION + "tls_root_certs": OTHER_CA.pem, "username": "root", "password": ROOT_PASSWORD}
        with pytest.raises(adbc_driver_manager.Error, match="certificate"):
            adbc.connect(world.uri, db_kwargs=options).close()
    finally:
        world.close()


def test_ping_sees_the_port_that_needs_no_certificate(both: World) -> None:
    port = int(both.uri.rpartition(":")[2])
    server = both.config.server.model_copy(update={"port": port})
    assert ping(server, 5.0) == both.uri


def test_a_second_port_that_is_taken_stops_the_start_and_frees_the_first(tmp_path: Path, files: dict[str, Path]) -> None:
    taken = Listener(open_kalam(config(tmp_path / "one", tls(files))))
    port = int(taken.location.rpartition(":")[2])
    try:
        settings = tls(files, tls_client_ca=files["ca"], tls_client_port=port)
        with pytest.raises(ConfigError, match="the port is taken"):
            listen(config(tmp_path / "two", settings))
        open_kalam(config(tmp_path / "two")).close()  # nothing holds the directory
    finally:
        taken.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"server.tls_client_port": 1},
        {
            "server.tls_client_port": 5,
            "server.port": 5,
            "server.tls_client_ca": "c",
            "server.tls_cert": "c",
            "server.tls_key": "k",
        },
        {"auth.certificate_user": ".*"},
        {"auth.certificate_user": "(a)(b)"},
        {"auth.certificate_user": "(a"},
    ],
)
def test_settings_that_do_not_fit_stop_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tls_client_port|certificate_user"):
        Config.load(overrides=settings, environ={})
