"""A token that expires under requests at once: one login, and none of them fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import kopf
import pytest
from aiohttp import web

from jangada_operator.kube import Kube, Refused, Unreachable

pytestmark = pytest.mark.anyio


class Server:
    """An API server that takes the newest token alone, and whose answer on /slow can be held."""

    def __init__(self) -> None:
        self.logins = 0
        self.taken = "1"
        self.url = ""
        self.gateway: tuple[int, str] | None = None
        self.arrived, self.may_answer = asyncio.Event(), asyncio.Event()

    def login(self) -> kopf.ConnectionInfo:
        self.logins += 1
        return kopf.ConnectionInfo(server=self.url, token=str(self.logins))

    async def answer(self, request: web.Request) -> web.Response:
        if self.gateway is not None:
            status, text = self.gateway
            return web.Response(status=status, text=text)
        if request.path == "/slow":
            self.arrived.set()
            await self.may_answer.wait()
        if request.headers["Authorization"] != f"Bearer {self.taken}":
            return web.json_response({"reason": "Unauthorized", "message": "no"}, status=401)
        return web.json_response({"items": [{"metadata": {"uid": "a"}}], "metadata": {}})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_get("/{path}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def expired(server: Server) -> AsyncIterator[Kube]:
    """A client whose token isn't taken any more; the next one is."""
    async with Kube.open(server.login) as kube:
        server.taken = "2"
        yield kube


async def test_requests_under_way_outlive_the_renewal(server: Server) -> None:
    async with expired(server) as kube:
        before = kube._session.client
        slow = asyncio.create_task(kube.get("/slow"))
        await server.arrived.wait()
        assert (await kube.get("/quick"))["items"]
        was_closed = [before.closed]
        server.may_answer.set()
        assert (await slow)["items"]
        assert [*was_closed, before.closed] == [False, True]
        assert server.logins == 2


async def test_pages_are_read_under_a_new_token_too(server: Server) -> None:
    async with expired(server) as kube:
        assert await kube.uids("/pods") == {"a"}


async def test_who_is_refused_after_a_new_login_is_told(server: Server) -> None:
    async with Kube.open(server.login) as kube:
        server.taken = "nobody's"
        with pytest.raises(Refused, match="401"):
            await kube.get("/quick")
        assert server.logins == 2


@pytest.mark.parametrize("status", [200, 404, 500, 503])
@pytest.mark.parametrize("text", ["", "<html>", '"text"', "null"])
async def test_a_gateway_is_no_api_server(server: Server, status: int, text: str) -> None:
    """Its 404 says nothing about what is there."""
    async with Kube.open(server.login) as kube:
        server.gateway = (status, text)
        with pytest.raises(Unreachable, match=f"or a gateway before it, answers {status} without"):
            await kube.get("/pods")


@pytest.mark.parametrize("text", ["", "<html>"])
async def test_a_gateways_401_is_followed_by_a_login(server: Server, text: str) -> None:
    async with Kube.open(server.login) as kube:
        server.gateway = (401, text)
        with pytest.raises(Refused, match="401"):
            await kube.get("/pods")
        assert server.logins == 2
