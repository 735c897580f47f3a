"""Settings as an attacker or a tired operator sets them, and what `jangada config` says of it.

How each kind of value is written is in test_settings.py.
"""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from jangada.config import Settings, known_keys, load_settings, unknown_keys
from jangada.environment import Duration, InvalidSettings, keys_of
from jangada.jobs_settings import JobsSettings
from jangada.runtime import derived_key, master_key
from jangada.starting import start

CANARY = "canary-4b1d"
DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)

type Program = Callable[..., Any]


def setenv(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for key, value in values.items():
        monkeypatch.setenv(f"JANGADA_{key}", value)


def refusal() -> InvalidSettings:
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    return raised.value


def told(error: BaseException) -> str:
    """Everything that a log or a terminal could show of it."""
    return "".join(traceback.format_exception(error)) + repr(error.__dict__)


WRONG = {
    "DATABASE__URL": [
        f"postgresql://u:{CANARY}@h:{CANARY}/d",
        f"postgresql://u@h1:5432,h2:{CANARY}/d",
        f"postgresql://u:{CANARY}@h/d?{CANARY}=1",
        f"postgresql://[{CANARY}",
        f"postgresql://u:%zz{CANARY}@h/d",
        f"host=h password={CANARY}",
    ],
    "DATABASE__DIRECT_URL": [f"postgresql://u:{CANARY}@h/d?sslmode=x&{CANARY}", ""],
    "DATABASE__POOL_SIZE": [CANARY, "0", "1.5", ""],
    "DATABASE__STATEMENT_TIMEOUT": [f"5 {CANARY}", "1_0s", "²s", "9" * 400 + "d", "-1s", "NaN"],
    "DATABASE__TRANSACTION_POOLING": ["yes please", "true"],
    "VALKEY__URL": [f"redis://:{CANARY}@h:{CANARY}/0", f"redis://h/0?socket_timeout={CANARY}"],
    "AUTH__MASTER_KEY": [CANARY, "é" * 15],
    "AUTH__ALGORITHM": [CANARY, "none", "HS256"],
    "AUTH__PASSWORD": [CANARY, "[]"],
    "API__TRUSTED_PROXIES": [f"10.0.0.0/8,{CANARY}", "10.0.0.1/8", f'["{CANARY}"', "[1, 2"],
    "STORAGE__URL": [CANARY, f"ftp://{CANARY}", "", "/var/files"],
    "CONTACTS__DEFAULT_REGION": [CANARY, "XX", "br", ""],
    "TELEMETRY__OTLP_ENDPOINT": [CANARY, f"grpc://{CANARY}", "http://", ""],
    "STORAGE__OPTIONS": [CANARY, f'{{"secret_access_key": ["{CANARY}"]}}', "[]"],
    "MAIL__URL": [
        "",
        CANARY,
        f"http://{CANARY}",
        f"smtp://u:{CANARY}@h:{CANARY}",
        f"smtp://u:{CANARY}@h:0",
        f"smtp://u:{CANARY}@h:65536",
        f"smtp://u:{CANARY}@",
        f"smtp://u:{CANARY}@h/path",
        f"smtp://u:{CANARY}@h?query",
        f"smtp://u:{CANARY}@h#1",
        f"smtp://u:{CANARY}@h..example",
        f"smtp://u:{CANARY}@[h",
        f"smtp://u:{CANARY}@h\u2100.example",
        f"smtp://u:{CANARY}\n@h",
        f"smtp://u:{CANARY}%0a@h",
        f"smtp://u:{CANARY} @h",
        f"smtp://{CANARY}@h",
        f"smtps://:{CANARY}@h",
    ],
    "MAIL__SENDER": ["", CANARY, f"{CANARY}@", f"a@b, {CANARY}@h.example", f"{CANARY}\n <a@b.co>"],
    "MAIL__STARTTLS": [CANARY, "true"],
    "MAIL__TIMEOUT": [CANARY, "0"],
    "JOBS__WORKER_TIMEOUT": ["8s"],
    "DATABASE__LOCK_TIMEOUT": ["2s", "4s"],
    "ENVIRONMENT": [CANARY],
}
CASES = [(key, value) for key, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_a_wrong_value_is_named_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    setenv(monkeypatch, **{key: value})
    error = refusal()
    assert [fault.pointer for fault in error.errors] == [f"JANGADA_{key}"]
    assert f"JANGADA_{key}: " in error.detail
    assert CANARY not in told(error)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_whatever_is_no_duration_is_refused_without_a_crash(written: str) -> None:
    try:
        found = DURATION.validate_python(written)
    except ValidationError:
        return
    assert found > timedelta(0)


def test_a_secret_given_as_the_files_path_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, DATABASE__URL_FILE=f"postgresql://u:{CANARY}@h/d")
    error = refusal()
    assert error.detail == ("JANGADA_DATABASE__URL_FILE: cannot be read: No such file or directory")
    assert CANARY not in repr(error.errors) + error.detail


def test_a_secret_in_a_file_that_is_wrong_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text(CANARY)
    (tmp_path / "b").write_bytes(CANARY.encode() + b"\xff")
    setenv(
        monkeypatch,
        DATABASE__URL_FILE=str(tmp_path / "a"),
        AUTH__MASTER_KEY=CANARY,
    )
    assert CANARY not in told(refusal())
    setenv(monkeypatch, VALKEY__URL_FILE=str(tmp_path / "b"))
    error = refusal()
    assert CANARY not in error.detail
    assert "is not UTF-8" in error.detail


def test_every_unreadable_file_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "long").write_bytes(b"x" * (1024 * 1024 + 1))
    setenv(
        monkeypatch,
        DATABASE__URL_FILE=str(tmp_path),
        AUTH__MASTER_KEY_FILE=str(tmp_path / "long"),
        VALKEY__URL_FILE="",
        API__HOST="::",
        API__HOST_FILE=str(tmp_path / "host"),
    )
    assert sorted(fault.pointer for fault in refusal().errors) == [
        "JANGADA_API__HOST",
        "JANGADA_AUTH__MASTER_KEY_FILE",
        "JANGADA_DATABASE__URL_FILE",
        "JANGADA_VALKEY__URL_FILE",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_somebody_else_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("k" * 32)
    secret.chmod(0)
    setenv(monkeypatch, AUTH__MASTER_KEY_FILE=str(secret))
    assert "Permission denied" in refusal().detail


def test_a_file_keeps_its_inner_breaks_and_spaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(b" a\nb " * 8 + b"\r\n")
    setenv(monkeypatch, AUTH__MASTER_KEY_FILE=str(tmp_path / "key"))
    assert master_key(load_settings()) == b" a\nb " * 8


def test_an_unknown_key_is_refused_at_any_depth_and_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setenv(
        monkeypatch,
        AUTH__PASSWORD__MIN_LENGHT=CANARY,
        DATABASE__POOLSIZE=CANARY,
        VALKEY__PASSWORD_FILE=str(tmp_path / CANARY),
        API='{"hots": "canary-4b1d"}',
    )
    error = refusal()
    found = {fault.pointer: fault.detail for fault in error.errors}
    assert found["JANGADA_AUTH__PASSWORD__MIN_LENGHT"] == (
        "no such setting; did you mean JANGADA_AUTH__PASSWORD__MIN_LENGTH?"
    )
    assert found["JANGADA_DATABASE__POOLSIZE"].endswith("JANGADA_DATABASE__POOL_SIZE?")
    assert found["JANGADA_API__HOTS"].endswith("JANGADA_API__HOST?")
    assert "JANGADA_VALKEY__PASSWORD_FILE" in found
    assert CANARY not in error.detail


def test_a_variable_in_small_letters_is_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("jangada_api__port", "1")
    monkeypatch.setenv("JANGADA_Api__Port", "2")
    assert load_settings().api.port == Settings().api.port == 8000


KUBERNETES = {
    "JANGADA_PORT": "tcp://10.0.0.1:80",
    "JANGADA_SERVICE_HOST": "10.0.0.1",
    "JANGADA_API_PORT": "tcp://10.0.0.1:80",
    "JANGADA_API_PORT_80_TCP_ADDR": "10.0.0.1",
    "JANGADA_API_SERVICE_PORT_HTTP": "80",
    "JANGADA_DATABASE_PORT": "tcp://10.0.0.2:5432",
    "JANGADA_VALKEY_SERVICE_HOST": "10.0.0.3",
}
"""What a pod's environment holds beside Services jangada, jangada-api, jangada-database, …"""


def test_what_kubernetes_injects_is_warned_of_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kept_logging: None,
) -> None:
    for key, value in KUBERNETES.items():
        monkeypatch.setenv(key, value)
    setenv(monkeypatch, TELEMETRY__LOG_FORMAT="json")
    assert start("test").api.port == 8000
    warned = [line for line in capsys.readouterr().err.splitlines() if '"warning"' in line]
    assert len(warned) == len(KUBERNETES)
    assert all(any(f'"{key}"' in line for line in warned) for key in KUBERNETES)
    assert "10.0.0" not in "".join(warned)


