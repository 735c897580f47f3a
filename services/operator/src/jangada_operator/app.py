"""The operator as a process: watches, the leader's lease, the loop, and the port beside them."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final
from uuid import uuid4

import kopf

from jangada_operator import definition
from jangada_operator.kube import Kube, KubeError, Misconfigured, Unreachable
from jangada_operator.leader import Leadership
from jangada_operator.listening import has_heard_all, paths_of
from jangada_operator.login import find_login
from jangada_operator.management import serve
from jangada_operator.operating import Operator
from jangada_operator.rights import look_at_rights
from jangada_operator.watching import PODS, Cluster, watch
from jangada_queue.patience import wait_at_most

PRUNE_EVERY: Final = 60.0
RIGHTS_EVERY: Final = 30.0
LISTEN_EVERY: Final = 1.0
WATCH_TIMEOUT: Final = 300
"""Seconds after which a watch begins anew, should it have fallen silent."""

CRD_WAIT: Final = 2.0
PATIENCE: Final = 30.0
"""Seconds in which an API server has to answer at all before we end, and say why."""


class Backoffs:
    """The seconds until the next attempt to watch, without end: giving up would be a crash loop."""

    def __iter__(self) -> Iterator[float]:
        return chain((1.0, 1.0, 2.0, 3.0), repeat(5.0))


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an operator runs. No `namespaces` means all of them."""

    namespaces: Sequence[str]
    lease_namespace: str
    lease_name: str = "jangada-operator"
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own port, which a NetworkPolicy guards
    port: int = 8081


async def run(options: Options) -> None:
    """Run until SIGTERM or SIGINT.

    Raises `KubeError` where there is no API to talk to, and `NoPort`.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Kube.open(find_login) as kube:
        log.info("%s", _plan(kube, options))
        if not await _definition_is_there(kube, stop):
            return
        identity = f"{socket.gethostname()}_{uuid4().hex[:8]}"
        leadership = Leadership(kube, options.lease_namespace, options.lease_name, identity)
        operator = Operator(kube, Cluster(), leadership)
        async with serve(operator, options.host, options.port) as port:
            log.info("%s listens on port %d", identity, port)
            await _work(operator, options, stop)
            await leadership.give_up()
        await operator.brokers.close()


def _plan(kube: Kube, options: Options) -> str:
    """What this process is about to do, and where: a wrong context is seen at once."""
    namespaces = (
        f"namespaces {', '.join(options.namespaces)}" if options.namespaces else "all namespaces"
    )
    lease = f"{options.lease_namespace}/{options.lease_name}"
    return f"scales WorkerPools of {namespaces} at {kube.server}; the leader's lease is {lease}"


async def _definition_is_there(kube: Kube, stop: asyncio.Event) -> bool:
    """Wait for the WorkerPool definition; false when we are to stop before.

    Raises `KubeError` where the API server hasn't answered for `PATIENCE` seconds.
    """
    answered_at, told = time.monotonic(), ""
    while not stop.is_set():
        lacks = "waiting for the definition of WorkerPool: apply the CRD"
        try:
            if await definition.is_served(kube):
                return True
            answered_at = time.monotonic()
        except Misconfigured:
            raise
        except KubeError as error:
            if time.monotonic() - answered_at > PATIENCE:
                raise Unreachable(
                    f"{kube.server} is of no use for {PATIENCE:.0f} s: {error}. Is it up, the "
                    f"cluster that is meant, and are you let in? kubectl version says so, too."
                ) from error
            lacks = f"the definition of WorkerPool can't be looked for: {error}"
        if lacks != told:
            log.warning("%s", lacks)
            told = lacks
        await wait_at_most(stop.wait(), CRD_WAIT)
    return False


async def _work(operator: Operator, options: Options, stop: asyncio.Event) -> None:
    """All loops, until one of them ends or we are to stop."""
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in {
            "stop": stop.wait(),
            "leader": operator.leadership.run(),
            "pools": operator.run(),
            "prune": _prune(operator, options.namespaces),
            "informing": _inform(operator, options.namespaces),
            "definition": definition.compare(operator.kube),
            "watches": _watch(operator.cluster, options),
        }.items()
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()


async def _watch(cluster: Cluster, options: Options) -> None:
    registry = watch(cluster)

    async def login(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 - kopf's own
        return find_login()

    kopf.on.login(registry=registry)(login)
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.networking.error_backoffs = Backoffs()
    settings.watching.server_timeout = WATCH_TIMEOUT
    settings.watching.client_timeout = WATCH_TIMEOUT + 10
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not options.namespaces,
        namespaces=options.namespaces,
    )


async def _inform(operator: Operator, namespaces: Sequence[str]) -> None:
    """Know whether we hear of everything.

    Without rights kopf tries again, and has heard nothing meanwhile; with them it needs a moment.
    """
    blind = None
    while True:
        blind = await look_at_rights(operator.kube, namespaces, blind)
        if blind is not None:
            operator.blind, operator.is_informed = blind, False
        elif not operator.is_informed and await _has_heard_all(operator, namespaces):
            operator.blind, operator.is_informed = None, True
        is_known = operator.is_informed or blind is not None
        await asyncio.sleep(RIGHTS_EVERY if is_known else LISTEN_EVERY)


async def _has_heard_all(operator: Operator, namespaces: Sequence[str]) -> bool:
    try:
        return await has_heard_all(operator.kube, operator.cluster, namespaces)
    except KubeError as error:
        log.warning("the cluster can't be listed: %s", error)
        return False


async def _prune(operator: Operator, namespaces: Sequence[str]) -> None:
    """Forget pods that went away while nobody listened."""
    paths = paths_of(*PODS, namespaces)
    while True:
        await asyncio.sleep(PRUNE_EVERY)
        known = {uid for pods in operator.cluster.pods.values() for uid in pods}
        try:
            there = {uid for path in paths for uid in await operator.kube.uids(path)}
        except KubeError as error:
            log.warning("pods can't be listed: %s", error)
            continue
        operator.cluster.forget_pods(known - there)
