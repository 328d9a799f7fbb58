"""Settings: where they come from, what is refused, and that the documentation says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightkalam.config import KEYS, Config, configuration_markdown, is_loopback
from flightkalam.errors import ConfigError

ROOT = Path(__file__).parents[2]


def toml(folder: Path, text: str) -> Path:
    path = folder / "kalam.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None = None, overrides: dict[str, object] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.load(path, overrides, environ)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return caught.value.message


# -- precedence ------------------------------------------------------------------------------------------------


def test_without_any_source_the_defaults_hold() -> None:
    config = Config.load(None, {}, {})
    assert config == Config()
    assert (config.server.host, config.server.port, config.server.node_id) == ("127.0.0.1", 31337, "node-0")
    assert config.flush.check_interval_seconds == 10
    assert config.compaction.enabled is True
    assert config.auth.root_password is None


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = toml(tmp_path, '[server]\nport = 1\nnode_id = "file"\ndata_dir = "f"\n')
    environ = {"FLIGHTKALAM__SERVER__PORT": "2", "FLIGHTKALAM__SERVER__NODE_ID": "environment"}
    server = Config.load(path, {"server.port": 3}, environ).server
    assert (server.port, server.node_id, server.data_dir, server.host) == (3, "environment", Path("f"), "127.0.0.1")


def test_an_option_that_was_not_given_on_the_command_line_overrides_nothing() -> None:
    assert Config.load(None, {"server.port": None}, {"FLIGHTKALAM__SERVER__PORT": "2"}).server.port == 2


def test_nothing_but_load_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIGHTKALAM__SERVER__PORT", "2")
    assert Config().server.port == 31337
    assert Config.load().server.port == 2


def test_other_variables_are_none_of_our_business() -> None:
    # Orchestrators set FLIGHTKALAM_PORT and the like for a service of that name.
    assert Config.load(None, {}, {"FLIGHTKALAM_PORT": "tcp://10.0.0.1:80", "PATH": "/bin"}) == Config()


def test_a_text_that_looks_like_something_else_stays_a_text() -> None:
    environ = {"FLIGHTKALAM__AUTH__ROOT_PASSWORD": '{"a": 12}', "FLIGHTKALAM__SERVER__NODE_ID": "null"}
    config = Config.load(None, {}, environ)
    assert config.auth.root_password is not None
    assert config.auth.root_password.get_secret_value() == '{"a": 12}'
    assert config.server.node_id == "null"


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().server.port = 1  # type: ignore[misc]


# -- unknown keys ----------------------------------------------------------------------------------------------


def test_an_unknown_key_names_itself_its_source_and_the_nearest_key(tmp_path: Path) -> None:
    path = toml(tmp_path, "[server]\nprot = 1\n")
    text = refusal(path, {"flush.check_intervall_seconds": 5}, FLIGHTKALAM__COMPACTION__ENABLE="true")
    assert f"server.prot (file {path}) is not a known key; the nearest is server.port" in text
    assert "flush.check_intervall_seconds (command line)" in text
    assert "the nearest is flush.check_interval_seconds" in text
    assert "compaction.enable (environment FLIGHTKALAM__COMPACTION__ENABLE)" in text
    assert "the nearest is compaction.enabled" in text


@pytest.mark.parametrize("text", ["port = 1", "[servr]\nport = 1", "[quite_else]", "server = 3", "[server.port]\nx = 1"])
def test_a_key_outside_its_section_is_unknown(tmp_path: Path, text: str) -> None:
    assert "not a" in refusal(toml(tmp_path, text))


def test_a_whole_section_is_not_a_variable() -> None:
    assert "is a section" in refusal(FLIGHTKALAM__SERVER='{"port": 1}')


# -- bad values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("server.port", 65_536, "an integer from 0 to 65,535"),
        ("server.port", -1, "an integer from 0 to 65,535"),
        ("server.port", "http", "an integer from 0 to 65,535"),
        ("server.port", True, "an integer from 0 to 65,535"),
        ("server.data_dir", "", "a path"),
        ("server.public_location", "http://x", "grpc+tls://"),
        ("storage.durability", "maybe", "one of sync, async"),
        ("storage.hot_stage_bytes", "1 parsec", "a size from 64 KiB to 1 GiB"),
        ("engine.memory_limit", "0%", "a share"),
        ("engine.memory_limit", "101%", "a share"),
        ("engine.memory_limit", "63 MiB", "a size of at least 64 MiB"),
        ("engine.time_zone", "../../etc/passwd", "IANA"),
        ("engine.time_zone", "Mars/Olympus", "IANA"),
        ("flush.row_group_rows", 1_023, "an integer from 1,024 to 131,072"),
        ("flush.row_group_rows", 131_073, "an integer from 1,024 to 131,072"),
        ("flush.compression", "brotli", "one of zstd, lz4, snappy, none"),
        ("compaction.enabled", "perhaps", "true or false"),
        ("log.level", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_bad_value_names_key_source_and_what_is_allowed(key: str, value: object, allowed: str) -> None:
    text = refusal(None, {key: value})
    assert f"{key} = {str(value)!r} (command line)" in text
    assert allowed in text


def test_one_start_finds_all_mistakes(tmp_path: Path) -> None:
    text = refusal(toml(tmp_path, "[log]\nlevel = 'x'\nformt = 'json'\n"), {"server.port": -1})
    assert text.count("\n  - ") == 3


@pytest.mark.parametrize("password", ["hush", "", "x" * 1_025])
def test_a_bad_password_is_refused_and_not_shown(password: str) -> None:
    text = refusal(FLIGHTKALAM__AUTH__ROOT_PASSWORD=password)
    assert "auth.root_password (environment FLIGHTKALAM__AUTH__ROOT_PASSWORD)" in text
    assert "8 to 1,024 bytes" in text
    assert not password or password not in text


def test_a_password_is_counted_in_bytes() -> None:
    assert Config.load(None, {"auth.root_password": "ääää"}, {}).auth.root_password is not None


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml cannot be read" in refusal(tmp_path / "nowhere.toml")
    text = refusal(toml(tmp_path, "[auth]\nroot_password = correct horse\n"))
    assert "is not TOML" in text and "line 2" in text and "horse" not in text
    (tmp_path / "kalam.toml").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refusal(tmp_path / "kalam.toml")


# -- rules between keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "db.example.org"])
def test_plain_text_beyond_loopback_must_be_asked_for(host: str) -> None:
    text = refusal(None, {"server.host": host})
    assert "server.plain_text_beyond_loopback" in text and "tls_cert" in text
    assert Config.load(None, {"server.host": host, "server.plain_text_beyond_loopback": True}, {}).server.host == host
    tls = {"server.host": host, "server.tls_cert": "c.pem", "server.tls_key": "k.pem"}
    assert Config.load(None, tls, {}).server.tls


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert is_loopback(host)
    assert Config.load(None, {"server.host": host}, {}).server.host == host


@pytest.mark.parametrize("keys", [["tls_cert"], ["tls_key"], ["tls_client_ca"]])
def test_half_of_tls_is_refused(keys: list[str]) -> None:
    assert "server.tls_" in refusal(None, {f"server.{key}": "x.pem" for key in keys})


# -- values ----------------------------------------------------------------------------------------------------


def test_sizes_are_numbers_or_texts(tmp_path: Path) -> None:
    path = toml(tmp_path, "[manifest]\nkey_cache_bytes = 1048576\n[engine]\nmax_batch_bytes = '1 MiB'\n")
    config = Config.load(path, {}, {})
    assert config.manifest.key_cache_bytes == config.engine.max_batch_bytes == 1 << 20


@pytest.mark.parametrize(
    ("limit", "expected"), [("60%", 6 << 30), ("100 %", 10 << 30), ("2 GiB", 2 << 30), ("104857600", 100 << 20)]
)
def test_the_memory_limit_is_a_share_or_a_size(limit: str, expected: int) -> None:
    assert Config.load(None, {"engine.memory_limit": limit}, {}).engine.memory_bytes(10 << 30) == expected


def test_the_home_directory_is_expanded() -> None:
    assert Config.load(None, {"server.data_dir": "~/data"}, {}).server.data_dir == Path.home() / "data"


# -- secrets and documentation ---------------------------------------------------------------------------------


def test_secrets_are_never_printed() -> None:
    config = Config.load(None, {"auth.root_password": "correct horse"}, {})
    for text in (repr(config), str(config), config.model_dump_json(), str(config.shown())):
        assert "horse" not in text
    assert config.shown()["auth.root_password"] == "********"
    assert config.shown()["server.port"] == "31337"


def test_every_key_has_a_reason_and_every_number_a_unit() -> None:
    assert all(key.reason.endswith(".") and key.allowed for key in KEYS.values())
    without = {"server.port", "http.port"}  # a port is a number of nothing
    numbers = {k.name for k in KEYS.values() if k.allowed.startswith(("an integer", "a size"))}
    assert {name for name in numbers if not KEYS[name].unit} == without


def test_the_keys_that_users_rely_on_keep_their_names() -> None:
    assert {"auth.root_password", "flush.check_interval_seconds", "compaction.enabled", "server.node_id"} <= set(KEYS)
    assert KEYS["server.node_id"].env == "FLIGHTKALAM__SERVER__NODE_ID"


def test_the_documentation_is_the_one_generated_from_the_code() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == configuration_markdown(), "run `python -m flightkalam.config`"