def test_nothing_is_warned_of_where_all_is_known(
    capsys: pytest.CaptureFixture[str], kept_logging: None
) -> None:
    start("test")
    assert capsys.readouterr().err == ""


def test_every_section_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, AUTH__HASH=CANARY, API="{", VALKEY="{}")
    assert {fault.pointer for fault in refusal().errors} == {"JANGADA_AUTH__HASH", "JANGADA_API"}


def test_a_slip_beside_the_sections_finds_its_nearest_name() -> None:
    found = dict(unknown_keys({"JANGADA_DATABSE__URL": "x", "JANGADA_ENVIRONMENT__X": "y"}))
    assert found == {
        "JANGADA_DATABSE__URL": "JANGADA_DATABASE__URL",
        "JANGADA_ENVIRONMENT__X": "JANGADA_ENVIRONMENT",
    }


@pytest.mark.parametrize(
    "written", ["imports,default", " imports , default ", '["imports", "default"]']
)
def test_lists_are_written_with_commas_or_as_json(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    setenv(monkeypatch, WORKER__QUEUES=written)
    assert load_settings().worker.queues == ["imports", "default"]


def test_a_pooler_needs_a_way_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, DATABASE__TRANSACTION_POOLING="true")
    assert "JANGADA_DATABASE__DIRECT_URL" in refusal().detail
    setenv(monkeypatch, DATABASE__DIRECT_URL="postgresql://u@h/d")
    assert load_settings().database.transaction_pooling


