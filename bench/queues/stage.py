"""Runs in a contestant's environment: `python -m queues.stage celery fill --first 0 --count 500`.

    programs   the commands of its processes
    prepare    an empty queue
    fill       enqueue as fast as its bulk way allows; answers when it began and ended
    pace       enqueue at a fixed rate, whatever the workers do (an open model); answers when each
               job was called for and when it was in

Answers are JSON on the last line of the standard output. Only the standard library here.
"""

import argparse
import asyncio
import importlib
import json
import time
from dataclasses import asdict
from typing import Any

from queues.adapter import Adapter


async def fill(adapter: Adapter, kind: str, indexes: range) -> dict[str, float]:
    async with adapter.producer() as producer:
        began = time.monotonic()
        await producer.enqueue_many(kind, indexes)
        return {"began": began, "ended": time.monotonic()}


async def pace(adapter: Adapter, kind: str, indexes: range, rate: float) -> dict[str, list[float]]:
    """A job that had to wait for the one before was called for when it was due, not when sent."""
    called, accepted = [], []
    async with adapter.producer() as producer:
        began = time.monotonic() + 0.1
        for number, index in enumerate(indexes):
            due = began + number / rate
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            called.append(time.monotonic() if wait > 0 else due)
            accepted.append(await producer.enqueue(kind, index))
    return {"called": called, "accepted": accepted}


def answer(adapter: Adapter, given: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    indexes = range(given.first, given.first + given.count)
    match given.verb:
        case "programs":
            return [asdict(program) for program in adapter.programs()]
        case "prepare":
            return adapter.prepare()
        case "fill":
            return asyncio.run(fill(adapter, given.kind, indexes))
        case _:
            return asyncio.run(pace(adapter, given.kind, indexes, given.rate))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("verb", choices=("programs", "prepare", "fill", "pace"))
    parser.add_argument("--kind", default="noop")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100.0)
    given = parser.parse_args()
    adapter: Adapter = importlib.import_module(f"queues.adapters.{given.name}").ADAPTER
    print(json.dumps(answer(adapter, given)))


if __name__ == "__main__":
    main()
