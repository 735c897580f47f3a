"""A namespace of a bed for one test, with a queue of its own and whoever enqueues there."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chaos.application import register
from chaos.columns import SHORT
from chaos.harness import until
from chaos.ledger import Ledger
from taskiq.kicker import AsyncKicker

from cluster.api import Api, Object
from cluster.bed import Bed
from cluster.kubelet import Kubelet
from cluster.workers import KEY, SECRET, application, deployment, taskiq_worker
from jangada_queue.client import QueueClient
from jangada_queue.statistics import QueueStats, queue_stats
from jangada_queue.taskiq import LeasedStreamBroker

PATIENCE: Final = 240.0
POLL: Final = 0.05


@dataclass(slots=True)
class Field:
    """Everything around one test of workers in a cluster."""

    bed: Bed
    kubelet: Kubelet
    api: Api
    url: str
    ledger: Ledger
    queue: str
    sender: LeasedStreamBroker
    client: QueueClient
    _sent: int = 0

    @property
    def namespace(self) -> str:
        return self.api.namespace

    def deploy(
        self,
        name: str,
        *,
        replicas: int,
        slots: int = 1,
        environ: Mapping[str, str] | None = None,
        **how: Any,  # noqa: ANN401 - what `deployment` takes
    ) -> Object:
        """Make a Deployment of workers of this field's queue; answers it."""
        told = application(self.ledger.folder, self.queue, **SHORT.leases)
        how = {"command": taskiq_worker(slots=slots), **how}
        made = deployment(name, replicas=replicas, environ={**told, **(environ or {})}, **how)
        return self.api.apply(made)

    def pods(self, name: str) -> list[Object]:
        return [*self.api.list("pods", selector=f"app={name}")]

    def wait_ready(self, name: str, count: int) -> list[Object]:
        """Wait until exactly so many pods of a Deployment are there, and ready."""
        selector = f"app={name}"
        ready: list[Object] = self.api.wait_for(
            "pods", lambda pods: all_ready(pods, count), selector=selector
        )
        return ready

    async def wait_working(self, name: str, count: int) -> list[Object]:
        """Wait until exactly so many are ready, and each of them has reported to the queue.

        Ready may come first: without a probe a pod is ready as soon as its process is up.
        """
        pods = self.wait_ready(name, count)
        uids = {pod["metadata"]["uid"] for pod in pods}
        end = asyncio.get_running_loop().time() + PATIENCE
        while not uids <= (reported := await self.reported()):
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(f"{uids - reported} never reported:\n{self.last_words}")
            await asyncio.sleep(POLL)
        return pods

    async def reported(self) -> set[str]:
        """The pods that workers of the queue say they are in."""
        return {report.pod for report in (await self.statistics()).workers}

    async def says_busy(self, pod: Object) -> bool:
        """Whether the pod has said that it runs something: what it does is known a second later."""
        uid = pod["metadata"]["uid"]
        workers = (await self.statistics()).workers
        return any(report.busy for report in workers if report.pod == uid)

    @property
    def last_words(self) -> str:
        """The ends of the pods' logs, for messages."""
        return self.kubelet.last_words(self.namespace)

    async def send(self, kind: str = "hold", **arguments: Any) -> str:  # noqa: ANN401 - the task's own
        """Enqueue a job with a name of its own."""
        self._sent += 1
        job = f"{kind}-{self._sent}"
        self.ledger.write("perhaps", job)
        kicker: AsyncKicker[Any, Any] = AsyncKicker(kind, self.sender, {})
        await kicker.kiq(job, **arguments)
        self.ledger.write("enqueued", job)
        return job

    async def started(self, job: str, times: int = 1) -> bool:
        return await until(lambda: len(self.ledger.of("start", job)) >= times, PATIENCE)

    async def settled(self) -> bool:
        """Wait until all that was enqueued has ended."""
        return await until(
            lambda: self.ledger.jobs("enqueued") <= self.ledger.jobs("end"), PATIENCE
        )

    def open_gate(self, name: str) -> None:
        """Let the jobs go on that wait for it."""
        (self.ledger.folder / name).touch()

    async def statistics(self) -> QueueStats:
        (found,) = await queue_stats(self.client, [self.queue])
        return found

    def pod_of(self, job: str) -> Object:
        """Where the job was started last."""
        pid = self.ledger.of("start", job)[-1].pid
        for uid, life in self.kubelet.running(self.namespace).items():
            if pid in life.pids:
                return self.api.get("pods", life.name) | {"uid": uid}
        raise LookupError(f"no pod runs {job}, which process {pid} started")


def all_ready(pods: list[Object], count: int) -> list[Object]:
    """The pods, when they are so many and all of them ready; else none."""
    return pods if len(pods) == count and all(map(is_ready, pods)) else []


def is_ready(pod: Object) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


@asynccontextmanager
async def field(bed: Bed, kubelet: Kubelet, url: str, folder: Path) -> AsyncIterator[Field]:
    """A field whose namespace is gone afterwards, and with it its processes; `folder` is there."""
    name = f"test-{secrets.token_hex(4)}"
    sender = LeasedStreamBroker(url, queue_name=name)
    register(sender, str(folder))
    await sender.startup()
    try:
        with bed.api() as admin, admin.make_namespace(name) as api:
            api.secret(SECRET, **{KEY: url})
            try:
                yield Field(bed, kubelet, api, url, Ledger(folder), name, sender, sender.client)
            finally:
                _clear(api)
    finally:
        await sender.shutdown()


def _clear(api: Api) -> None:
    """Remove what runs there at once; the controllers remove the rest when they come to it."""
    api.delete("namespaces", api.namespace)
    api.delete_all("pods", grace=0)
    api.wait_for("pods", lambda pods: not pods)
