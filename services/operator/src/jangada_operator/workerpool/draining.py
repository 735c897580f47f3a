"""Scale-down in three states that outlive us: draining, empty, committed.

- *Draining*: a flag in every queue of the pool, by the pod's UID, so that all its processes obey,
  also those that come later. It lasts a minute and is renewed; when we are gone, workers claim
  again.
- *Empty*: one script says that the flag stands and no process of the pod claims, holds or runs
  anything. Only then the pod's deletion cost is lowered (`pricing`), and read back some seconds
  later.
- *Committed*: the Deployment's size is lowered by as many, where its ReplicaSet would delete
  exactly those (`committing`), with the resource version that this was judged by. Before this step
  a pod can come back at any time; after it only if another one was deleted in its place.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from jangada_operator.kube import Kube, Refused
from jangada_operator.workerpool.cluster import Pod, ReplicaSet, read_pod
from jangada_operator.workerpool.committing import why_not
from jangada_operator.workerpool.pricing import lower_cost, restore_cost
from jangada_operator.workerpool.spec import Pool
from jangada_queue.client import QueueClient
from jangada_queue.workers import FORGET_AFTER, STALE, flag_drain, is_empty, unflag_drain

FLAG: Final = timedelta(seconds=60)
RENEW: Final = 15.0
A_SECOND: Final = timedelta(seconds=1)
READ_BACK: Final = 3.0
"""Seconds after which a deletion cost has reached every cache that matters."""


class Mandate(Protocol):
    """Whether we may still act: a leader that lost its lease may not."""

    @property
    def is_held(self) -> bool: ...


@dataclass(slots=True)
class Drain:
    """One pod on its way out. Moments are those of a clock that never jumps."""

    pod: str
    flag: str
    since: float
    renewed: float
    costed: float | None = None
    committed: int | None = None
    """The generation of the ReplicaSet that was told last, before the size was lowered for it."""

    @property
    def is_committed(self) -> bool:
        return self.committed is not None


@dataclass(slots=True)
class Target:
    """Where the pods are, as they are known: `pods` are those of `newest`, by UID."""

    namespace: str
    deployment: str
    newest: ReplicaSet
    pods: Mapping[str, Pod]
    may_shrink: bool


@dataclass(slots=True)
class Happened:
    """What a step did, for events and figures."""

    committed: int = 0
    mispicked: int = 0
    held: str = ""
    """Why empty pods weren't committed."""
    begun: list[str] = field(default_factory=list)
    """The pods that were asked to drain now, by name."""
    returned: list[str] = field(default_factory=list)
    """Those that aren't to drain any more."""
    draining: Collection[str] = ()
    """All that drain and may still come back, by name."""
    serving: Collection[str] = ()
    """All others that are there."""


