"""Events on a WorkerPool: what `kubectl describe` shows of what happened to it."""

import logging
from enum import StrEnum
from typing import Final
from uuid import uuid4

from jangada_operator.kube import Kube, KubeError
from jangada_operator.workerpool.spec import API_VERSION, KIND, PoolKey
from jangada_operator.workerpool.status import now_text

LONGEST: Final = 1024

log = logging.getLogger(__name__)


async def tell(
    kube: Kube, pool: tuple[PoolKey, str], reason: StrEnum, message: str, *, is_warning: bool
) -> None:
    """Write an event on the pool of this key and UID; one that can't be written is only logged."""
    (key, uid) = pool
    namespace, name = key.namespace, key.name
    log.info("%s/%s: %s: %s", namespace, name, reason, message)
    at = now_text()
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "reason": str(reason),
        "message": message[:LONGEST],
        "type": "Warning" if is_warning else "Normal",
        "source": {"component": "jangada-operator"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    try:
        await kube.create(f"/api/v1/namespaces/{namespace}/events", body)
    except KubeError as error:
        log.warning("an event can't be written: %s", error)
