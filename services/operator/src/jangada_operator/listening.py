"""Whether all that is in the cluster was heard of: before that, pods that run seem to be missing.

kopf doesn't say when it has listed what is there, and passes it on one by one. So everything is
listed once beside it, by UID, and waited for.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from jangada_operator.kube import Kube
from jangada_operator.watching import WATCHED, Cluster

TRIES: Final = 15
PAUSE: Final = 0.2
"""What isn't heard of after so many pauses was perhaps deleted before kopf listed it."""


def paths_of(version: str, plural: str, namespaces: Sequence[str]) -> list[str]:
    """Where all objects of a kind are listed; in all namespaces where none is named."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return [f"{root}/namespaces/{each}/{plural}" for each in namespaces] or [f"{root}/{plural}"]


async def has_heard_all(kube: Kube, cluster: Cluster, namespaces: Sequence[str]) -> bool:
    """Whether each object that is there was heard of, now or soon. Raises `KubeError`."""
    paths = [path for kind in WATCHED for path in paths_of(*kind, namespaces)]
    missing = {uid for path in paths for uid in await kube.uids(path)} - cluster.heard
    for _ in range(TRIES):
        if not missing:
            return True
        await asyncio.sleep(PAUSE)
        missing -= cluster.heard
    return not missing
