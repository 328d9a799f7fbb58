"""CREATE, ALTER, DROP and SHOW STORAGES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kalam_world import InProcess, Refused, World
from object_life import create_storage, flush, rows
from object_store import BUCKET, KEYS, S3, Proxy

from flightkalam.auth.identity import Role

MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
def client(world: World) -> InProcess:
    return world.in_process()


def shown(client: InProcess) -> list[dict[str, object]]:
    found = client.run("SHOW STORAGES").rows
    assert found is not None
    return [{k: v for k, v in r.items() if k != "created_at"} for r in found.to_pylist()]


LOCAL = {
    "storage_id": "local", "type": "folder", "url": None, "region": None, "endpoint": None, "credentials": "none", "tables": 0,
}  # fmt: skip


def test_storages_are_shown_without_their_keys(client: InProcess, world: World, proxy: Proxy, prefix: str) -> None:
    create_storage(client, proxy, prefix, "'Far-1'")
    client.run("CREATE TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID='far-1')")
    client.run("CREATE TABLE u (id INT PRIMARY KEY) WITH (STORAGE_ID='Local')")
    far = {"storage_id": "Far-1", "type": "s3", "url": f"s3://{BUCKET}/{prefix}", "region": None, "endpoint": proxy.url}
    assert shown(client) == [{**LOCAL, "tables": 1}, {**far, "credentials": "stored", "tables": 1}]
    assert "STORAGE_ID = 'Far-1'" in str(rows(client, "SHOW CREATE TABLE t"))
    world.restart()
    assert shown(world.in_process())[1]["storage_id"] == "Far-1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "needs a URL"),
        ("URL='http://x/y'", "s3://bucket/prefix or file:///path"),
        ("URL='s3://B_AD/x'", "s3://bucket or s3://bucket/prefix"),
        ("URL='s3://key:secret@bucket/x'", "without keys"),
        ("URL='file:///a/../b'", "an absolute path"),
        ("TYPE='azure', URL='s3://bucket'", "does not fit the URL"),
        ("TYPE='folder', URL='s3://bucket'", "does not fit the URL"),
        ("URL='s3://bucket', COLOUR='red'", "unknown option COLOUR"),
        ("URL='s3://bucket', ACCESS_KEY_ID='a'", "go together"),
        ("URL='s3://bucket', ENDPOINT='ftp://x'", "of the form https://host:port"),
        ("URL='s3://bucket', PATH_STYLE='maybe'", "PATH_STYLE is TRUE or FALSE"),
        ("URL='s3://bucket', REGION=7", "REGION is a text in quotes"),
        ("URL='file:///x', REGION='eu'", "REGION is an option of S3 storages only"),
        ("URL='s3://bucket', ACCESS_KEY_ID='k', SECRET_ACCESS_KEY='env:HOME'", "HOME, which is not set"),
        ("URL='file://{data}/cold'", "outside of the data directory"),
    ],
)
def test_what_is_wrong_is_named(client: InProcess, world: World, options: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        client.run(f"CREATE STORAGE far WITH ({options.format(data=world.data_dir)})" if options else "CREATE STORAGE far")
    assert shown(client) == [LOCAL]


def test_nothing_is_created_that_does_not_work(client: InProcess, proxy: Proxy, prefix: str) -> None:
    with pytest.raises(Refused, match="there is no such bucket"):
        client.run(f"CREATE STORAGE far WITH (URL='s3://no-such-bucket', ENDPOINT='{proxy.url}', {KEYS})")
    proxy.fail("PUT", status=403)
    with pytest.raises(Refused, match="refuses us; check its keys") as refused:
        create_storage(client, proxy, prefix)
    assert "hush" not in refused.value.message and proxy.url not in refused.value.message
    proxy.away = True
    with pytest.raises(Refused, match="cannot be reached"):
        create_storage(client, proxy, prefix)
    proxy.away = False
    assert shown(client) == [LOCAL]
    create_storage(client, proxy, prefix)


def test_a_store_that_ignores_conditions_is_refused(client: InProcess, proxy: Proxy, prefix: str) -> None:
    client.run(f"CREATE STORAGE one WITH (URL='s3://{BUCKET}/{prefix}/one', ENDPOINT='{proxy.url}', {KEYS})")
    proxy.ignore_conditions = True
    with pytest.raises(Refused, match="does not support conditional writes"):
        create_storage(client, proxy, prefix + "/two", "two")


def test_names_and_places_are_unique(client: InProcess, proxy: Proxy, prefix: str) -> None:
    create_storage(client, proxy, prefix)
    for name in ("FAR", "local"):
        with pytest.raises(Refused, match="already exists"):
            create_storage(client, proxy, prefix + "x", name)
    for place in (prefix, prefix + "/below"):
        with pytest.raises(Refused, match='overlaps with storage "far"'):
            create_storage(client, proxy, place, "other")
    with pytest.raises(Refused, match="cannot name a storage"):
        create_storage(client, proxy, prefix + "x", "'../x'")
    create_storage(client, proxy, prefix + "x", "other")


def test_a_storage_in_use_is_not_dropped(client: InProcess, s3: S3, proxy: Proxy, prefix: str) -> None:
    create_storage(client, proxy, prefix)
    client.run("CREATE TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID='far')")
    client.run("INSERT INTO t VALUES (1)")
    flush(client)
    with pytest.raises(Refused, match='storage "far" is in use by main.t; drop these tables first'):
        client.run("DROP STORAGE far")
    with pytest.raises(Refused, match="option STORAGE_ID cannot be changed"):
        client.run("ALTER TABLE t SET OPTIONS (STORAGE_ID='local')")
    proxy.away = True
    client.run("DROP TABLE t")
    with pytest.raises(Refused, match="still being removed"):
        client.run("DROP STORAGE far")
    proxy.away = False
    client.run("FLUSH ALL TABLES WAIT")  # after the clean-up that the refusal has asked for again
    client.run("DROP STORAGE far")
    assert shown(client) == [LOCAL] and s3.keys(prefix) == []
    with pytest.raises(Refused, match='storage "far" does not exist'):
        client.run("DROP STORAGE far")


def test_other_keys_and_another_address_of_the_same_place(
    client: InProcess, world: World, s3: S3, proxy: Proxy, prefix: str
) -> None:
    create_storage(client, proxy, prefix)
    client.run("CREATE TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID='far')")
    client.run("INSERT INTO t VALUES (1)")
    proxy.away = True
    with pytest.raises(Refused, match="cannot be reached"):
        client.run("ALTER STORAGE far SET (ENDPOINT='http://127.0.0.1:9')")
    client.run(f"ALTER STORAGE far SET (ENDPOINT='http://{s3.host}:{s3.port}', REGION='eu-west-1')")
    flush(client)
    assert shown(client)[1]["region"] == "eu-west-1"
    world.restart()
    assert rows(world.in_process(), "SELECT * FROM t") == [(1,)]
    for fixed in ("URL='s3://elsewhere'", "TYPE='folder'"):
        with pytest.raises(Refused, match="of a storage cannot be changed"):
            world.in_process().run(f"ALTER STORAGE far SET ({fixed})")


def test_keys_may_come_from_the_environment(
    make_world: MakeWorld, proxy: Proxy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "ACCESS_KEY_ID='env:FLIGHTKALAM_STORAGE_ID', SECRET_ACCESS_KEY='env:FLIGHTKALAM_STORAGE_KEY'"
    monkeypatch.setattr("flightkalam.app.storage_secrets", dict)
    world = make_world("env")
    create = f"CREATE STORAGE far WITH (URL='s3://{BUCKET}/{prefix}', ENDPOINT='{proxy.url}', {keys})"
    with pytest.raises(Refused, match="FLIGHTKALAM_STORAGE_ID, which is not set"):
        world.in_process().run(create)
    given = {"FLIGHTKALAM_STORAGE_ID": "AKIA", "FLIGHTKALAM_STORAGE_KEY": "from-outside"}
    monkeypatch.setattr("flightkalam.app.storage_secrets", lambda: given)
    world.restart()
    client = world.in_process()
    client.run(create)
    client.run("CREATE TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID='far')")
    client.run("INSERT INTO t VALUES (1)")
    flush(client)
    assert shown(client)[1]["credentials"] == "env:FLIGHTKALAM_STORAGE_KEY"
    world.close()
    assert not holding(world.data_dir, b"from-outside")
    monkeypatch.setattr("flightkalam.app.storage_secrets", dict)
    client = world.in_process()
    client.run("CREATE TABLE here (id INT PRIMARY KEY)")  # only the storage's own tables do not work
    with pytest.raises(Refused, match="which is not set"):
        client.run("FLUSH TABLE t WAIT")


def holding(folder: Path, secret: bytes) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and secret in p.read_bytes()]


def test_secrets_are_kept_from_everybody(
    client: InProcess, world: World, proxy: Proxy, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    create_storage(client, proxy, prefix)
    with pytest.raises(Refused) as refused:
        client.run("ALTER STORAGE far SET (SECRET_ACCESS_KEY='hush-hush-2', COLOUR='red')")
    seen = [refused.value.message, capfd.readouterr().err, str(client.run("SHOW STORAGES").rows)]
    for table in ("audit_log", "jobs", "tables"):
        seen.append(str(client.run(f"SELECT * FROM system.{table}").rows.to_pylist()))  # type: ignore[union-attr]
    statement = world.kalam.parts.statements
    seen.append(repr(statement) + str(world.kalam.parts.catalog.state.storages))
    assert not any("hush" in text for text in seen)
    assert (world.data_dir / "store").stat().st_mode & 0o077 == 0, "the file that keeps them is the process's own"
    outside = [p for p in world.data_dir.iterdir() if p.name != "store"]
    assert not any(holding(p, b"hush-hush") for p in outside)


def test_storages_are_for_dba_and_system(client: InProcess, world: World, proxy: Proxy, prefix: str) -> None:
    create_storage(client, proxy, prefix)
    for role in (Role.USER, Role.SERVICE):
        other = world.in_process(role.label, role)
        for statement in ("SHOW STORAGES", "DROP STORAGE far", "DROP STORAGE none", "ALTER STORAGE far SET (REGION='x')"):
            with pytest.raises(Refused) as refused:
                other.run(statement)
            assert refused.value.sqlstate == "42501"
        with pytest.raises(Refused) as refused:
            create_storage(other, proxy, prefix + "y", "mine")
        assert refused.value.sqlstate == "42501"
    world.in_process("dora", Role.DBA).run("DROP STORAGE far")
    audited = rows(client, "SELECT actor_user_id, action, outcome FROM system.audit_log WHERE action LIKE '%STORAGE%'")
    assert ("root", "CREATE STORAGE", "success") in audited and ("dora", "DROP STORAGE", "success") in audited
