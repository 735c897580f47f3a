"""Whether lowering a Deployment's size would delete exactly the pods that are meant.

A ReplicaSet chooses by itself whom it deletes, and ranks who isn't assigned, isn't running or isn't
ready before all that a deletion cost says. So the size is lowered only where every pod that is
meant ranks strictly before every other one by what a ReplicaSet is sure to compare; else the
operator waits, and says for what.
"""

from collections.abc import Collection, Sequence

from jangada_operator.workerpool.cluster import Pod


def why_not(active: Sequence[Pod], meant: Collection[str], replicas: int) -> str | None:
    """Why the size can't be lowered by the pods with these ids; None when it can.

    `active` are all pods that the newest ReplicaSet counts, and `replicas` is its size.
    """
    chosen = [pod for pod in active if pod.uid in meant]
    others = [pod for pod in active if pod.uid not in meant]
    if len(chosen) < len(meant):
        return f"{len(meant) - len(chosen)} of the drained pods are going already"
    if len(active) != replicas:
        return f"{len(active)} pods are there of {replicas}"
    if not others:
        return None
    last, first = max(pod.rank for pod in chosen), min(pod.rank for pod in others)
    if last < first:
        return None
    blocking = next(pod for pod in others if pod.rank == first)
    return f"{blocking.name} would be deleted before a drained pod ({_state(blocking)})"


def _state(pod: Pod) -> str:
    if not pod.is_assigned:
        return "it has no node yet"
    if not pod.is_ready:
        return f"it is {pod.phase} and not ready"
    return f"its deletion cost is {pod.cost}"
