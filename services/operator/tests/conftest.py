from bisect import bisect_right

import pytest

from jangada_operator.simulation.trace import Trace
from jangada_operator.simulation.traces import BY_NAME, load

SHORT = 360.0


def _beginning(trace: Trace) -> Trace:
    count = bisect_right(trace.arrivals, SHORT)
    return Trace(trace.name, SHORT, trace.arrivals[:count], trace.services[:count])


@pytest.fixture(scope="session")
def short_trace() -> Trace:
    """The first six minutes of the load that has the most to decide in them."""
    return _beginning(load("bursts", 1))


@pytest.fixture(scope="session")
def short_traces() -> list[Trace]:
    """The first six minutes of each load."""
    return [_beginning(load(name, 1)) for name in BY_NAME]
