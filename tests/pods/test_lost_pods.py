"""Pods that die under load: what clients see, and that no job is lost or done twice.

Figures are told, not judged; `docs/kill-matrix.md` has them.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import httpx
import pytest
from node import asker, traffic
from node.release import NAME, WORKERS, Release
from node.traffic import Traffic

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]

JOBS = 4
REFUSED = "ConnectError"
UNAVAILABLE = ("database.unavailable", "database.busy", REFUSED)
"""How a request may fail without PostgreSQL: told so, also that others wait for it, or refused,
since no API pod is ready. None hangs."""

BROKEN = (REFUSED, "ReadError", "RemoteProtocolError")
"""How one may fail whose server is killed."""

type Say = Callable[[str], None]


def started(ana: httpx.Client, job: str) -> float:
    """When it was, on the clock of the machine, which is the nodes' as well."""
    return datetime.fromisoformat(traffic.ended(ana, job)["started_at"]).timestamp()


def test_postgresql_s_pod_is_deleted(
    shop: Release, ana: httpx.Client, seen: Traffic, say: Say
) -> None:
    """It is killed after a second, amid imports, and finds its volume again."""
    jobs: list[str] = []
    with shop.exactly(ana, jobs):
        with seen.at_rate():
            jobs += [traffic.send_import(ana) for _ in range(JOBS)]
            traffic.wait_running(ana, jobs[0])
            gone = time.monotonic()
            back = shop.replace(f"{NAME}-dev-postgres-0")
            served = seen.wait_served()
        waiting = [traffic.send_import(ana)]
        jobs += waiting
    say(
        f"PostgreSQL's pod deleted: ready again after {back - gone:.1f} s, requests succeed "
        f"{served - back:.1f} s later; {traffic.summary(seen.answers)}"
    )
    assert unexpected(seen, UNAVAILABLE) == []


def unexpected(seen: Traffic, known: Sequence[str]) -> list[str]:
    failed = traffic.troubles(seen.answers)
    return [each for each in failed if not any(name in each for name in known)]


def test_valkey_s_pod_is_away_and_comes_back(
    shop: Release, ana: httpx.Client, seen: Traffic, say: Say
) -> None:
    """Requests don't notice; what was accepted without it starts when it is back."""
    jobs: list[str] = []
    with shop.exactly(ana, jobs), seen.at_rate():
        jobs.append(traffic.send_import(ana))
        traffic.wait_running(ana, jobs[0])
        with shop.scaled({"dev-valkey": 0}, "statefulsets"):
            waiting = [traffic.send_import(ana) for _ in range(JOBS)]
            jobs += waiting
            assert {traffic.state(ana, job) for job in waiting} == {"available"}
        back = time.time()
        begun = sorted(started(ana, job) - back for job in waiting)
    say(
        f"Valkey's pod away: jobs that waited started {begun[0]:.1f} to {begun[-1]:.1f} s after it "
        f"was ready again; {traffic.summary(seen.answers)}"
    )
    assert traffic.troubles(seen.answers) == []


def test_an_api_pod_is_deleted(shop: Release, seen: Traffic, say: Say) -> None:
    with seen.at_rate():
        seen.wait_for(int(asker.RATE))
        pod = shop.pods("api")[0]["metadata"]["name"]
        shop.api.delete("pods", pod)
        shop.api.wait_for("pods", lambda found: found is None, name=pod, within=120)
        shop.wait_ready()
        seen.wait_served()
    say(f"an API pod deleted: {traffic.summary(seen.answers)}")
    assert traffic.troubles(seen.answers) == []


def test_api_processes_are_killed(
    shop: Release, ana: httpx.Client, seen: Traffic, say: Say
) -> None:
    """All at once, so there is nobody to go to until they are started again; jobs go on."""
    jobs: list[str] = []
    with shop.exactly(ana, jobs), seen.at_rate():
        jobs += [traffic.send_import(ana) for _ in range(JOBS)]
        traffic.wait_running(ana, jobs[0])
        gone = time.monotonic()
        back = shop.kill("api")
        served = seen.wait_served()
    say(
        f"both API processes killed: ready again after {back - gone:.1f} s, requests succeed since "
        f"{served - gone:.1f} s; {traffic.summary(seen.answers)}"
    )
    assert unexpected(seen, BROKEN) == []


def test_without_any_api_jobs_run(shop: Release, ana: httpx.Client) -> None:
    jobs: list[str] = []
    with shop.exactly(ana, jobs):
        jobs += [traffic.send_import(ana) for _ in range(JOBS)]
        with shop.scaled({"api": 0}):
            shop.wait_sql("SELECT count(*) FROM jobs WHERE state IN ('available', 'running')", "0")
            assert shop.pods("api") == []


def test_dispatchers_are_killed(shop: Release, ana: httpx.Client, seen: Traffic, say: Say) -> None:
    say(kill_amid_imports(shop, ana, seen, "dispatcher"))
    assert traffic.troubles(seen.answers) == []


def test_the_operator_is_killed(shop: Release, ana: httpx.Client, seen: Traffic, say: Say) -> None:
    say(kill_amid_imports(shop, ana, seen, "operator"))
    assert traffic.troubles(seen.answers) == []


def kill_amid_imports(shop: Release, ana: httpx.Client, seen: Traffic, component: str) -> str:
    """All of them, before there is a worker for the imports; answers what became of these."""
    jobs: list[str] = []
    shop.wait_count(WORKERS, 0)
    with shop.exactly(ana, jobs), seen.at_rate():
        jobs += [traffic.send_import(ana) for _ in range(JOBS)]
        gone, clock = time.monotonic(), time.time()
        back = shop.kill(component)
        begun = sorted(started(ana, job) - clock for job in jobs)
    return (
        f"all of {component} killed: ready again after {back - gone:.1f} s, imports for which no "
        f"worker was there started {begun[0]:.1f} to {begun[-1]:.1f} s after it; "
        f"{traffic.summary(seen.answers)}"
    )
