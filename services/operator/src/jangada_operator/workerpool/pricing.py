"""What a pod on its way out costs, and what it cost before.

A ReplicaSet deletes first what costs least. The cost that a pod's owner gave it is kept beside ours
in an annotation, so that whoever takes ours back can give it again, be it the next operator.
"""

from collections.abc import Mapping
from typing import Final

from jangada_operator.kube import Json, Kube, Refused
from jangada_operator.workerpool.cluster import COST, LOWEST_COST, PREVIOUS

LOWEST: Final = str(LOWEST_COST)

type Annotations = Mapping[str, str]


def lowered(annotations: Annotations) -> dict[str, str | None]:
    """The changes that make a pod the first to go; none where they are made already."""
    if PREVIOUS in annotations and annotations.get(COST) == LOWEST:
        return {}
    return {COST: LOWEST, PREVIOUS: annotations.get(COST, "")}


def restored(annotations: Annotations) -> dict[str, str | None]:
    """The changes that take that back. A cost that somebody has set since stays."""
    if PREVIOUS not in annotations:
        return {}
    if annotations.get(COST) != LOWEST:
        return {PREVIOUS: None}
    return {COST: annotations[PREVIOUS] or None, PREVIOUS: None}


async def lower_cost(kube: Kube, namespace: str, pod: str) -> None:
    """By what the API says now: what we have heard may be older than what the owner wrote."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    if (found := await _annotations(kube, path)) is not None:
        await _write(kube, path, lowered(found))


async def restore_cost(kube: Kube, namespace: str, pod: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    if (found := await _annotations(kube, path)) is not None:
        await _write(kube, path, restored(found))


async def _annotations(kube: Kube, path: str) -> Annotations | None:
    """None where the pod is gone."""
    try:
        body = await kube.get(path)
    except Refused as error:
        if error.is_missing:
            return None
        raise
    found: Annotations = body["metadata"].get("annotations") or {}
    return found


async def _write(kube: Kube, path: str, changes: Json) -> None:
    if not changes:
        return
    try:
        await kube.merge(path, {"metadata": {"annotations": changes}})
    except Refused as error:
        if not error.is_missing:
            raise
