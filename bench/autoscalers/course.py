"""One autoscaler under the load, from an empty control plane until it has no pod left."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import tools
from chaos.forkserver import ForkServer
from chaos.harness import until
from cluster.bed import Bed
from cluster.containers import START_DELAY
from cluster.field import Field, field
from cluster.kubelet import Kubelet
from cluster.workers import LedgerWitness, application

from autoscalers.contestants import NAME, SLOTS, Contestant
from autoscalers.measured import START, Measured, measured
from autoscalers.watching import Watch
from jangada.local.valkey import EmbeddedValkey
from jangada_operator.simulation.trace import Trace

PATIENCE: Final = 1200.0
"""Seconds that the end of all jobs, and then of all pods, is waited for."""

SAID_EVERY: Final = 15.0


async def run(contestant: Contestant, trace: Trace, forks: ForkServer, folder: Path) -> Measured:
    async with stage(contestant, forks, folder) as place:
        environ = application(place.ledger.folder, place.queue)
        notes = {START_DELAY: str(START)}
        place.deploy(NAME, replicas=0, slots=SLOTS, environ=environ, annotations=notes)
        contestant.manage(place)
        watch = Watch(place.api, NAME)
        with watch.running():
            speaking = asyncio.create_task(speak(contestant.name, place, watch))
            try:
                await send(place, trace)
                await wait_over(place, watch)
            finally:
                speaking.cancel()
                with suppress(asyncio.CancelledError):
                    await speaking
        assert not watch.troubles, watch.troubles
        return measured(
            contestant.name,
            trace=trace,
            ledger=place.ledger,
            lifetimes=watch.lifetimes,
            sizes=watch.sizes,
            exits=place.kubelet.exits(place.namespace),
        )


@asynccontextmanager
async def stage(contestant: Contestant, forks: ForkServer, folder: Path) -> AsyncIterator[Field]:
    """A control plane, a Valkey and the autoscaler, and a field; all of it ends afterwards."""
    jobs = folder / "jobs"
    jobs.mkdir(parents=True)
    with (
        EmbeddedValkey(folder / "valkey") as valkey,
        Bed(folder / "bed", tools.ensure(tools.CONTROL)) as bed,
        Kubelet(
            bed.api(bed.folder / "kubelet.kubeconfig"),
            folder / "kubelet",
            launch=forks.start,
            witness=LedgerWitness(),
        ) as kubelet,
        contestant.running(bed, folder),
    ):
        async with field(bed, kubelet, valkey.url, jobs) as place:
            yield place
        bed.check()
        assert not kubelet.troubles, kubelet.troubles


async def send(place: Field, trace: Trace) -> None:
    """An open load: jobs come when they come, whether or not any has started."""
    begun = time.monotonic()
    for at, seconds in zip(trace.arrivals, trace.services, strict=True):
        await asyncio.sleep(max(0.0, begun + at - time.monotonic()))
        await place.send(seconds=seconds)


async def wait_over(place: Field, watch: Watch) -> None:
    """Until all jobs have ended, and then until nobody is left."""

    def is_settled() -> bool:
        return place.ledger.jobs("enqueued") <= place.ledger.jobs("end")

    for is_over in (is_settled, watch.is_empty):
        if not await until(partial(_either, is_over, watch), PATIENCE):
            raise TimeoutError(f"not over after {PATIENCE:.0f} s:\n{place.last_words}")


def _either(is_over: Callable[[], bool], watch: Watch) -> bool:
    return bool(watch.troubles) or is_over()


async def speak(name: str, place: Field, watch: Watch) -> None:
    """Say how it goes, now and then."""
    begun = time.monotonic()
    while True:
        sent, started, ended = (
            len(place.ledger.jobs(what)) for what in ("enqueued", "start", "end")
        )
        say(
            f"{name}, {time.monotonic() - begun:.0f} s: {watch.sizes.now} replicas wanted, "
            f"{watch.lifetimes.count} pods, {sent - started} jobs wait, {started - ended} run, "
            f"{ended} ended"
        )
        await asyncio.sleep(SAID_EVERY)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
