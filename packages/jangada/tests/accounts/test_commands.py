"""The commands `jangada gen-secret` and `jangada keys`."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from jangada.accounts.commands import register
from jangada.config import load_settings
from jangada.testing import MASTER_KEY


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_a_secret_is_64_bytes_that_differ_and_serve(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = [CliRunner().invoke(app, ["gen-secret"]).stdout.strip() for _ in range(5)]
    assert len(set(secrets)) == 5
    assert {len(secret.encode()) for secret in secrets} == {64}
    monkeypatch.setenv("JANGADA_AUTH__MASTER_KEY", secrets[0])
    assert load_settings().auth.master_key


def keys(database_url: str, *arguments: str) -> list[dict[str, str | None]]:
    """What `jangada keys …` prints, in a process of its own as an operator runs it."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "jangada", "keys", *arguments, "--json"],
        env={
            "JANGADA_DATABASE__URL": database_url,
            "JANGADA_AUTH__MASTER_KEY": MASTER_KEY,
            "JANGADA_TELEMETRY__LOG_LEVEL": "DEBUG",
        },
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert MASTER_KEY not in done.stdout + done.stderr
    return list(json.loads(done.stdout))


def test_keys_are_rotated_and_listed(database_url: str) -> None:
    (first,) = keys(database_url, "rotate")
    (second,) = keys(database_url, "rotate")
    assert str(second["signs_from"]) > str(first["signs_from"])
    assert [key["kid"] for key in keys(database_url, "list")] == [second["kid"], first["kid"]]
    (third,) = keys(database_url, "rotate", "--discard-old")
    assert keys(database_url, "list") == [third]
