"""Ctrl-C once, twice, thrice; and ports that are taken."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jangada.config import ApiSettings
from jangada.local.errors import PortInUse
from jangada.local.platforms import Options, WorkerRange
from jangada.local.up import (
    EXIT_INTERRUPTED,
    Interruptions,
    refuse_busy_port,
    refuse_busy_ports,
)

TIMEOUT = 30


class Remembered:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def say(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON
        self.events.append({"event": event, **fields})

    def close(self) -> None:
        pass


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_hurries(first: signal.Signals) -> None:
    output = Remembered()

    async def interrupt() -> None:
        interruptions = Interruptions(output)
        async with asyncio.timeout(TIMEOUT):
            os.kill(os.getpid(), first)
            await interruptions.stop.wait()
            assert not interruptions.hurry.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            await interruptions.hurry.wait()

    asyncio.run(interrupt())
    assert output.events == [{"event": "stopping", "reason": first.name}, {"event": "hurrying"}]


STUCK = """
import asyncio, os, signal
from jangada.local.output import JsonOutput
from jangada.local.up import Interruptions

async def main():
    Interruptions(JsonOutput())
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_third_signal_ends_it_at_once() -> None:
    answer = subprocess.run(  # noqa: S603 - the program above
        [sys.executable, "-c", STUCK], check=False, timeout=TIMEOUT, stdout=subprocess.DEVNULL
    )
    assert answer.returncode == EXIT_INTERRUPTED


IGNORING = """
import asyncio, os, signal
from jangada.local.output import JsonOutput
from jangada.local.up import Interruptions

async def main():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruptions = Interruptions(JsonOutput())
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    await interruptions.stop.wait()
    raise SystemExit(interruptions.hurry.is_set())

asyncio.run(main())
"""


def test_a_hang_up_that_was_to_be_ignored_is() -> None:
    answer = subprocess.run(  # noqa: S603 - the program above
        [sys.executable, "-c", IGNORING], check=False, timeout=TIMEOUT, stdout=subprocess.DEVNULL
    )
    assert answer.returncode == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_port_in_use_is_refused_by_its_number(host: str) -> None:
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    try:
        listening = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"{host} is not to be had here: {error}")
    with listening:
        port = listening.getsockname()[1]
        with pytest.raises(PortInUse, match=f"Port {port} on {host}.*by --port"):
            refuse_busy_port(host, port, "--port")
    refuse_busy_port(host, port, "--port")
    refuse_busy_port(host, 0, "--port")


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    """Before the folder's servers are started, which would be for nothing."""
    same = Options(
        data_dir=tmp_path,
        port=8000,
        management_port=8000,
        workers=WorkerRange(0, 4),
        fresh=False,
    )
    with pytest.raises(PortInUse, match="--port and --management-port"):
        refuse_busy_ports(same, ApiSettings())
    free = replace(same, port=0, management_port=0)
    refuse_busy_ports(free, ApiSettings())