@pytest.mark.parametrize(
    "url",
    [
        "smtp://h",
        "smtps://mail.example.com:465/",
        "smtp://u:p%40%2F%3A@[::1]:25",
        "smtp://bücher.de",
    ],
)
def test_a_mail_server_is_named_by_a_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    setenv(monkeypatch, MAIL__URL=url, MAIL__SENDER="Shop, Ltd. <no-reply@shop.example>")
    found = load_settings().mail.url
    assert found is not None
    assert found.get_secret_value() == url


def test_a_password_is_not_trusted_to_whoever_hides_the_encryption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setenv(monkeypatch, MAIL__STARTTLS="optional", MAIL__URL="smtp://h")
    assert load_settings().mail.starttls == "optional"
    setenv(monkeypatch, MAIL__URL=f"smtp://u:{CANARY}@h")
    error = refusal()
    assert [fault.pointer for fault in error.errors] == ["JANGADA_MAIL__STARTTLS"]
    assert CANARY not in told(error)


def test_a_worker_may_miss_two_beats() -> None:
    settings = {"beat_interval": "1s", "worker_timeout": "3s"}
    assert JobsSettings.model_validate(settings).worker_timeout == timedelta(seconds=3)
    with pytest.raises(ValidationError):
        JobsSettings.model_validate(settings | {"worker_timeout": "2.9s"})


SECRETS = {
    "DATABASE__URL": f"postgresql://u:{CANARY}@h/d",
    "DATABASE__DIRECT_URL": f"postgresql://u:{CANARY}@h/d",
    "VALKEY__URL": f"redis://:{CANARY}@h/0",
    "AUTH__MASTER_KEY": CANARY * 4,
    "MAIL__URL": f"smtp://u:{CANARY}@h",
    "STORAGE__OPTIONS": f'{{"secret_access_key": "{CANARY}"}}',
}


SHARED_FILES = {"STORAGE__URL": "file:///srv/files"}


def test_no_secret_is_printed_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, **SECRETS)
    settings = load_settings()
    sections = [settings.database, settings.valkey, settings.auth, settings.mail]
    parts = [settings, *sections, settings.storage]
    assert CANARY not in "".join(f"{part!r} {part} {vars(part)!r}" for part in parts[:-1])
    assert CANARY not in f"{settings.storage!r} {settings.storage}"


def test_every_setting_and_every_section_says_what_it_is() -> None:
    def undescribed(model: type[BaseModel]) -> list[str]:
        faults = [] if model.__doc__ else [model.__qualname__]
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                faults += undescribed(field.annotation)
            elif len(field.description or "") < 10:
                faults.append(f"{model.__qualname__}.{name}")
        return faults

    assert undescribed(Settings) == []
    assert list(keys_of(Settings)) == known_keys()


def test_keys_for_different_purposes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, AUTH__MASTER_KEY="k" * 32)
    settings = load_settings()
    keys = {derived_key(settings, purpose) for purpose in ("cursor", "cursors", "tokens", "")}
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 4


def test_a_missing_master_key_is_named() -> None:
    with pytest.raises(InvalidSettings, match="JANGADA_AUTH__MASTER_KEY: is not set"):
        master_key(Settings())


