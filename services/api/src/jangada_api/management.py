"""The management port: health and metrics. Never routed to the public, and asks for no sign-in.

- live: the event loop turns; nothing else is asked, so an outage elsewhere restarts nobody.
- startup: the public port serves.
- ready: PostgreSQL answers and has the schema. Without a Valkey that takes writes the answer is 200
  with `degraded: ["valkey"]`: requests are served and jobs accepted, they only start later.
- metrics: also whether it is ready, for a process that nobody is sent to counts no failing answers.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jangada.telemetry import exposition
from jangada_api import problems
from jangada_api.health import Health
from jangada_api.middleware import Failures, RequestId, SecurityHeaders


def create_management(api: FastAPI) -> Starlette:
    """The management application of a process that serves `api`."""
    app = Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/startup", _of(api, startup)),
            Route("/health/ready", _of(api, ready)),
            Route("/metrics", _metrics(api)),
        ],
        middleware=[Middleware(RequestId), Middleware(SecurityHeaders), Middleware(Failures)],
    )
    problems.install(app)
    return app


async def live(_: Request) -> Response:
    return JSONResponse({"status": "alive"})


async def startup(_: Health) -> Response:
    return JSONResponse({"status": "started"})


async def ready(health: Health) -> Response:
    found = await health.readiness()
    if found.is_ready:
        body = {"status": "ready", "degraded": list(found.degraded), "reasons": found.degraded}
        return JSONResponse(body)
    reasons = found.faults | found.degraded
    return problems.problem(
        503,
        "health.not_ready",
        "; ".join(f"{name}: {fault}" for name, fault in found.faults.items()),
        headers={"Retry-After": "1"},
        more={"failed": list(found.faults), "degraded": list(found.degraded), "reasons": reasons},
    )


def _of(
    api: FastAPI, answer: Callable[[Health], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        health: Health | None = getattr(api.state, "health", None)
        if health is None:
            return problems.problem(503, "health.starting", "The process is still starting.")
        return await answer(health)

    return endpoint


def ready_gauge(registry: CollectorRegistry) -> Gauge:
    """Asked at each scrape, so it is no older than that."""
    return Gauge("jangada_api_ready", "Whether this process is ready.", registry=registry)


def _metrics(api: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        health: Health | None = getattr(api.state, "health", None)
        is_ready = health is not None and (await health.readiness()).is_ready
        api.state.ready_gauge.set(is_ready)
        body, media_type = exposition(api.state.registry)
        return Response(body, headers={"Content-Type": media_type})

    return endpoint
