"""The commands `jangada gen-secret` and `jangada keys`."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial

import pytest
import typer
from chaos.forkserver import ForkServer
from typer.testing import CliRunner

from jangada.accounts.commands import register
from jangada.config import load_settings
from jangada.local.process import Command
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


type Keys = Callable[..., list[dict[str, str | None]]]


@pytest.fixture
def keys(database_url: str, forks: ForkServer) -> Keys:
    """What `jangada keys …` prints, in a process of its own as an operator runs it."""
    return partial(run_keys, forks, database_url)


def run_keys(forks: ForkServer, database_url: str, *arguments: str) -> list[dict[str, str | None]]:
    command = Command(
        argv=[sys.executable, "-m", "jangada", "keys", *arguments, "--json"],
        environ={
            **os.environ,
            "JANGADA_DATABASE__URL": database_url,
            "JANGADA_AUTH__MASTER_KEY": MASTER_KEY,
            "JANGADA_TELEMETRY__LOG_LEVEL": "DEBUG",
        },
    )
    done = forks.run(command)
    assert done.returncode == 0, done.stderr
    assert MASTER_KEY not in done.stdout + done.stderr
    return list(json.loads(done.stdout))


def test_keys_are_rotated_and_listed(keys: Keys) -> None:
    (first,) = keys("rotate")
    (second,) = keys("rotate")
    assert str(second["signs_from"]) > str(first["signs_from"])
    assert [key["kid"] for key in keys("list")] == [second["kid"], first["kid"]]
    (third,) = keys("rotate", "--discard-old")
    assert keys("list") == [third]
