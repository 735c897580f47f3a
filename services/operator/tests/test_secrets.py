"""A secret is read when it is needed, and soon again where something is wrong."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import kopf
import pytest
from aiohttp import web

from jangada_operator.kube import Kube
from jangada_operator.secrets import FRESH, FRESH_IN_TROUBLE, Secrets
from jangada_operator.workerpool.reasons import Trouble
from jangada_operator.workerpool.spec import Pool, read_pool
from jangada_operator.workerpool.status import Problem

pytestmark = pytest.mark.anyio

POOL: Pool = read_pool(
    {
        "metadata": {"namespace": "shop", "name": "mail", "uid": "u"},
        "spec": {
            "scaleTargetRef": {"name": "worker"},
            "queues": ["mail"],
            "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
            "replicas": {"max": 1},
        },
    }
)


@dataclass
class Api:
    """An API server that has one secret, or doesn't; and the time."""

    url: str = ""
    now: float = 0.0
    asked: int = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if not self.url:
            return web.json_response({"reason": "NotFound", "message": "none"}, status=404)
        return web.json_response({"data": {"url": base64.b64encode(self.url.encode()).decode()}})


@asynccontextmanager
async def reading(api: Api) -> AsyncIterator[Secrets]:
    app = web.Application()
    app.add_routes([web.get("/api/v1/namespaces/shop/secrets/valkey", api.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with Kube.open(lambda: info) as kube:
            yield Secrets(kube, clock=lambda: api.now)
    finally:
        await runner.cleanup()


async def test_a_secret_that_serves_is_read_once_a_minute() -> None:
    api = Api("redis://valkey")
    async with reading(api) as secrets:
        assert await secrets.url_of(POOL, is_in_trouble=True) == "redis://valkey"
        api.now = FRESH
        assert await secrets.url_of(POOL, is_in_trouble=False) == "redis://valkey"
        assert api.asked == 1
        api.now += 1
        await secrets.url_of(POOL, is_in_trouble=False)
        assert api.asked == 2


async def test_a_secret_of_a_pool_in_trouble_is_soon_read_again() -> None:
    api = Api("redis://old")
    async with reading(api) as secrets:
        await secrets.url_of(POOL, is_in_trouble=True)
        api.url, api.now = "redis://new", FRESH_IN_TROUBLE + 1
        assert await secrets.url_of(POOL, is_in_trouble=True) == "redis://new"


async def test_a_missing_secret_is_soon_looked_for_again_whoever_asks() -> None:
    """The pool may have had signals before, and nobody was told that it is in trouble now."""
    api = Api()
    async with reading(api) as secrets:
        missing = await secrets.url_of(POOL, is_in_trouble=False)
        assert isinstance(missing, Problem)
        assert missing.reason is Trouble.SECRET_MISSING
        api.url, api.now = "redis://valkey", FRESH_IN_TROUBLE
        assert await secrets.url_of(POOL, is_in_trouble=False) == missing
        api.now += 1
        assert await secrets.url_of(POOL, is_in_trouble=False) == "redis://valkey"
