"""The operator's loop: once a second all pools are looked at, by whoever leads."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Histogram

from jangada_operator.brokers import Broker, Brokers, UnreadableBroker
from jangada_operator.kube import Kube, KubeError
from jangada_operator.leader import Leadership
from jangada_operator.secrets import Secrets
from jangada_operator.watching import Cluster, Written
from jangada_operator.workerpool.draining import Target
from jangada_operator.workerpool.observing import Look
from jangada_operator.workerpool.reasons import Trouble
from jangada_operator.workerpool.reconciling import (
    Managed,
    Sight,
    Unread,
    problem_of,
    reconcile,
    refuse,
    refuse_unreadable,
)
from jangada_operator.workerpool.spec import OPERATOR, Pool, PoolKey
from jangada_operator.workerpool.status import Problem

INTERVAL: Final = 1.0
AT_ONCE: Final = 20
"""So many pools are acted on at the same time."""

OTHERS_EVERY: Final = 30.0
"""How often it is looked whether something else scales the same targets, in seconds."""

log = logging.getLogger(__name__)


def new_look_seconds() -> Histogram:
    """Within a look all pools are decided about, so it says how old a decision's inputs may be."""
    return Histogram(
        "jangada_operator_look_seconds",
        "How long a look at all pools took, with what was done about them.",
        buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        registry=None,
    )


