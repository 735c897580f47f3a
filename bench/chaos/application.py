"""A taskiq application as anybody writes one; which broker it uses is told by the environment.

Nothing here knows of Jangada but the one import that people change. It runs on Python 3.11 too,
where one of the scenarios is at home.
"""

import asyncio
import ctypes
import importlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from taskiq import AsyncBroker, TaskiqEvents, TaskiqMessage, TaskiqMiddleware, TaskiqScheduler
from taskiq.middlewares import SmartRetryMiddleware
from taskiq.schedule_sources import LabelScheduleSource
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from chaos.ledger import write

POLL = 0.01
SPANS = ("lease", "renew_every", "sweep_every")


def read(name: str, default: str = "") -> str:
    return os.environ.get(f"CHAOS_{name}", default)


def make_broker(kind: str, url: str, options: "dict[str, Any]") -> AsyncBroker:
    """Stock or ours; spans of time are given in seconds."""
    if kind == "stock":
        return RedisStreamBroker(url, **options)
    ours = importlib.import_module("jangada_queue.taskiq")  # not there on Python 3.11
    spans = {name: timedelta(seconds=options[name]) for name in SPANS if name in options}
    broker: AsyncBroker = ours.LeasedStreamBroker(url, **{**options, **spans})
    return broker


class Refusing(TaskiqMiddleware):
    """Raises before a job once, where a file is there, which it removes."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        if (Path(self.folder) / "refuse").exists():
            (Path(self.folder) / "refuse").unlink()
            write(self.folder, "refused", message.args[0])
            raise RuntimeError("the middleware of the bench refuses")
        return message


def build() -> AsyncBroker:
    """The broker with its tasks, for `taskiq worker` and for whoever sends."""
    folder, url = read("FOLDER"), read("URL")
    broker = make_broker(read("BROKER", "stock"), url, json.loads(read("OPTIONS", "{}")))
    if retry := json.loads(read("RETRY", "{}")):
        is_scheduled = retry.pop("is_scheduled", False)
        source = ListRedisScheduleSource(url) if is_scheduled else None
        broker.add_middlewares(SmartRetryMiddleware(schedule_source=source, **retry))
    if read("REFUSES"):
        broker.add_middlewares(Refusing(folder))
    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, lambda _: write(folder, "up", "-"))
    register(broker, folder)
    if read("KNOWS"):
        register_late(broker, folder)
    if seconds := read("TICKS"):
        register_tick(broker, folder, seconds)
    return broker


def build_scheduler() -> TaskiqScheduler:
    """As people run it beside their workers."""
    broker = build()
    sources: list[Any] = [LabelScheduleSource(broker)]
    if read("RETRY"):
        sources.append(ListRedisScheduleSource(read("URL")))
    return TaskiqScheduler(broker, sources)


def register(broker: AsyncBroker, folder: str) -> None:
    @broker.task("hold")
    async def hold(job: str, seconds: float = 0.0, gate: str = "") -> None:
        """Runs for so long, or until a file appears."""
        write(folder, "start", job)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end or (gate and not (Path(folder) / gate).exists()):  # noqa: ASYNC110 - the gate is a file
                await asyncio.sleep(POLL)
        except asyncio.CancelledError:
            write(folder, "cancelled", job)
            raise
        write(folder, "end", job)

    @broker.task("hold_in_thread")
    def hold_in_thread(job: str, seconds: float = 0.0) -> None:
        write(folder, "start", job)
        time.sleep(seconds)
        write(folder, "end", job)

    @broker.task("burn")
    async def burn(job: str, seconds: float) -> None:
        """Never yields."""
        write(folder, "start", job)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        write(folder, "end", job)

    @broker.task("hold_interpreter")
    async def hold_interpreter(job: str, seconds: int) -> None:
        """C code that keeps the interpreter lock: no other thread runs meanwhile."""
        write(folder, "start", job)
        ctypes.PyDLL(None).sleep(seconds)
        write(folder, "end", job)

    @broker.task("fail", retry_on_error=True)
    async def fail(job: str) -> None:
        write(folder, "start", job)
        write(folder, "failed", job)
        raise RuntimeError("the job of the bench fails")


def register_late(broker: AsyncBroker, folder: str) -> None:
    @broker.task("late")
    async def late(job: str) -> None:
        """A kind that only a newer release of the application knows."""
        write(folder, "start", job)
        write(folder, "end", job)


def register_tick(broker: AsyncBroker, folder: str, cron: str) -> None:
    @broker.task("tick", schedule=[{"cron": cron}])
    async def tick() -> None:
        minute = int(time.time() // 60)
        write(folder, "start", f"tick-{minute}")
        write(folder, "end", f"tick-{minute}")
