"""How fast a total grows, lately."""

import math
from dataclasses import dataclass
from typing import Final

MEMORY: Final = 60.0
"""How long what happened is remembered, in seconds, where nobody says otherwise."""


@dataclass(slots=True)
class DecayedRate:
    """Of a total that is looked at now and then, and may begin anew.

    After `memory` seconds what happened counts for 1/e.
    """

    memory: float = MEMORY
    per_second: float = 0.0
    _total: int | None = None
    _at: float = 0.0

    def see(self, total: int, at: float) -> float:
        """The rate, after the total was seen at this moment (monotonic seconds)."""
        before, elapsed = self._total, at - self._at
        self._total, self._at = total, at
        if before is None or elapsed <= 0:
            return self.per_second
        # A total that began anew says nothing of what came since.
        lately = max(0, total - before) / elapsed
        weight = 1 - math.exp(-elapsed / self.memory)
        self.per_second += weight * (lately - self.per_second)
        return self.per_second
