"""Nothing is decided before all that is in the cluster was heard of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web

from jangada_operator.kube import Kube, Unreachable
from jangada_operator.leader import Leadership
from jangada_operator.listening import has_heard_all, paths_of
from jangada_operator.management import serve
from jangada_operator.operating import Operator
from jangada_operator.watching import DEPLOYMENTS, PODS, WATCHED, Cluster
from jangada_operator.workerpool.reasons import Trouble
from jangada_operator.workerpool.status import Problem

pytestmark = pytest.mark.anyio


class Api:
    """An API server that lists objects by their UIDs, one a page; told of them afterwards."""

    def __init__(self, cluster: Cluster, there: dict[str, list[str]], *, is_telling: bool) -> None:
        self.cluster, self.there, self.is_telling = cluster, there, is_telling

    async def answer(self, request: web.Request) -> web.Response:
        uids = self.there.get(request.path, [])
        at = int(request.query["continue"] or 0)
        if self.is_telling and at + 1 >= len(uids):
            for uid in uids:
                self.cluster.hear(PODS, body(uid), is_gone=False)
        items = [{"metadata": {"uid": uid}} for uid in uids[at : at + 1]]
        more = str(at + 1) if at + 1 < len(uids) else ""
        return web.json_response({"metadata": {"continue": more}, "items": items})


def body(uid: str) -> dict[str, Any]:
    return {"metadata": {"name": uid, "namespace": "shop", "uid": uid}}


@asynccontextmanager
async def asking(api: Api) -> AsyncIterator[Kube]:
    app = web.Application()
    app.add_routes([web.get("/{any:.*}", api.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with Kube.open(lambda: info) as kube:
            yield kube
    finally:
        await runner.cleanup()


def test_each_kind_is_listed_in_all_namespaces_or_in_those_that_are_named() -> None:
    assert paths_of(*PODS, ()) == ["/api/v1/pods"]
    assert paths_of(*DEPLOYMENTS, ("a", "b")) == [
        "/apis/apps/v1/namespaces/a/deployments",
        "/apis/apps/v1/namespaces/b/deployments",
    ]
    assert len(WATCHED) == 4


async def test_all_is_heard_when_each_object_of_each_page_was() -> None:
    """Also those that belong to nobody and are kept nowhere."""
    cluster = Cluster()
    api = Api(cluster, {"/api/v1/pods": ["a", "b", "c"]}, is_telling=True)
    async with asking(api) as kube:
        assert await has_heard_all(kube, cluster, ())
    assert cluster.heard == {"a", "b", "c"}
    assert not cluster.pods


async def test_an_object_that_nobody_speaks_of_is_waited_for() -> None:
    cluster = Cluster()
    api = Api(cluster, {"/apis/apps/v1/deployments": ["a"]}, is_telling=False)
    async with asking(api) as kube:
        assert not await has_heard_all(kube, cluster, ())
        api.there = {}
        assert await has_heard_all(kube, cluster, ())


async def test_an_api_that_is_away_has_told_nothing(free_tcp_port: int) -> None:
    info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{free_tcp_port}")
    async with Kube.open(lambda: info) as kube:
        with pytest.raises(Unreachable):
            await has_heard_all(kube, Cluster(), ())


def test_what_is_gone_is_not_heard_of_any_more() -> None:
    cluster = Cluster()
    for uid in ("a", "b"):
        cluster.hear(PODS, body(uid), is_gone=False)
    cluster.hear(PODS, body("a"), is_gone=True)
    assert cluster.heard == {"b"}
    cluster.forget_pods({"b"})
    assert not cluster.heard


async def test_an_operator_is_ready_once_it_is_informed() -> None:
    async with asking(Api(Cluster(), {}, is_telling=False)) as kube:
        operator = Operator(kube, Cluster(), Leadership(kube, "system", "lease", "me"))
        async with serve(operator, "127.0.0.1", 0) as port:
            assert "heard of yet" in str(await ready(port, 503))
            operator.blind = Problem(Trouble.FORBIDDEN, "It may not list pods.")
            assert "It may not list pods." in str(await ready(port, 503))
            operator.blind, operator.is_informed = None, True
            assert await ready(port, 200) == {"status": "ok"}


async def ready(port: int, status: int) -> Any:  # noqa: ANN401 - as it is answered
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://127.0.0.1:{port}/health/ready") as answer,
    ):
        assert answer.status == status
        return await answer.json()
