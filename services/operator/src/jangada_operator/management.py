"""The operator's own port: whether it lives, whether it works, and its figures."""

import errno
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from jangada_operator.metrics import PoolMetrics
from jangada_operator.operating import Operator

STUCK: Final = 60.0
"""Seconds without a look at the pools after which the process isn't alive."""

ENCODING: Final = CONTENT_TYPE_LATEST


class NoPort(Exception):
    """Something else has it, or the address is none of this machine's."""


@asynccontextmanager
async def serve(operator: Operator, host: str, port: int) -> AsyncIterator[int]:
    """Answer for as long as the block runs; gives the port, which was chosen where 0 was asked.

    Raises `NoPort`.
    """
    registry = CollectorRegistry()
    registry.register(PoolMetrics(operator))
    began = time.monotonic()

    async def live(_: web.Request) -> web.Response:
        silent = time.monotonic() - max(operator.looked_at, began)
        return _answer(silent < STUCK, f"The pools were last looked at {silent:.0f} s ago.")

    async def ready(_: web.Request) -> web.Response:
        why = "Not all that is in the cluster was heard of yet."
        return _answer(operator.is_informed, operator.blind.message if operator.blind else why)

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": ENCODING})

    app = web.Application()
    app.add_routes(
        [
            web.get("/health/live", live),
            web.get("/health/ready", ready),
            web.get("/health/startup", ready),
            web.get("/metrics", metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            why = "something else listens there" if is_taken else error.strerror or error
            raise NoPort(
                f"{host}:{port} can't be listened on ({why}): give another --port, 0 for any that "
                f"is free, or another --host."
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _answer(is_well: bool, why: str) -> web.Response:
    if is_well:
        return web.json_response({"status": "ok"})
    body = {"status": "failed", "reasons": [why]}
    return web.json_response(body, status=HTTPStatus.SERVICE_UNAVAILABLE)
