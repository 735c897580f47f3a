"""What a WorkerPool says of itself: figures, conditions, and the decisions that led here.

A status is written when something in it has changed that a person would care for at once; figures
that always move are written with it, and at most every `REFRESH` seconds by themselves.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from jangada_operator.kube import Json, Kube
from jangada_operator.workerpool.cluster import Body
from jangada_operator.workerpool.reasons import State, Trouble
from jangada_operator.workerpool.spec import GROUP, PLURAL, VERSION, PoolKey
from jangada_queue.policy.decide import Decision, Limit, Reason
from jangada_queue.policy.observation import Observation, Stage

REFRESH: Final = 10.0
REMEMBERED: Final = 20
"""As many changes of the size are kept with their reasons."""

MOVING: Final = frozenset(
    {
        *("backlog", "busySlots", "oldestWaitSeconds", "arrivalPerSecond", "serviceSeconds"),
        *("slots", "message"),
    }
)
"""Figures that always move, and a message that holds some; none of them is a reason to write."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pool can't be looked after, and how to mend it."""

    reason: Trouble
    message: str


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why a pool hasn't the size that it should have, and how to mend it."""

    reason: State
    message: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the four, as Kubernetes writes them."""

    type: str
    is_true: bool
    reason: Trouble | State | Limit
    message: str


@dataclass(slots=True)
class Report:
    """What was said of one pool so far."""

    key: PoolKey
    said: Json = field(default_factory=dict)
    refresh_at: float = 0.0
    decisions: list[Json] = field(default_factory=list)
    since: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of each condition its status, and since when it is so."""

    @classmethod
    def of(cls, body: Body) -> Self:
        """Go on from what an operator before us wrote."""
        metadata, status = body["metadata"], body.get("status") or {}
        report = cls(PoolKey(metadata["namespace"], metadata["name"]), dict(status))
        report.decisions = list(status.get("decisions") or ())
        for each in status.get("conditions") or ():
            report.since[each["type"]] = (each["status"], each["lastTransitionTime"])
        return report

    async def write(self, kube: Kube, status: Json) -> None:
        """Write what has changed."""
        now = time.monotonic()
        if _lasting(status) == _lasting(self.said) and (
            _timeless(status) == _timeless(self.said) or now < self.refresh_at
        ):
            return
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.key.namespace}/{PLURAL}/{self.key.name}"
        await kube.merge(f"{path}/status", {"status": patch_of(self.said, status)})
        # Hundreds of pools that an operator took over in one look don't write in one again.
        self.said, self.refresh_at = status, now + REFRESH * random.uniform(1, 2)  # noqa: S311 - no secret

    def conditions(self, found: Sequence[Condition], generation: int) -> list[Json]:
        """With the moment at which each became what it is."""
        return [self._condition(each, generation) for each in found]

    def _condition(self, condition: Condition, generation: int) -> Json:
        status = "True" if condition.is_true else "False"
        before = self.since.get(condition.type)
        if before is None or before[0] != status:
            before = self.since[condition.type] = (status, now_text())
        return {
            "type": condition.type,
            "status": status,
            "reason": str(condition.reason),
            "message": condition.message,
            "lastTransitionTime": before[1],
            "observedGeneration": generation,
        }

    def note(self, decision: Decision, before: int) -> None:
        """Keep a decision that changes the size, or why it is what it is."""
        entry = decision_of(decision, before)
        last = self.decisions[-1] if self.decisions else None
        if last is not None and all(last[name] == entry[name] for name in ("to", "reason")):
            return
        if last is None or decision.size != before or last["reason"] != entry["reason"]:
            self.decisions = [*self.decisions, entry][-REMEMBERED:]


def patch_of(before: Json, after: Json) -> Json:
    """A merge patch that leaves nothing of before: what isn't there any more is null in it."""
    gone: Json = {name: None for name in before if name not in after}
    return gone | {name: _patched(before.get(name), value) for name, value in after.items()}


def _patched(before: object, after: object) -> object:
    if isinstance(before, dict) and isinstance(after, dict):
        return patch_of(before, after)
    return after


