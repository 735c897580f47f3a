"""Two nodes, of which one after the other is drained under load, as `kubectl drain` does it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from cluster.api import Object
from node import traffic
from node.release import PART, Release
from node.settings import FIRST, SECOND, Machine
from node.traffic import Traffic, Window

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]

OURS = f"{PART} notin (dev-postgres,dev-valkey)"
"""PostgreSQL and Valkey stay where they are: `dev` has one of each."""


@pytest.fixture
def second(shop: Release) -> Iterator[None]:
    """A node more; all pods are on the first one again before it goes."""
    with ExitStack() as undo:
        shop.node.join(SECOND)
        undo.callback(shop.node.leave, SECOND)
        undo.callback(drain, shop, SECOND)
        undo.callback(shop.kubectl, "uncordon", FIRST.name)
        with shop.node.api() as admin:
            admin.wait_for("nodes", lambda found: found and is_ready(found), name=SECOND.name)
        yield


def is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def drain(shop: Release, machine: Machine) -> None:
    """Return when nothing of ours is there, and all is ready elsewhere."""
    shop.kubectl(
        *("drain", machine.name, "--ignore-daemonsets", "--delete-emptydir-data"),
        *(f"--pod-selector={OURS}", "--timeout=600s"),
    )
    shop.wait_ready()


def places(shop: Release) -> set[str]:
    """The nodes that pods of ours run on."""
    pods = shop.api.list("pods", selector=OURS)
    return {pod["spec"]["nodeName"] for pod in pods if pod["status"]["phase"] == "Running"}


@pytest.mark.usefixtures("second")
def test_nobody_notices_that_nodes_are_drained(
    shop: Release, seen: Traffic, ana: httpx.Client, say: Callable[[str], None]
) -> None:
    """Pods leave one by one, when others are ready; workers end what they run."""
    jobs, drains = list[str](), list[tuple[str, Window]]()
    with shop.exactly(ana, jobs), seen.at_rate(), traffic.importing(ana, jobs):
        before = seen.calm()
        for machine, other in ((FIRST, SECOND), (SECOND, FIRST)):
            interrupted = traffic.send_import(ana)
            traffic.wait_running(ana, interrupted)
            since = time.monotonic()
            drain(shop, machine)
            drains.append((machine.name, (since, time.monotonic())))
            jobs.append(interrupted)
            assert places(shop) == {other.name}
            shop.kubectl("uncordon", machine.name)
    calm = seen.within(before)
    say(f"before: {traffic.summary(calm)}")
    for name, (since, until) in drains:
        during = seen.within((since, until))
        say(f"{name} drained in {until - since:.0f} s: {traffic.compared(during, calm)}")
    assert traffic.troubles(seen.answers) == []
    attempts = [traffic.ended(ana, job)["attempt"] for job in jobs]
    assert attempts == [1] * len(jobs), "workers end their jobs before they go"
