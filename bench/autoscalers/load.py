"""What both autoscalers are given: a step from nothing, a trickle with long jobs, nothing."""

from random import Random
from typing import Final

from jangada_operator.simulation.trace import Trace
from jangada_operator.simulation.traces import about, assembled, drawn

LEAD: Final = 30.0
"""The step comes at any time of KEDA's polling interval."""

STEADY: Final = 180.0
STEADY_RATE: Final = 3.0
TRICKLE: Final = 330.0
"""Longer than the 300 s after which an HPA shrinks, so that it does under running jobs."""

SHORT_RATE: Final = 0.2
SHORT: Final = 2.0
"""Seconds that most jobs take, on average: six slots are busy in the steady part."""

LONG_RATE: Final = 0.05
LONG: Final = (30.0, 90.0)
"""Three long jobs run at once in the trickle."""


def load(seed: int) -> Trace:
    """The same for the same seed."""
    random = Random(seed)
    begin = random.uniform(0, LEAD)
    steady = _part(random, STEADY, STEADY_RATE)
    short = _part(random, TRICKLE, SHORT_RATE)
    long = [(at, random.uniform(*LONG)) for at, _ in _part(random, TRICKLE, LONG_RATE)]
    jobs = [(begin + at, takes) for at, takes in steady]
    jobs += [(begin + STEADY + at, takes) for at, takes in short + long]
    return assembled("autoscalers", begin + STEADY + TRICKLE, jobs)


def _part(random: Random, seconds: float, rate: float) -> list[tuple[float, float]]:
    trace = drawn(
        "", random, seconds=seconds, rate=lambda _: rate, highest=rate, service=about(SHORT)
    )
    return list(zip(trace.arrivals, trace.services, strict=True))