def told_of(decision: Decision, conditions: Sequence[Condition] = (), *, is_dry_run: bool) -> Json:
    """What a list of pools shows of one that is looked after: why its size is what it is."""
    stale = [each.message for each in conditions if each.reason is State.STALE]
    message = " ".join(stale) or decision.message
    return {
        "reason": str(decision.reason),
        "message": f"Dry run, nothing is done: {message}" if is_dry_run else message,
    }


def refused_of(problem: Problem) -> Json:
    """What it shows of another: why nobody looks after it."""
    return {"reason": str(problem.reason), "message": problem.message}


def decision_of(decision: Decision, before: int) -> Json:
    found = {
        "time": now_text(),
        "from": before,
        "to": decision.size,
        "reason": str(decision.reason),
        "message": decision.message,
        "inputs": {_camel(name): round(value, 4) for name, value in decision.inputs.items()},
    }
    if decision.limited_by is not None:
        found["limitedBy"] = str(decision.limited_by)
    return found


def figures_of(observation: Observation, decision: Decision) -> Json:
    """The numbers that a status leads with."""
    serving = {Stage.STARTING, Stage.READY, Stage.DRAINING}
    ready = [each for each in observation.pool if each.stage in serving and each.slots]
    found: Json = {
        "replicas": observation.replicas,
        "readyReplicas": len(ready),
        "desiredReplicas": decision.size,
        "draining": sum(each.stage is Stage.DRAINING for each in observation.pool),
        "slots": sum(each.slots for each in ready),
        "busySlots": sum(each.held for each in ready),
    }
    if observation.signals is not None:
        found |= {
            "backlog": observation.signals.backlog,
            "oldestWaitSeconds": round(observation.signals.oldest_wait, 1),
            "arrivalPerSecond": round(decision.inputs.get("arrival_per_second", 0.0), 2),
            "serviceSeconds": round(decision.inputs.get("service_seconds", 0.0), 3),
        }
    return found


def conditions_of(
    problem: Problem | None,
    decision: Decision | None,
    *,
    hindrance: Hindrance | None = None,
    trouble: str = "",
    is_paused: bool,
) -> list[Condition]:
    """All four, whatever is known."""
    if problem is not None:
        ready = Condition("Ready", False, problem.reason, problem.message)
    else:
        ready = Condition("Ready", True, State.MANAGED, "The pool follows its queues.")
    return [
        ready,
        _signals(problem, decision, trouble),
        _limited(decision, hindrance),
        Condition("Paused", True, State.PAUSED, "The spec says so.")
        if is_paused
        else Condition("Paused", False, State.ACTIVE, ""),
    ]


def _signals(problem: Problem | None, decision: Decision | None, trouble: str) -> Condition:
    if decision is None:
        return Condition("SignalsFresh", False, State.NOT_READ, problem.message if problem else "")
    if decision.reason is Reason.STALE:
        return Condition(
            "SignalsFresh", False, State.STALE, f"{decision.message} {trouble}".rstrip()
        )
    return Condition("SignalsFresh", True, State.FRESH, "")


def _limited(decision: Decision | None, hindrance: Hindrance | None) -> Condition:
    if hindrance is not None:
        return Condition("Limited", True, hindrance.reason, hindrance.message)
    if decision is None or decision.limited_by is None or decision.limited_by is Limit.MINIMUM:
        return Condition("Limited", False, State.UNLIMITED, "")
    return Condition("Limited", True, decision.limited_by, decision.message)


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _timeless(status: Json) -> Json:
    """All of it but the moment at which the same was decided again."""
    last = dict(status.get("lastDecision") or {})
    last.pop("time", None)
    return {**status, "lastDecision": last}


def _lasting(status: Json) -> Json:
    """What isn't always moving."""
    lasting = {name: value for name, value in status.items() if name not in MOVING}
    lasting["conditions"] = [
        (each["type"], each["status"], each["reason"], each["observedGeneration"])
        for each in status.get("conditions") or ()
    ]
    last = status.get("lastDecision") or {}
    lasting["lastDecision"] = (last.get("to"), last.get("reason"), last.get("limitedBy"))
    lasting["decisions"] = [each["time"] for each in status.get("decisions") or ()]
    return lasting


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)
