"""The part of a pool's spec that a simulation can change, as options and as `key=value`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Self

from jangada_operator.durations import parse_duration
from jangada_queue.policy.wanted import ScaleDown, Wanted


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no whole number: write 0, 3 or 20")
    return int(text)


READERS: Final[dict[str, Callable[[str], timedelta | int]]] = {
    "start-within": parse_duration,
    "min": _whole,
    "max": _whole,
    "scale-down-after": parse_duration,
    "max-draining": _whole,
    "max-starting": _whole,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A pool as its owner wants it; each field is an option with the same name."""

    start_within: timedelta = timedelta(seconds=5)
    min: int = 0
    max: int = 100
    scale_down_after: timedelta = timedelta(seconds=60)
    max_draining: int | None = None
    max_starting: int | None = None

    def changed(self, settings: Iterable[str]) -> Self:
        """With these `key=value`; a `ValueError` says what is wrong with one."""
        values: dict[str, Any] = dict(map(_setting, settings))
        return replace(self, **values)

    def wanted(self, slots: int) -> Wanted:
        return Wanted(
            least=self.min,
            most=self.max,
            start_within=self.start_within,
            scale_down=ScaleDown(after=self.scale_down_after, most_draining=self.max_draining),
            most_starting=self.max_starting,
            slots=slots,
        )


def _setting(text: str) -> tuple[str, timedelta | int]:
    key, equals, value = text.partition("=")
    if not equals or key not in READERS:
        raise ValueError(f"{text!r} isn't key=value with one of the keys {', '.join(READERS)}")
    return key.replace("-", "_"), READERS[key](value)
