"""The view that anybody needs who declares others dead: no gap while they may be silent."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(slots=True)
class Watch:
    """Whether a server was seen without a gap for long enough to judge who is dead.

    Gaps are measured by both clocks, ours (which never jumps) and the server's (which goes on while
    a machine is paused), and are at most half of what a worker may be silent. A clock that was set
    back or forth is a gap, too: what it says of the time before means nothing.
    """

    timeout: timedelta
    is_set_back: bool = field(default=False, init=False)
    """Whether the server's clock was set back since the last look: what it dated lies ahead."""

    _since: tuple[datetime, float] | None = field(default=None, init=False)
    _last: tuple[datetime, float] | None = field(default=None, init=False)

    def lose(self) -> None:
        """Something went wrong: begin again."""
        self._since = self._last = None

    def see(self, at: datetime, monotonic: float) -> bool:
        """The server was seen at this moment, by its clock and ours; answers whether to act."""
        now = (at, monotonic)
        if self._last is None or self._is_gap(self._last, now):
            self._since = now
        self._last = now
        if self._since is None:
            return False
        return min(self._distances(self._since, now)) >= self.timeout

    def _is_gap(self, last: tuple[datetime, float], now: tuple[datetime, float]) -> bool:
        theirs, ours = self._distances(last, now)
        self.is_set_back = ours - theirs > self.timeout / 2
        return self.is_set_back or max(theirs, ours) > self.timeout / 2

    @staticmethod
    def _distances(
        start: tuple[datetime, float], end: tuple[datetime, float]
    ) -> tuple[timedelta, timedelta]:
        return end[0] - start[0], timedelta(seconds=end[1] - start[1])
