"""A child process from its start to its end."""

import asyncio
import logging
import socket

import uvloop

from jangada.config import load_settings
from jangada.runtime import open_runtime
from jangada.telemetry import configure_logging, tracing
from jangada_worker.child.app import ChildWorker
from jangada_worker.discovery import discover
from jangada_worker.link import child_end


def run(end: socket.socket, pod: str) -> None:
    """Be one worker process until the parent, at the other end of the link, drains it, or dies.

    Threads of handlers that outlive the drain end with the process: a forked one waits for none.
    """
    settings = load_settings()
    configure_logging(settings.telemetry, "jangada-worker")
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    with tracing(settings.telemetry, "jangada-worker"):
        asyncio.run(_work(end, pod), loop_factory=uvloop.new_event_loop)


async def _work(end: socket.socket, pod: str) -> None:
    link = await child_end(end)
    async with open_runtime(load_settings(), application_name="jangada-worker") as runtime:
        await ChildWorker(runtime, link, kinds=discover(), pod=pod).run()
