"""The program itself, apart from its commands."""

from importlib.metadata import version

from typer.testing import CliRunner

from jangada.cli import build


def test_it_tells_its_version() -> None:
    told = CliRunner().invoke(build("--version"), ["--version"])
    assert (told.exit_code, told.output) == (0, f"jangada {version('jangada')}\n")


def test_without_a_command_it_helps() -> None:
    assert "--version" in CliRunner().invoke(build(), []).output
