"""`jangada-operator check`: whether an operator leads, and looks after the pools that are named.

It takes two rights, to get the lease and the pools. A status stays as it was when nobody writes it
any more, so the lease has to be renewed while we look; what time it is there doesn't matter.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from jangada_operator.exits import failed, refused
from jangada_operator.kube import Json, Kube, KubeError, Refused, Unreachable
from jangada_operator.leader import RETRY
from jangada_operator.login import find_login, own_namespace
from jangada_operator.workerpool.spec import GROUP, PLURAL, VERSION

LOOK_AGAIN: Final = RETRY / 4
PAGE: Final = "docs/runbooks/pool-does-not-scale.md"


class CheckFailed(Exception):
    """What isn't as it should be, and where to look."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the lease and the pools are."""

    namespace: str
    lease: str
    pools: Sequence[str]


def check(
    pools: Annotated[
        list[str] | None, typer.Argument(help="WorkerPools to look at.", metavar="[POOL]...")
    ] = None,
    *,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Of lease and pools. Default: your kubeconfig's."),
    ] = None,
    lease_name: Annotated[str, typer.Option(help="The operator's lease.")] = "jangada-operator",
    wait: Annotated[
        float, typer.Option(min=2 * RETRY, help="Seconds to wait until all is well.")
    ] = 30,
) -> None:
    """See whether an operator leads, and whether it looks after these pools."""
    try:
        place = namespace or own_namespace()
        asyncio.run(_check(Place(place, lease_name, pools or ()), wait, typer.echo))
    except CheckFailed as error:
        raise failed(f"{error}\nWhat to do: {PAGE}.") from error
    except KubeError as error:
        raise refused(error) from error


async def _check(place: Place, wait: float, told: Callable[[str], None]) -> None:
    async with Kube.open(find_login) as kube:
        told(f"ok: {await _leader(kube, place, wait)} leads")
        for name in place.pools:
            told(f"ok: {name} is looked after: {await _said(kube, place, name, wait)}")


async def _leader(kube: Kube, place: Place, wait: float) -> str:
    """Who renews the lease. Raises `CheckFailed` where nobody does in the time."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/{place.lease}"
    first: Json = {}
    until = time.monotonic() + wait
    while True:
        is_over = time.monotonic() >= until
        found = await _spec(kube, path, is_last=is_over)
        first = first or found
        if found.get("holderIdentity") and found != first:
            return str(found["holderIdentity"])
        if is_over:
            raise CheckFailed(
                f"Nobody has renewed the lease {place.namespace}/{place.lease} for {wait:g} s: no "
                f"operator leads. Is one running?"
            )
        await asyncio.sleep(LOOK_AGAIN)


async def _spec(kube: Kube, path: str, *, is_last: bool) -> Json:
    """Of a lease; empty where it isn't there yet."""
    try:
        spec: Json = (await _got(kube, path, is_last=is_last)).get("spec", {})
    except Refused as error:
        if not error.is_missing:
            raise
        return {}
    return spec


async def _said(kube: Kube, place: Place, name: str, wait: float) -> str:
    """What its Ready condition says. Raises `CheckFailed` where it isn't true in the time."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{place.namespace}/{PLURAL}/{name}"
    until = time.monotonic() + wait
    while True:
        is_over = time.monotonic() >= until
        ready = _ready(await _got(kube, path, is_last=is_over))
        if ready.get("status") == "True":
            return str(ready["message"] or ready["reason"])
        if is_over:
            reason = ready.get("message") or "no operator has looked at it"
            raise CheckFailed(f"The pool {place.namespace}/{name} isn't looked after: {reason}")
        await asyncio.sleep(LOOK_AGAIN)


async def _got(kube: Kube, path: str, *, is_last: bool) -> Json:
    """An object; nothing of it where the server doesn't answer for a moment."""
    try:
        found: Json = await kube.get(path)
    except Unreachable:
        if is_last:
            raise
        return {}
    return found


def _ready(pool: Json) -> Json:
    """Its condition, if it is of what the pool is now."""
    generation = pool.get("metadata", {}).get("generation")
    conditions = (pool.get("status") or {}).get("conditions") or ()
    found = [each for each in conditions if each["type"] == "Ready"]
    return next((each for each in found if each.get("observedGeneration") == generation), {})
