"""Spans of time as Kubernetes and Go write them: `1h30m`, `300ms`, `1.5s`.

What is read is what Go's `time.ParseDuration` reads, without signs; microseconds are the finest.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

UNITS: Final = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # U+00B5, the micro sign
    "μs": Decimal("1e-6"),  # U+03BC, the Greek letter
    "ns": Decimal("1e-9"),
}
PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([^0-9.]*)")
LONGEST: Final = timedelta(days=36500)
MICRO: Final = Decimal("1e-6")


def parse_duration(text: str) -> timedelta:
    """The span of time; a `ValueError` says what is wrong with it and how to mend it."""
    if text == "0":
        return timedelta(0)
    parts = list(PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"{text!r} is no duration: write 30s, 5m or 1h30m")
    seconds = sum((_seconds(text, *part.groups()) for part in parts), Decimal(0))
    if seconds > Decimal(LONGEST.total_seconds()):
        raise ValueError(f"{text!r} is longer than a hundred years")
    return timedelta(microseconds=int(seconds / MICRO))


def _seconds(text: str, amount: str, unit: str) -> Decimal:
    if not unit:
        raise ValueError(f"{text!r} lacks a unit: write {amount}s, {amount}m or {amount}h")
    if unit == "d":
        raise ValueError(f"{text!r} is in days: write hours, as in 24h")
    if unit not in UNITS:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}: write h, m, s, ms, us or ns")
    return Decimal(amount) * UNITS[unit]
