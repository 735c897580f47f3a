"""What a changed spec would make of a load that a decision has written down."""

import math
from collections.abc import Mapping

from jangada_queue.policy.decide import HAIR, LATE
from jangada_queue.policy.loads import SHORTEST, horizon_of
from jangada_queue.policy.staffing import Load, Need, needs
from jangada_queue.policy.wanted import Wanted


def load_of(wanted: Wanted, inputs: Mapping[str, float]) -> Load:
    """The load behind a decision, under this objective. Raises `KeyError` for other inputs."""
    within = wanted.start_within.total_seconds()
    lead = max(SHORTEST, inputs["start_seconds"])
    return Load(
        rate=inputs["arrival_per_second"],
        service=inputs["service_seconds"],
        variation=inputs["service_variation"],
        running=inputs["running"],
        occupied=inputs["occupied"],
        stuck=int(inputs["stuck"]),
        backlog=inputs["backlog_expected"],
        within=within,
        horizon=horizon_of(within, lead),
        ahead=lead + within,
    )


def size_for(wanted: Wanted, inputs: Mapping[str, float], now: float) -> tuple[int, Need]:
    """The size for it, within the limits of this moment, and the slots behind it."""
    need = needs(load_of(wanted, inputs), LATE)
    asked = inputs["backlog"] or inputs["in_flight"] or inputs["due_soon"]
    size = max(1 if asked else 0, math.ceil(need.slots / inputs["slots_per_replica"] - HAIR))
    return min(wanted.most, max(wanted.floor(now), size)), need
