"""When a cron expression fires, in a time zone whose days may have 23, 24½ or 25 hours.

CronSim reads the expression and knows the calendar, on clocks without a zone. What a change of the
clock does to it is decided here, as Debian's cron decides it (cron(8)):

- An expression of five fields that names its minutes and hours (`30 2 * * *`) fires once for each
  of its times: at the end of a gap that it falls into, and at the first of two that are shown.
- Any other (`*/15 * * * *`, `0 */2 * * *`, all with seconds) fires by the clock on the wall: never
  at a time that doesn't exist, and each time that the clock shows it.

CronSim's own rule for zones steps over fires where clocks change by half an hour (Lord Howe).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST: Final = 200
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_EARLIER: Final = timedelta(microseconds=1)
_WITHOUT_SECONDS: Final = 5


class UnreadableCron(ValueError):
    """The expression has no meaning."""


class UnknownZone(ValueError):
    """There is no such time zone."""


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression that can be read, in its zone. `parse` makes one."""

    expression: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, expression: str, timezone: str) -> Self:
        """Raises `UnreadableCron` and `UnknownZone`."""
        fields = ALIASES.get(expression.strip().lower(), expression)
        try:
            zone = ZoneInfo(timezone)
        except (KeyError, ValueError, OSError) as error:
            detail = f"{timezone!r} is no time zone; one is America/Sao_Paulo, for example."
            raise UnknownZone(detail) from error
        if len(fields) > LONGEST:
            raise _unreadable(f"it is longer than {LONGEST} characters")
        try:
            CronSim(fields, datetime(2000, 1, 1))  # noqa: DTZ001 - clocks without a zone
        except (CronSimError, AssertionError, ValueError, TypeError) as error:
            raise _unreadable(str(error) or "it cannot be read") from error
        return cls(fields, zone)

    def next(self, after: datetime) -> datetime:
        """The first fire later than `after`, in UTC; `UnreadableCron` where there is none."""
        after = after.astimezone(UTC)
        return self._once_a_day(after) if self._names_its_time() else self._by_the_wall(after)

    def fires(self, after: datetime) -> Iterator[datetime]:
        """All fires later than `after`."""
        while True:
            after = self.next(after)
            yield after

    def _names_its_time(self) -> bool:
        fields = self.expression.split()
        return len(fields) == _WITHOUT_SECONDS and not any(
            field.startswith("*") for field in fields[:2]
        )

    def _once_a_day(self, after: datetime) -> datetime:
        wall = self._wall(after)
        while True:
            wall = self._next_on_wall(wall)
            fire = self._first_showing(wall)
            if fire > after:
                return fire

    def _by_the_wall(self, after: datetime) -> datetime:
        """Go on with one offset until the clock changes, and then with the next one."""
        offset, wall = self._offset(after), self._wall(after)
        while True:
            fire = self._next_on_wall(wall).replace(tzinfo=UTC) - offset
            change = self._first_change(after, fire)
            if change is None:
                return fire
            after, offset = change, self._offset(change)
            wall = self._wall(change) - _EARLIER

    def _next_on_wall(self, wall: datetime) -> datetime:
        for found in CronSim(self.expression, wall):
            return found
        raise _unreadable("it never matches")

    def _first_showing(self, wall: datetime) -> datetime:
        """When the clock shows this first; where it never does, when it jumps over it."""
        fire = wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if self._wall(fire) == wall:
            return fire
        # In a gap PEP 495 reads the two folds with the offsets of before and after.
        before = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        return self._first_change(before, fire) or fire

    def _first_change(self, after: datetime, until: datetime) -> datetime | None:
        """When the offset changes first, later than `after` and not later than `until`."""
        offset = self._offset(after)
        while after < until:
            end = min(after + _DAY, until)
            if self._offset(end) != offset:
                return self._change_between(after.replace(microsecond=0), end)
            after = end
        return None

    def _change_between(self, before: datetime, changed: datetime) -> datetime:
        offset = self._offset(before)
        while changed - before > _SECOND:
            middle = before + (changed - before) // 2 // _SECOND * _SECOND
            before, changed = (
                (middle, changed) if self._offset(middle) == offset else (before, middle)
            )
        return changed

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.zone).utcoffset() or timedelta(0)

    def _wall(self, moment: datetime) -> datetime:
        """What the clock on the wall shows."""
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)


def _unreadable(why: str) -> UnreadableCron:
    return UnreadableCron(f"The expression has no meaning as cron: {why}.")
