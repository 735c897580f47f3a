"""When a pool's conditions and drains become Events.

A condition is told when its reason becomes another than the one told last; who takes over begins
with what the status says, so nothing is repeated. Of each reason a pool has at most one Event in
`AGAIN` seconds, however often it comes and goes: what came too soon is told then, if it is still
so.
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from jangada_operator.kube import Kube
from jangada_operator.workerpool.cluster import Body
from jangada_operator.workerpool.draining import Happened
from jangada_operator.workerpool.events import tell
from jangada_operator.workerpool.reasons import Happening, State, Trouble
from jangada_operator.workerpool.spec import PoolKey
from jangada_operator.workerpool.status import Condition
from jangada_queue.policy.decide import Decision, Limit

AGAIN: Final = 60.0
NAMED: Final = 5
"""So many pods are named in one Event; of others it says how many."""

OVER: Final[Mapping[StrEnum, str]] = {
    State.MANAGED: "The pool is looked after now.",
    State.FRESH: "Signals are fresh now.",
    State.UNLIMITED: "Nothing limits the pool any more.",
}
"""What is told only where something else was before."""

HARMLESS: Final = frozenset({*OVER, Limit.STARTING, Limit.DRAINING})
TOLD: Final = frozenset({"Ready", "SignalsFresh", "Limited"})

type Subject = tuple[str, int]
"""A reason, and of which generation: an invalid spec is told anew once it was changed."""


@dataclass(slots=True)
class Voice:
    """What one pool was told so far. Moments are those of a clock that never jumps."""

    key: PoolKey
    uid: str
    _last: dict[str, Subject] = field(default_factory=dict)
    _at: dict[str, float] = field(default_factory=dict)
    _names: dict[Happening, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, body: Body, now: float) -> Self:
        """Go on from what an operator before us wrote.

        What it said may look over until we know as much as it did: an end counts as told just now.
        """
        metadata = body["metadata"]
        voice = cls(PoolKey(metadata["namespace"], metadata["name"]), metadata["uid"])
        for each in (body.get("status") or {}).get("conditions") or ():
            if each["reason"] == State.NOT_READ:
                continue
            generation = each.get("observedGeneration", 0)
            voice._last[each["type"]] = _subject(each["reason"], generation)
            voice._at |= dict.fromkeys((each["reason"], *map(str, OVER)), now)
        return voice

    def due(self, found: Iterable[Condition], generation: int, now: float) -> list[Condition]:
        """The conditions that are to be told now; they count as told."""
        conditions = list(found)
        is_ready = all(each.is_true for each in conditions if each.type == "Ready")
        return [
            each
            for each in conditions
            # While a pool isn't looked after, its other conditions say nothing.
            if each.type in TOLD
            and (is_ready or each.type == "Ready")
            and self._is_due(each, generation, now)
        ]

    def _is_due(self, condition: Condition, generation: int, now: float) -> bool:
        subject = _subject(condition.reason, generation)
        before = self._last.get(condition.type)
        if subject == before:
            return False
        is_news = before is not None or condition.reason not in OVER
        if is_news and not self.may_tell(condition.reason, now):
            return False
        self._last[condition.type] = subject
        return is_news

    def collect(
        self, what: Happening, names: Sequence[str], still: Collection[str], now: float
    ) -> Sequence[str]:
        """All names since this was told last, of those with whom it is `still` so; or none yet."""
        waiting = [name for name in self._names.pop(what, ()) if name in still] + [*names]
        if not waiting or self.may_tell(what, now):
            return waiting
        self._names[what] = waiting
        return ()

    def may_tell(self, reason: str, now: float) -> bool:
        """Whether it wasn't told within the last minute; it counts as told now then."""
        if now - self._at.get(str(reason), -math.inf) < AGAIN:
            return False
        self._at[str(reason)] = now
        return True

    async def tell_conditions(
        self, kube: Kube, found: Iterable[Condition], generation: int
    ) -> None:
        for each in self.due(found, generation, time.monotonic()):
            text = OVER.get(each.reason, each.message)
            await self.tell(kube, each.reason, text, is_warning=each.reason not in HARMLESS)

    async def tell_pods(
        self,
        kube: Kube,
        what: Happening,
        pods: Sequence[str],
        *,
        still: Collection[str],
        message: str,
    ) -> None:
        if names := self.collect(what, pods, still, time.monotonic()):
            text = f"{len(names)} of the pods: {listed(names)}. {message}"
            await self.tell(kube, what, text, is_warning=False)

    async def tell(self, kube: Kube, reason: StrEnum, message: str, *, is_warning: bool) -> None:
        """At once, whatever was told before."""
        await tell(kube, (self.key, self.uid), reason, message, is_warning=is_warning)


async def tell_happened(
    kube: Kube, voice: Voice, decision: Decision, happened: Happened, *, size: int
) -> None:
    """What was done, as Events. `size` is what the Deployment had before."""
    for what, pods, still in (
        (Happening.DRAIN_STARTED, happened.begun, happened.draining),
        (Happening.DRAIN_CANCELLED, happened.returned, happened.serving),
    ):
        await voice.tell_pods(kube, what, pods, still=still, message=decision.message)
    if happened.committed:
        text = f"From {size} to {size - happened.committed}. {decision.message}"
        await voice.tell(kube, Happening.SCALED_DOWN, text, is_warning=False)
    if happened.mispicked:
        text = f"{happened.mispicked} other pods were deleted than those that were drained."
        await voice.tell(kube, Happening.MISPICKED, text, is_warning=True)


def listed(names: Sequence[str]) -> str:
    """The first of them, and how many others there are."""
    told = ", ".join(names[:NAMED])
    return told if len(names) <= NAMED else f"{told} and {len(names) - NAMED} others"


def _subject(reason: Any, generation: int) -> Subject:  # noqa: ANN401 - ours, or a status's text
    return str(reason), generation if reason == Trouble.INVALID_SPEC else 0