@dataclass(slots=True)
class Operator:
    """All pools of one operator process."""

    kube: Kube
    cluster: Cluster
    leadership: Leadership
    brokers: Brokers = field(default_factory=Brokers)
    managed: dict[PoolKey, Managed] = field(default_factory=dict)
    looked_at: float = 0.0
    """When all pools were last looked at, by a clock that never jumps."""
    look_seconds: Histogram = field(default_factory=new_look_seconds)
    errors: int = 0
    blind: Problem | None = None
    """Why what was heard of the cluster isn't all that is there."""
    is_informed: bool = False
    """Whether all that is there was heard of: before that, pods that run seem to be missing."""
    _secrets: Secrets = field(init=False)
    _rooms: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _others: dict[PoolKey, str] = field(default_factory=dict)
    _others_at: float = 0.0
    _unreadable: dict[PoolKey, Unread] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._secrets = Secrets(self.kube)

    async def run(self) -> None:
        """Look for as long as we lead, until cancelled."""
        while True:
            began = time.monotonic()
            if not self.leadership.is_held:
                self.managed.clear()
            elif self.is_informed or self.blind is not None:
                await self.look()
                self.look_seconds.observe(time.monotonic() - began)
            self.looked_at = time.monotonic()
            await asyncio.sleep(max(0.0, INTERVAL - (time.monotonic() - began)))

    async def look(self) -> None:
        """Look at all pools once, but for those whose broker takes its time."""
        self._take_in()
        await self._refuse_unreadable()
        await self._look_for_others()
        served: dict[PoolKey, tuple[Pool, Broker]] = {}
        problems: dict[PoolKey, Problem] = {}
        for key, managed in self.managed.items():
            found = await self._broker_of(managed)
            if isinstance(found, Problem):
                problems[key] = found
            else:
                served[key] = (managed.pool, found)
        await self.brokers.keep(broker for _, broker in served.values())
        looks = await self.brokers.look(served)
        await asyncio.gather(
            *(self._guarded(self.managed[key], problem=each) for key, each in problems.items()),
            *(
                self._guarded(self.managed[key], look=look, broker=served[key][1])
                for key, look in looks.items()
            ),
        )

    def _take_in(self) -> None:
        """Pools that came, went or were changed. What can't be read any more is left as it is."""
        ours = self._ours()
        for key in [key for key in self.managed if key not in ours]:
            del self.managed[key]
        for key, written in ours.items():
            if written.pool is None:
                self.managed.pop(key, None)
                continue
            if key not in self.managed or self.managed[key].pool.uid != written.pool.uid:
                self.managed[key] = Managed.new(
                    written.pool, self.kube, self.leadership, written.body
                )
            elif self.managed[key].pool is not written.pool:
                self.managed[key].take(written.pool)

    def _ours(self) -> dict[PoolKey, Written]:
        """Those that name no operator, or this one: another's may be acted on at this moment."""
        own = self.leadership.name
        return {
            key: each
            for key, each in self.cluster.pools.items()
            if (each.body["metadata"].get("labels") or {}).get(OPERATOR, own) == own
        }

    async def _broker_of(self, managed: Managed) -> Broker | Problem:
        try:
            url = await self._secrets.url_of(managed.pool, is_in_trouble=managed.is_in_trouble)
            if isinstance(url, Problem):
                return url
            found = self.brokers.of(url, managed.pool.prefix)
        except UnreadableBroker as error:
            name = managed.pool.broker.name
            return Problem(Trouble.SECRET_INVALID, f"The URL in secret {name} is none: {error}.")
        except KubeError as error:
            return problem_of(error)
        managed.use(url)
        return found

    async def _guarded(
        self,
        managed: Managed,
        *,
        problem: Problem | None = None,
        look: Look | None = None,
        broker: Broker | None = None,
    ) -> None:
        """One pool's trouble is none of the others'."""
        async with self._rooms:
            try:
                sight: Sight | Problem | None = problem
                if look is not None and broker is not None:
                    sight = self._sight(managed.pool, look, broker)
                if isinstance(sight, Sight):
                    await reconcile(self.kube, managed, sight)
                elif sight is not None:
                    await refuse(self.kube, managed, sight, self._size(managed.pool))
            except KubeError as error:
                self.errors += 1
                await self._tell_trouble(managed, error)
            except Exception:
                self.errors += 1
                log.exception("%s can't be looked after", managed.pool.key)

    async def _tell_trouble(self, managed: Managed, error: KubeError) -> None:
        log.warning("%s: %s", managed.pool.key, error)
        try:
            await refuse(self.kube, managed, problem_of(error), self._size(managed.pool))
        except KubeError:
            log.warning("%s can't be told so either", managed.pool.key)

    def _taken_by(self, pool: Pool) -> str | None:
        """The pool that has the same target and was there before."""
        for key, written in self.cluster.pools.items():
            other = written.pool
            if other is None or key == pool.key or key.namespace != pool.key.namespace:
                continue
            is_older = (other.created, other.uid) < (pool.created, pool.uid)
            if other.deployment == pool.deployment and is_older:
                return f"WorkerPool {key.name}"
        return None

    async def _look_for_others(self) -> None:
        """HPAs of the same targets; a ScaledObject makes one, too."""
        now = time.monotonic()
        if now - self._others_at < OTHERS_EVERY and self._others_at:
            return
        self._others_at = now
        found: dict[PoolKey, str] = {}
        for namespace in {key.namespace for key in self.managed}:
            path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
            try:
                listed = await self.kube.get(path)
            except KubeError as error:
                log.warning("other autoscalers can't be looked for: %s", error)
                continue
            for each in listed["items"] or ():
                target = each["spec"]["scaleTargetRef"]
                if target["kind"] == "Deployment":
                    name = f"HorizontalPodAutoscaler {each['metadata']['name']}"
                    found[PoolKey(namespace, target["name"])] = name
        self._others = found

    def _sight(self, pool: Pool, look: Look, broker: Broker) -> Sight | Problem:
        name = pool.deployment
        if self.blind is not None:
            return self.blind
        deployment = self.cluster.deployments.get(PoolKey(pool.key.namespace, name))
        if deployment is None:
            return Problem(
                Trouble.TARGET_MISSING, f"There is no Deployment {name} in this namespace."
            )
        if (other := self._taken_by(pool)) is not None:
            text = f"{other} scales {name} already: give this pool another target, or delete one."
            return Problem(Trouble.TARGET_TAKEN, text)
        if (scaler := self._others.get(PoolKey(pool.key.namespace, name))) is not None:
            text = f"{scaler} scales {name}, too: delete it, or this pool."
            return Problem(Trouble.OTHER_AUTOSCALER, text)
        if (newest := self.cluster.newest(deployment)) is None:
            return Problem(Trouble.TARGET_STARTING, f"{name} has no ReplicaSet yet.")
        pods = self.cluster.pods_of(deployment)
        target = Target(
            namespace=pool.key.namespace,
            deployment=deployment.name,
            newest=newest,
            pods={uid: pod for uid, pod in pods.items() if pod.owner == newest.uid},
            may_shrink=deployment.is_rolled_out or deployment.is_overdue,
        )
        return Sight(deployment, target, pods, look, broker.client)

    def _size(self, pool: Pool) -> int | None:
        found = self.cluster.deployments.get(PoolKey(pool.key.namespace, pool.deployment))
        return None if found is None else found.replicas

    async def _refuse_unreadable(self) -> None:
        """Tell pools whose spec can't be read why."""
        unreadable = {key: each for key, each in self._ours().items() if each.pool is None}
        self._unreadable = {
            key: each for key, each in self._unreadable.items() if key in unreadable
        }
        for key, written in unreadable.items():
            unread = self._unreadable.get(key)
            if unread is None:
                unread = self._unreadable[key] = Unread.new(written.body)
            try:
                await refuse_unreadable(self.kube, unread, written.body, written.why)
            except KubeError as error:
                log.warning("%s can't be told what is wrong with it: %s", key, error)
