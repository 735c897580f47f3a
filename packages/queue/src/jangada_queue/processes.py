"""Processes as the operating system sees them, for those who speak for others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path


async def whole_lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What another process says, line by line, until it is gone.

    One that is killed in the middle of a line has not said it.
    """
    while (line := await reader.readline()).endswith(b"\n"):
        yield line


def is_stopped(pid: int) -> bool:
    """Whether it was stopped by a signal or a debugger: it runs nothing, for who knows how long."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(") ")[2][:1] in {"T", "t"}
