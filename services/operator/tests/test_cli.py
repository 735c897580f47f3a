"""The program itself, apart from its commands."""

from importlib.metadata import version

from typer.testing import CliRunner

from jangada_operator.cli import build


def test_it_tells_its_version() -> None:
    told = CliRunner().invoke(build(), ["--version"])
    assert (told.exit_code, told.output) == (0, f"jangada-operator {version('jangada-operator')}\n")


def test_without_a_command_it_helps() -> None:
    assert "Worker pools that follow their queues." in CliRunner().invoke(build(), []).output
