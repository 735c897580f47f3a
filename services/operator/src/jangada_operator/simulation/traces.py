"""The loads that every policy is measured with, and recorded ones.

Each is drawn from a seed, by Python's own generator: the same on every machine.
"""

import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from jangada_operator.simulation.trace import Trace

MINUTE: Final = 60.0
HOUR: Final = 3600.0

type Rate = Callable[[float], float]
type Service = Callable[[Random], float]


def step(random: Random) -> Trace:
    """Nothing, then 200 jobs/s of 0.1 s for twenty minutes, then nothing."""

    def rate(at: float) -> float:
        return 200.0 if MINUTE <= at < 21 * MINUTE else 0.0

    return drawn("step", random, seconds=25 * MINUTE, rate=rate, highest=200.0, service=about(0.1))


def ramp(random: Random) -> Trace:
    """From nothing to 40 jobs/s of 1 s within twenty minutes, and back within ten."""

    def rate(at: float) -> float:
        rising, falling = at / (20 * MINUTE), (32 * MINUTE - at) / (10 * MINUTE)
        return 40.0 * max(0.0, min(1.0, rising, falling))

    return drawn("ramp", random, seconds=36 * MINUTE, rate=rate, highest=40.0, service=about(1.0))


def diurnal(random: Random) -> Trace:
    """A day in which 1 to 6 jobs/s of 3 s come, most in the afternoon."""

    def rate(at: float) -> float:
        return 3.5 - 2.5 * math.cos(2 * math.pi * (at - 3 * HOUR) / (24 * HOUR))

    return drawn("diurnal", random, seconds=24 * HOUR, rate=rate, highest=6.0, service=about(3.0))


def bursts(random: Random) -> Trace:
    """2 jobs/s of 0.5 s, and 3,000 more at once every ten minutes."""
    steady = drawn(
        "bursts", random, seconds=HOUR, rate=lambda _: 2.0, highest=2.0, service=about(0.5)
    )
    service = about(0.5)
    jobs = list(zip(steady.arrivals, steady.services, strict=True))
    for number in range(6):
        at = 5 * MINUTE + number * 10 * MINUTE
        jobs += [(at, service(random)) for _ in range(3000)]
    return assembled("bursts", HOUR, jobs)


def long_jobs(random: Random) -> Trace:
    """A job every two seconds that takes two to ten minutes."""

    def service(drawing: Random) -> float:
        return drawing.uniform(2 * MINUTE, 10 * MINUTE)

    def rate(at: float) -> float:
        return 0.5 if at < HOUR else 0.05

    return drawn("long-jobs", random, seconds=2 * HOUR, rate=rate, highest=0.5, service=service)


def heavy_tailed(random: Random) -> Trace:
    """4 jobs/s, most of them of a second or less, one in a thousand of an hour."""

    def service(drawing: Random) -> float:
        return min(HOUR, 0.5 * drawing.paretovariate(1.3))

    return drawn(
        "heavy-tailed",
        random,
        seconds=2 * HOUR,
        rate=lambda _: 4.0,
        highest=4.0,
        service=service,
    )


def trickle(random: Random) -> Trace:
    """A job of 2 s every three minutes."""
    return drawn(
        "trickle",
        random,
        seconds=6 * HOUR,
        rate=lambda _: 1 / 180,
        highest=1 / 180,
        service=about(2.0),
    )


BY_NAME: Final[dict[str, Callable[[Random], Trace]]] = {
    "step": step,
    "ramp": ramp,
    "diurnal": diurnal,
    "bursts": bursts,
    "long-jobs": long_jobs,
    "heavy-tailed": heavy_tailed,
    "trickle": trickle,
}


def load(name: str, seed: int) -> Trace:
    """One of `BY_NAME`: the same for the same seed."""
    return BY_NAME[name](Random(seed))  # noqa: S311 - loads are no secrets


def about(mean: float, deviation: float = 0.5) -> Service:
    """Log-normal, as service times are."""
    sigma = math.sqrt(math.log(1 + deviation**2))
    middle = math.log(mean) - sigma**2 / 2
    return lambda random: random.lognormvariate(middle, sigma)


def drawn(
    name: str, random: Random, *, seconds: float, rate: Rate, highest: float, service: Service
) -> Trace:
    """Arrivals at random, at a rate that changes: drawn at its highest, and thinned."""
    jobs = [
        (at, service(random))
        for at in _poisson(highest, seconds, random)
        if random.random() * highest < rate(at)
    ]
    return assembled(name, seconds, jobs)


def assembled(name: str, seconds: float, jobs: list[tuple[float, float]]) -> Trace:
    ordered = sorted(jobs)
    return Trace(name, seconds, [at for at, _ in ordered], [takes for _, takes in ordered])


def _poisson(rate: float, seconds: float, random: Random) -> Iterator[float]:
    at = random.expovariate(rate)
    while at < seconds:
        yield at
        at += random.expovariate(rate)
