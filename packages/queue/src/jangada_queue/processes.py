"""Processes as the operating system sees them, for those who speak for others."""

from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Whether it was stopped by a signal or a debugger: it runs nothing, for who knows how long."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(") ")[2][:1] in {"T", "t"}