def test_config_check_accepts_and_refuses(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(monkeypatch, **SECRETS, **SHARED_FILES)
    assert program("config", "check").out == "The settings are valid.\n"
    setenv(monkeypatch, API__PORT="eighty", API__PROT=CANARY)
    ended = program("config", "check")
    assert (ended.code, ended.out) == (1, "")
    assert "JANGADA_API__PORT: " in ended.err
    assert "did you mean JANGADA_API__PORT?" in ended.err
    assert CANARY not in ended.err
    assert "Traceback" not in ended.err


def test_config_check_names_all_that_a_service_would_not_start_with(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = program("config", "check")
    assert (ended.code, ended.out) == (1, "")
    assert "JANGADA_AUTH__MASTER_KEY: is not set" in ended.err
    assert "JANGADA_STORAGE__URL: is a relative path" in ended.err
    setenv(monkeypatch, ENVIRONMENT="development", AUTH__MASTER_KEY="k" * 32)
    assert program("config", "check").code == 0
    setenv(monkeypatch, STORAGE__URL="s3://bucket", STORAGE__OPTIONS='{"regoin": "eu"}')
    assert "JANGADA_STORAGE__URL: the store or an option" in program("config", "check").err


def test_config_check_minds_unknown_names_only_when_strict(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(monkeypatch, **SECRETS, **SHARED_FILES)
    setenv(monkeypatch, PORT="tcp://10.0.0.1:80", ENVIROMENT="production", TOKEN="a token")
    lenient, strict = program("config", "check"), program("config", "check", "--strict")
    assert (lenient.code, strict.code) == (0, 1)
    expected = "JANGADA_ENVIROMENT: no such setting; did you mean JANGADA_ENVIRONMENT?\n"
    assert expected in lenient.err
    assert lenient.err == strict.err
    assert "JANGADA_TOKEN" not in lenient.err


def test_config_check_strict_is_content_with_known_names(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(monkeypatch, **SECRETS, **SHARED_FILES)
    assert program("config", "check", "--strict").code == 0


def test_every_command_explains_itself(program: Program) -> None:
    listed = program("--help")
    assert listed.code == 0
    for command in (["config"], ["config", "check"], ["migrate"], ["jobs"], ["jobs", "list"]):
        ended = program(*command, "--help")
        assert ended.code == 0
        assert command[0] in listed.out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["config", "check", "--nonsense"], ["jobs", "show", "x"]]
)
def test_a_wrong_call_is_told_apart_from_a_failure(program: Program, arguments: list[str]) -> None:
    assert program(*arguments).code == 2


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A distribution whose commands need what isn't there, or end badly."""
    folder = tmp_path / "planted-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[jangada.commands]\nneedy = planted_needy:register\nsorry = planted_sorry:register\n"
    )
    (tmp_path / "planted_needy.py").write_text("import a_package_that_is_absent\n")
    (tmp_path / "planted_sorry.py").write_text(
        "from jangada.errors import Conflict, Unavailable\n"
        "def register(app):\n"
        "    @app.command('sorry')\n"
        "    def sorry(away: bool = False):\n"
        "        cause = ConnectionError(111, 'Connection refused')\n"
        "        raise (Unavailable('Away.') if away else Conflict('No [b]way[/b].')) from cause\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_command_without_its_packages_breaks_no_other(program: Program, planted: None) -> None:
    listed = program("--help")
    assert listed.code == 0
    assert "needy" not in listed.out
    assert "migrate" in listed.out
    ended = program("needy")
    assert ended.code == 1
    assert "needs the package a_package_that_is_absent" in ended.err


def test_an_expected_error_is_a_line_and_an_exit_code(program: Program, planted: None) -> None:
    ended = program("sorry")
    assert (ended.code, ended.err) == (1, "jangada: No [b]way[/b].\n")
    away = program("sorry", "--away")
    assert away.code == 69
    assert away.err.startswith("jangada: Away. (ConnectionError: [Errno 111]")


def test_a_file_fits_into_the_parts_of_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, STORAGE__MAX_UPLOAD_BYTES="52428800001", STORAGE__URL="file:///srv/files")
    assert load_settings().storage.max_upload_bytes == 52_428_800_001
    setenv(monkeypatch, STORAGE__URL="s3://bucket")
    assert "must be at most 52428800000 in an object store" in str(refusal())
    setenv(monkeypatch, STORAGE__MAX_UPLOAD_BYTES="52428800000")
    assert load_settings().storage.max_upload_bytes == 52_428_800_000
