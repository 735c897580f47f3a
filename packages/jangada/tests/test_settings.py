import os
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from jangada.config import Environment, Settings, known_keys, load_settings, unknown_keys
from jangada.environment import Duration, InvalidSettings

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


def setenv(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for key, value in values.items():
        monkeypatch.setenv(f"JANGADA_{key}", value)


def test_nothing_set_gives_the_defaults() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.environment is Environment.PRODUCTION


def test_sections_nest_with_two_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, API__PORT="8123", AUTH__HASH__WORKERS="3", ENVIRONMENT="development")
    settings = load_settings()
    assert (settings.api.port, settings.auth.hash.workers) == (8123, 3)
    assert settings.environment is Environment.DEVELOPMENT


def test_one_key_of_a_section_leaves_the_others_at_their_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setenv(monkeypatch, JOBS__BEAT_INTERVAL="500ms")
    assert load_settings().jobs.worker_timeout == timedelta(seconds=10)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30", 30),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("30s", 30),
        ("15m", 900),
        ("1h", 3600),
        ("7d", 604_800),
        ("PT2M", 120),
        ("1.5 h", 5400),
    ],
)
def test_a_duration_is_written_as_people_write_it(written: str, seconds: float) -> None:
    assert DURATION.validate_python(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "soon", "-5", "0", "0s", "5 parsecs", "s"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        DURATION.validate_python(written)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = "10.0.0.0/8, 2001:db8::/32"
    setenv(monkeypatch, WORKER__QUEUES="imports, default", API__TRUSTED_PROXIES=networks)
    settings = load_settings()
    assert settings.worker.queues == ["imports", "default"]
    assert settings.api.trusted_proxies == [ip_network(each) for each in networks.split(", ")]


def test_options_of_the_object_store_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, STORAGE__OPTIONS='{"region": "sa-east-1"}')
    assert load_settings().storage.options == {"region": "sa-east-1"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("API__PORT", "eighty"),
        ("API__PORT", "70000"),
        ("DATABASE__URL", "mysql://somewhere"),
        ("DATABASE__DIRECT_URL", "http://somewhere"),
        ("VALKEY__URL", "memcached://somewhere"),
        ("AUTH__MASTER_KEY", "too short"),
        ("CONTACTS__DEFAULT_REGION", "Brazil"),
        ("JOBS__BEAT_INTERVAL", "often"),
        ("TELEMETRY__LOG_LEVEL", "LOUD"),
        ("ENVIRONMENT", "staging"),
    ],
)
def test_a_wrong_value_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    setenv(monkeypatch, **{key: value})
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    assert [fault.pointer for fault in raised.value.errors] == [f"JANGADA_{key}"]
    assert f"JANGADA_{key}" in raised.value.detail


@pytest.mark.parametrize("key", ["DATABASE__URL", "VALKEY__URL", "AUTH__MASTER_KEY"])
def test_a_wrong_value_is_never_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    setenv(monkeypatch, **{key: "canary-secret"})
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    assert "canary" not in f"{raised.value!r} {raised.value.errors}"
    assert raised.value.__cause__ is None


def test_secrets_do_not_appear_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, AUTH__MASTER_KEY="canary-" * 6, DATABASE__URL="postgresql://u:canary@h/d")
    settings = load_settings()
    assert "canary" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_every_wrong_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, API__PORT="eighty", WORKER__SLOTS="many")
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    pointers = {fault.pointer for fault in raised.value.errors}
    assert pointers == {"JANGADA_API__PORT", "JANGADA_WORKER__SLOTS"}


def test_an_unknown_key_inside_a_section_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, API__PROT="8000")
    with pytest.raises(InvalidSettings, match="did you mean JANGADA_API__PORT"):
        load_settings()


def test_an_unknown_key_like_no_other_is_just_named(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, API__ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ="1")
    with pytest.raises(InvalidSettings, match=r"ZZZ: no such setting$"):
        load_settings()


def test_an_unknown_key_outside_the_sections_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes injects `JANGADA_PORT=tcp://…` for a Service named jangada."""
    setenv(monkeypatch, PORT="tcp://10.0.0.1:80", ENVIRONMNT="x", TOKEN="a token")
    assert load_settings() == Settings()
    found = dict(unknown_keys(os.environ))
    assert found["JANGADA_ENVIRONMNT"] == "JANGADA_ENVIRONMENT"
    assert "JANGADA_PORT" in found
    assert "JANGADA_TOKEN" not in found


def test_known_keys_and_their_files_are_not_unknown() -> None:
    environ = dict.fromkeys(known_keys(), "") | {f"{key}_FILE": "" for key in known_keys()}
    assert list(unknown_keys(environ | {"JANGADA_DATABASE": "{}", "PATH": ""})) == []


def test_a_section_as_a_whole_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, API='{"port": 8001}')
    assert load_settings().api.port == 8001


def test_a_section_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, API="port=8001")
    with pytest.raises(InvalidSettings, match="JANGADA_API: a section given as a whole"):
        load_settings()


def test_a_value_is_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line break that editors put at the end is no part of the secret."""
    secret = tmp_path / "key"
    secret.write_text("k" * 32 + "\n", encoding="utf-8")
    setenv(monkeypatch, AUTH__MASTER_KEY_FILE=str(secret))
    key = load_settings().auth.master_key
    assert key is not None
    assert key.get_secret_value() == "k" * 32


def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setenv(monkeypatch, AUTH__MASTER_KEY_FILE=str(tmp_path / "absent"))
    with pytest.raises(InvalidSettings, match="JANGADA_AUTH__MASTER_KEY_FILE: cannot be read"):
        load_settings()


def test_a_file_that_is_not_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    setenv(monkeypatch, AUTH__MASTER_KEY_FILE=str(tmp_path / "key"))
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_settings()


def test_a_value_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setenv(monkeypatch, AUTH__MASTER_KEY="k" * 32, AUTH__MASTER_KEY_FILE=str(tmp_path / "key"))
    with pytest.raises(InvalidSettings, match="both set"):
        load_settings()


def test_sessions_go_to_the_direct_url_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, DATABASE__URL="postgresql://pooler/jangada")
    assert load_settings().database.session_url.get_secret_value() == "postgresql://pooler/jangada"
    setenv(monkeypatch, DATABASE__DIRECT_URL="postgresql://server/jangada")
    assert load_settings().database.session_url.get_secret_value() == "postgresql://server/jangada"
