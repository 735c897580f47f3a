"""Whether we may see what we decide by: who may not list pods would take a pool for empty."""

import logging
from collections.abc import Sequence
from typing import Final

from jangada_operator.kube import Kube, KubeError
from jangada_operator.workerpool.reasons import Trouble
from jangada_operator.workerpool.spec import API_VERSION, PLURAL
from jangada_operator.workerpool.status import Problem

REVIEW: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
SEEN: Final = (
    (API_VERSION.partition("/")[0], PLURAL),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("", "pods"),
)
VERBS: Final = ("list", "watch")

log = logging.getLogger(__name__)


async def missing_rights(kube: Kube, namespaces: Sequence[str]) -> Problem | None:
    """What we may not do in one of them (in all, where none is named), and how to mend it.

    Everybody may ask that of themselves. Raises `KubeError` where no answer is to be had.
    """
    refused = [
        f"{verb} {resource}{f' in {namespace}' if namespace else ''}"
        for namespace in namespaces or ("",)
        for group, resource in SEEN
        for verb in VERBS
        if not await _may(kube, verb=verb, group=group, resource=resource, namespace=namespace)
    ]
    if not refused:
        return None
    text = f"The operator may not {', '.join(refused)}. Grant its role these verbs."
    return Problem(Trouble.FORBIDDEN, text)


async def look_at_rights(
    kube: Kube, namespaces: Sequence[str], before: Problem | None
) -> Problem | None:
    """The same, told in the log when it changes; as before where there is no answer."""
    try:
        found = await missing_rights(kube, namespaces)
    except KubeError:
        return before
    if found != before:
        log.warning("%s", found.message if found else "The operator has the rights it needs.")
    return found


async def _may(kube: Kube, **attributes: str) -> bool:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await kube.create(REVIEW, body)
    return bool(answer["status"]["allowed"])
