"""The chart with everything real: containers of our images, a database, volumes, Services."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import httpx
import pytest
from cluster.api import Object
from node import traffic
from node.release import NAME, VERSIONS, WORKERS, Release, is_ready
from node.traffic import Traffic
from toolchain import ROOT

from jangada.migrations.revisions import head

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]

USERS = 4
IMPORTS = 8
"""Of each of them at once: half a minute for one worker, however fast the machine is."""

type Say = Callable[[str], None]


def test_its_pods_are_ready_and_restricted(shop: Release) -> None:
    """The namespace refuses anything else; that each is ready says that it works all the same."""
    with shop.node.api() as admin:
        labels = admin.get("namespaces", shop.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    shop.wait_ready()
    found = [pod for pod in shop.api.list("pods") if component(pod) != WORKERS]
    running = [pod for pod in found if pod["status"]["phase"] == "Running"]
    assert {component(pod) for pod in running} == {
        *("api", "dispatcher", "operator", "dev-postgres", "dev-valkey")
    }
    assert all(map(is_ready, running))
    ended = [pod for pod in found if pod not in running]
    assert {component(pod) for pod in ended} <= {"migrate"}
    assert {pod["status"]["phase"] for pod in ended} <= {"Succeeded"}, "the first try did it"


def component(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def test_a_pod_says_what_it_waits_for(shop: Release) -> None:
    said = [
        shop.kubectl("logs", pod["metadata"]["name"], "--container=wait-for-schema")
        for pod in shop.pods("api")
    ]
    assert all(f"The schema is at {head()}; this release needs {head()}." in each for each in said)
    assert all("alembic" not in each for each in said)


def test_contacts_are_imported_through_the_service(shop: Release, ana: httpx.Client) -> None:
    file = (ROOT / "docs/examples/google.csv").read_bytes()
    job = traffic.send(ana, file)
    assert traffic.follow(ana, job)[-1]
    assert traffic.state(ana, job) == "completed"
    counts = traffic.statistics(ana, job)
    assert counts["rows"] > 0
    listed = ana.get("/v1/contacts?limit=100").json()["data"]
    assert len(listed) == counts["inserted"]


def test_a_pool_follows_its_queue_from_nothing_to_nothing(
    shop: Release, url: str, say: Say
) -> None:
    """Of several users, who all send at once."""
    shop.wait_count(WORKERS, 0)
    with ExitStack() as users:
        people = [users.enter_context(closing(traffic.sign_in(url))) for _ in range(USERS)]
        began = time.monotonic()
        jobs = [(each, traffic.send_import(each)) for _ in range(IMPORTS) for each in people]
        sent = time.monotonic()
        shop.wait_pods(WORKERS, lambda pods: any(map(is_ready, pods)))
        woke = time.monotonic()
        shop.wait_pods(WORKERS, lambda pods: sum(map(is_ready, pods)) >= 2)
        grown = time.monotonic()
        for each, job in jobs:
            traffic.follow(each, job)
        ended = time.monotonic()
        shop.wait_count(WORKERS, 0)
        gone = time.monotonic()
        assert {traffic.state(each, job) for each, job in jobs} == {"completed"}
    say(
        f"{len(jobs)} imports of {traffic.ROWS} rows, sent in {sent - began:.0f} s: the first "
        f"worker ready after {woke - began:.0f} s, two after {grown - began:.0f} s, all done after "
        f"{ended - began:.0f} s, no worker {gone - ended:.0f} s later"
    )


def test_nobody_notices_an_upgrade_and_a_rollback(
    shop: Release, ana: httpx.Client, seen: Traffic, say: Say
) -> None:
    jobs = list[str]()
    with shop.exactly(ana, jobs), seen.at_rate(), traffic.importing(ana, jobs):
        before = seen.calm()
        began = time.monotonic()
        shop.apply(VERSIONS[1])
        upgraded = time.monotonic()
        shop.roll_back()
        back = time.monotonic()
    calm = seen.within(before)
    say(f"before: {traffic.summary(calm)}")
    for what, since, until in (("upgrade", began, upgraded), ("rollback", upgraded, back)):
        during = seen.within((since, until))
        say(f"{what}: {until - since:.0f} s, {traffic.compared(during, calm)}")
    assert traffic.troubles(seen.answers) == []
    assert shop.api.get("deployments", f"{NAME}-api")["metadata"]["generation"] >= 3
