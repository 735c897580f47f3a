"""What people and probes see of worker, dispatcher and queues."""

import asyncio
import json
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jangada.local.process import Command
from jangada.testing import PATIENCE
from jangada_queue.client import QueueClient
from jangada_queue.messages import Offer
from jangada_queue.statistics import QueueStats, queue_stats
from jangada_queue.workers import flag_drain, unflag_drain

if TYPE_CHECKING:
    from services.worker.tests.conftest import Raft

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


async def run(raft: "Raft", *arguments: str, **environ: str) -> tuple[int, str, str]:
    """A `jangada` command with the fleet's settings."""
    command = Command(
        argv=[sys.executable, "-m", "jangada", *arguments],
        environ={**raft.environment(), **environ},
    )
    done = await asyncio.to_thread(raft.forks.run, command)
    return done.returncode, done.stdout, done.stderr


async def until_listed(raft: "Raft") -> None:
    """Wait for the worker's first beat, which comes some time after it has begun to serve."""

    async def is_listed() -> bool:
        (stats,) = await queue_stats(raft.runtime.queue, ["default"])
        return bool(stats.workers)

    await raft.until(is_listed)


async def ask(raft: "Raft", path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        return await client.get(f"{raft.programs[0].management_url}{path}")


async def test_a_worker_is_live_and_ready(fleet: "Raft") -> None:
    assert (await ask(fleet, "/health/live")).json()["status"] == "alive"

    async def is_ready() -> bool:
        return (await ask(fleet, "/health/ready")).status_code == 200

    await fleet.until(is_ready)
    assert (await ask(fleet, "/health/ready")).json()["degraded"] == []
    assert (await ask(fleet, "/health/startup")).status_code == 200
    assert (await ask(fleet, "/nothing")).status_code == 404


async def test_a_flagged_worker_takes_nothing_and_is_not_ready(fleet: "Raft") -> None:
    await until_listed(fleet)
    queue = fleet.runtime.queue
    (stats,) = json.loads("[" + (await run(fleet, "queue", "stats", "default", "--json"))[1] + "]")
    pod = stats["workers"][0]["pod"]
    await flag_drain(queue, ["default"], pod, MINUTE)

    async def is_draining() -> bool:
        return (await ask(fleet, "/health/ready")).status_code == 503

    await fleet.until(is_draining)
    assert (await ask(fleet, "/health/ready")).json()["failed"] == ["process"]
    assert (await ask(fleet, "/health/startup")).status_code == 200
    job = await fleet.enqueue("ping")
    assert (await fleet.reload(job)).state == "available"
    await unflag_drain(queue, ["default"], pod)
    await fleet.until_state(job, "completed")


async def test_metrics_count_what_ran(fleet: "Raft") -> None:
    await fleet.until_state(await fleet.enqueue("test.effect"))

    async def counted() -> bool:
        text = (await ask(fleet, "/metrics")).text
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        labels = {"queue": "default", "kind": "test.effect", "outcome": "completed"}
        return any(s.name == "jangada_job_total" and s.labels == labels for s in samples)

    await fleet.until(counted)
    text = (await ask(fleet, "/metrics")).text
    assert 'jangada_worker_slots{state="free"}' in text
    assert "jangada_job_duration_seconds_bucket" in text
    assert "jangada_job_queue_wait_seconds_bucket" in text


async def test_metrics_count_what_handlers_enqueue(fleet: "Raft") -> None:
    await fleet.until_state(await fleet.enqueue("test.parent"))
    line = 'jangada_job_enqueued_total{kind="test.answer",queue="default"} 1.0'

    async def counted() -> bool:
        return line in (await ask(fleet, "/metrics")).text

    await fleet.until(counted)


async def test_statistics_say_how_fast_work_comes_and_goes(fleet: "Raft") -> None:
    for _ in range(3):
        await fleet.until_state(await fleet.enqueue("test.effect"))

    async def counted() -> QueueStats | None:
        (stats,) = await queue_stats(fleet.runtime.queue, ["default"])
        has_rates = stats.completed_total >= 3 and stats.arrival_per_second > 0
        return stats if has_rates else None

    stats = await fleet.until(counted)
    assert stats.completion_per_second > 0
    assert stats.service_mean_seconds is not None
    assert stats.service_p95_seconds is not None


async def test_queue_stats_are_for_people_and_programs(fleet: "Raft") -> None:
    await QueueClient(fleet.runtime.valkey).publish("nobody's", [Offer("k", "x", b"")], limit=9)
    await until_listed(fleet)
    code, output, _ = await run(fleet, "queue", "stats", "default", "nobody's", "--json")
    assert code == 0
    default, other = [json.loads(line) for line in output.splitlines()]
    assert (default["queue"], default["workers"][0]["slots"]) == ("default", 2)
    assert (other["queue"], other["waiting"], other["workers"]) == ("nobody's", 1, [])
    code, output, _ = await run(fleet, "queue", "stats")
    assert code == 0
    assert "default" in output
    assert "imports" in output


async def test_files_at_a_relative_path_are_refused_in_production(fleet: "Raft") -> None:
    """The API would look for them in another folder."""
    makeshift = {"JANGADA_ENVIRONMENT": "production", "JANGADA_STORAGE__URL": "file://files"}
    code, _, errors = await run(fleet, "worker", **makeshift)
    assert code == 1
    assert "JANGADA_STORAGE__URL" in errors
    assert "Traceback" not in errors


async def test_a_port_in_use_is_said_in_one_line(fleet: "Raft") -> None:
    port = fleet.programs[0].management_url.rpartition(":")[2]
    environ = {"JANGADA_WORKER__MANAGEMENT_PORT": port}
    code, _, errors = await run(fleet, "dispatcher", **environ)
    assert code == 1
    assert f"127.0.0.1:{port} cannot be used" in errors
    assert "Traceback" not in errors


async def test_queue_stats_without_valkey_say_so(fleet: "Raft") -> None:
    code, _, errors = await run(fleet, "queue", "stats", "--broker", "unix:///nonexistent.sock")
    assert code == 69
    assert "Valkey is absent" in errors
    code, _, errors = await run(fleet, "queue", "stats", "--broker", "http://localhost")
    assert code == 2
    assert "rediss://" in errors
