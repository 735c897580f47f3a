"""Worker processes are forked, told apart, ended and told of. Real processes, see `forks.py`."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

PATIENCE = 60


def play(scene: str) -> Any:  # noqa: ANN401 - the scene's own
    """What the scene answers; the program and its server have ended by themselves."""
    program = [sys.executable, str(Path(__file__).with_name("forks.py")), scene]
    ended = subprocess.run(  # noqa: S603 - our own program
        program, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_children_run_what_was_loaded_and_their_ends_are_told() -> None:
    default = "0 0"  # as SIG_DFL is written
    assert play("words") == [["pod jangada-child", 0], ["", 3], ["", 1], [default, 0]]


def test_children_draw_ids_and_secrets_of_their_own() -> None:
    """A fork copies the state of every generator."""
    drawn = [value for draws in play("draws") for value in draws]
    assert len(set(drawn)) == 9


def test_children_inherit_no_file_but_their_link() -> None:
    """A pipe that a child kept open would never end for who reads from it."""
    standard, link, counting = 3, 1, 1
    assert play("files") == standard + link + counting


def test_a_child_is_killed_and_nobody_else() -> None:
    assert play("kills") == [-SIGKILL, "pod jangada-child", 0]


def test_a_fork_that_the_kernel_refuses_is_an_os_error() -> None:
    assert play("refused") == errno.EAGAIN


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the end of the link ends children")
def test_children_die_with_a_server_that_is_killed() -> None:
    assert play("lost") == [-SIGKILL, ""]