@dataclass(slots=True)
class Drains:
    """All pods of one pool that are on their way out."""

    pool: Pool
    kube: Kube
    mandate: Mandate
    current: dict[str, Drain] = field(default_factory=dict)

    def drained_for(self, uid: str) -> float:
        drain = self.current.get(uid)
        return 0.0 if drain is None else time.monotonic() - drain.since

    def parted(self, pods: Iterable[Pod]) -> tuple[Collection[str], Collection[str]]:
        """Who of them drains and may still come back, and who doesn't drain, by name."""
        there = [pod for pod in pods if pod.is_active]
        free = {uid for uid, each in self.current.items() if not each.is_committed}
        return (
            {pod.name for pod in there if pod.uid in free},
            {pod.name for pod in there if pod.uid not in self.current},
        )

    def forget(self) -> None:
        """Of those that aren't committed: their flags end by themselves, their costs by `_tidy`."""
        self.current = {uid: each for uid, each in self.current.items() if each.is_committed}

    async def step(
        self,
        queues: QueueClient,
        target: Target,
        *,
        wanted: Collection[str],
        overdue: Collection[str],
    ) -> Happened:
        """Bring those that are wanted gone one step further, and all others back."""
        happened = Happened()
        await self._settle(queues, target, happened)
        unwanted = [uid for uid in self.current if uid not in wanted]
        happened.returned += self._names(target, unwanted)
        await self.release(queues, target, unwanted)
        await self._tidy(target)
        fresh = [uid for uid in wanted if uid in target.pods]
        happened.begun += [target.pods[uid].name for uid in fresh if uid not in self.current]
        await self._flag(queues, fresh)
        if target.may_shrink:
            await self._shrink(queues, target, overdue, happened)
        return happened

    async def release(self, queues: QueueClient, target: Target, uids: Iterable[str]) -> None:
        """Have them claim again; who is committed already is left to `_settle`."""
        for uid in list(uids):
            drain = self.current[uid]
            if drain.is_committed:
                continue
            if drain.costed is not None:
                await restore_cost(self.kube, target.namespace, drain.pod)
            await unflag_drain(queues, self.pool.queues, uid)
            del self.current[uid]

    def _names(self, target: Target, uids: Iterable[str]) -> list[str]:
        """Of those that are there and can still come back."""
        free = (uid for uid in uids if not self.current[uid].is_committed)
        return [target.pods[uid].name for uid in free if uid in target.pods]

    async def _flag(self, queues: QueueClient, uids: Sequence[str]) -> None:
        now = time.monotonic()
        for uid in uids:
            drain = self.current.get(uid)
            if drain is None or now - drain.renewed >= RENEW:
                before = "" if drain is None else drain.flag
                flag = await flag_drain(queues, self.pool.queues, uid, FLAG, flag=before)
                if drain is None:
                    self.current[uid] = Drain("", flag, since=now, renewed=now)
                else:
                    drain.flag, drain.renewed = flag, now

    async def _shrink(
        self,
        queues: QueueClient,
        target: Target,
        overdue: Collection[str],
        happened: Happened,
    ) -> None:
        ripe, now = [], time.monotonic()
        for uid, drain in self.current.items():
            if drain.is_committed or uid not in target.pods:
                continue
            drain.pod = target.pods[uid].name
            is_free = uid in overdue or await self._is_empty(queues, target.pods[uid])
            if drain.costed is not None and not is_free:
                await restore_cost(self.kube, target.namespace, drain.pod)
                drain.costed = None
            elif drain.costed is None and is_free:
                await lower_cost(self.kube, target.namespace, drain.pod)
                drain.costed = now
            elif drain.costed is not None and now - drain.costed >= READ_BACK:
                ripe.append(uid)
        if ripe:
            await self._commit(target, ripe, happened)

    async def _is_empty(self, queues: QueueClient, pod: Pod) -> bool:
        """A process that fell silent before its container was started has died with the last one.

        That needs the clocks of nodes and operator to agree within the second that a worker takes
        to say its first word; a moment in the API is a whole number of seconds. By a node whose
        clock is ahead, so that its container hasn't been started yet, nothing is judged.
        """
        alive_for = FORGET_AFTER
        if pod.alive_since is not None and pod.alive_since <= (now := time.time()):
            age = timedelta(seconds=now - pod.alive_since) - A_SECOND
            alive_for = min(FORGET_AFTER, max(STALE, age))
        return await is_empty(queues, self.pool.queues, pod.uid, alive_for=alive_for)

    async def _commit(self, target: Target, ripe: Sequence[str], happened: Happened) -> None:
        """Judge by what the API says now, not by what we have heard."""
        path = f"/apis/apps/v1/namespaces/{target.namespace}/deployments/{target.deployment}/scale"
        scale = await self.kube.get(path)
        replicas = scale["spec"].get("replicas", 0)
        active = await self.active(target, scale["status"]["selector"])
        happened.held = why_not(active, ripe, replicas) or ""
        if happened.held or not self.mandate.is_held:
            return
        body = {
            "metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]},
            "spec": {"replicas": replicas - len(ripe)},
        }
        try:
            await self.kube.merge(path, body)
        except Refused as error:
            if not error.is_conflict:
                raise
            happened.held = "the Deployment changed meanwhile; it is judged again"
            return
        for uid in ripe:
            self.current[uid].committed = target.newest.generation
        happened.committed = len(ripe)

    async def active(self, target: Target, selector: str) -> list[Pod]:
        """The pods that the newest ReplicaSet counts, by what the API says now."""
        path = f"/api/v1/namespaces/{target.namespace}/pods"
        found = await self.kube.get(path, labelSelector=selector)
        pods = [pod for body in found["items"] or () if (pod := read_pod(body)) is not None]
        return [pod for pod in pods if pod.owner == target.newest.uid and pod.is_active]

    async def _tidy(self, target: Target) -> None:
        """Take back the deletion costs that an operator before us left."""
        if not target.newest.is_settled:
            return
        for uid, pod in target.pods.items():
            if pod.is_ours and uid not in self.current and pod.is_active:
                await restore_cost(self.kube, target.namespace, pod.name)

    async def _settle(self, queues: QueueClient, target: Target, happened: Happened) -> None:
        """Forget who is gone. Who stayed though the size was lowered for it comes back."""
        for uid, drain in list(self.current.items()):
            pod = target.pods.get(uid)
            if pod is None or pod.is_deleted:
                del self.current[uid]
                if pod is None:
                    await unflag_drain(queues, self.pool.queues, uid)
            elif await self._was_spared(target, drain):
                happened.mispicked += 1
                drain.committed = None
                await self.release(queues, target, [uid])

    async def _was_spared(self, target: Target, drain: Drain) -> bool:
        """Whether the ReplicaSet is as small as it should be, and the pod is there."""
        newest = target.newest
        if drain.committed is None or not newest.is_settled or newest.generation <= drain.committed:
            return False
        return await self._stays(target, drain.pod)

    async def _stays(self, target: Target, pod: str) -> bool:
        try:
            body = await self.kube.get(f"/api/v1/namespaces/{target.namespace}/pods/{pod}")
        except Refused as error:
            if error.is_missing:
                return False
            raise
        live = read_pod(body)
        return live is not None and live.is_active
