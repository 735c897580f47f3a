"""A child process from its start to its end."""

import argparse
import asyncio
import logging
import os
import socket
import sys

import uvloop

from jangada.config import load_settings
from jangada.runtime import open_runtime
from jangada.telemetry import configure_logging, tracing
from jangada_worker.child.app import ChildWorker
from jangada_worker.discovery import discover
from jangada_worker.lifeline import die_with
from jangada_worker.link import child_end


def main() -> None:
    """Run one worker process until its parent drains it, or dies."""
    parser = argparse.ArgumentParser(prog="jangada_worker.child")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--pod", required=True)
    options = parser.parse_args()
    die_with(options.parent)
    settings = load_settings()
    configure_logging(settings.telemetry, "jangada-worker")
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    link = socket.socket(fileno=options.link)
    with tracing(settings.telemetry, "jangada-worker"):
        has_threads_left = asyncio.run(_work(link, options.pod), loop_factory=uvloop.new_event_loop)
    if has_threads_left:
        sys.stderr.flush()
        os._exit(0)


async def _work(end: socket.socket, pod: str) -> bool:
    link = await child_end(end)
    async with open_runtime(load_settings(), application_name="jangada-worker") as runtime:
        worker = ChildWorker(runtime, link, kinds=discover(), pod=pod)
        await worker.run()
    return worker.has_threads_left()
