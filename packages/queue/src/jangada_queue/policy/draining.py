"""Which replicas go, and which come back: no busy one goes while an idle one stays.

That is so at every look, not only when one is chosen: who was busy then may be idle now.
"""

from collections.abc import Mapping, Sequence

from jangada_queue.policy.observation import Replica, Running, Stage


def leaving(serving: Sequence[Replica], surplus: int, kinds: Mapping[str, float]) -> list[Replica]:
    """So many of those that serve, in the order in which they should go.

    Those that are still starting first, the youngest before the others; then whoever holds the
    fewest jobs, then whose jobs end soonest.
    """
    return sorted(serving, key=lambda each: _rank(each, kinds))[:surplus]


def returning(draining: Sequence[Replica], shortfall: int) -> list[Replica]:
    """So many of those that drain, or none, in the order in which they should come back.

    Those that are ready before those that start, the busiest first: they are furthest from gone.
    """
    ranked = sorted(draining, key=lambda each: (_is_starting(each), -each.held, each.id))
    return ranked[: max(0, shortfall)]


def bounded(leaving: Sequence[Replica], busy_already: int, most_busy: int) -> list[Replica]:
    """Those of them that may drain now, when only so many busy ones may at once."""
    allowed, room = [], most_busy - busy_already
    for each in leaving:
        if each.held:
            room -= 1
        if room >= 0:
            allowed.append(each)
    return allowed


def exchanged(
    staying: Sequence[Replica], draining: Sequence[Replica], kinds: Mapping[str, float]
) -> list[tuple[Replica, Replica]]:
    """Pairs of one that stays though it runs nothing, and one that drains though it runs something.

    The first had better go: at once, while the second would only once its jobs have ended.
    """
    idle = [each for each in leaving(staying, len(staying), kinds) if not each.held]
    busy = sorted((each for each in draining if each.held), key=lambda each: (-each.held, each.id))
    return list(zip(idle, busy, strict=False))


def instead(
    draining: Sequence[Replica], pairs: Sequence[tuple[Replica, Replica]]
) -> tuple[str, ...]:
    """Who drains then: the first of each pair instead of the second."""
    spared = {busy.id for _, busy in pairs}
    going = [*draining, *(idle for idle, _ in pairs)]
    return tuple(each.id for each in going if each.id not in spared)


def _rank(replica: Replica, kinds: Mapping[str, float]) -> tuple[int, float, int, float, str]:
    if _is_starting(replica):
        return 0, replica.age, 0, 0.0, replica.id
    last = max((_remaining(each, kinds) for each in replica.running), default=0.0)
    return 1, 0.0, replica.held, last, replica.id


def _is_starting(replica: Replica) -> bool:
    return replica.stage is Stage.STARTING or not replica.slots


def _remaining(running: Running, kinds: Mapping[str, float]) -> float:
    """Seconds until it ends, as far as one can tell.

    One that has outlived the mean of its kind is expected to take as long again (Lindy's rule,
    exact for a Pareto distribution with exponent 2).
    """
    mean = kinds.get(running.kind, 0.0)
    return mean - running.seconds if running.seconds < mean else running.seconds
