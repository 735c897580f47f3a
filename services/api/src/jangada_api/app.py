"""The public API: its routers, its middleware, and what it opens for as long as it serves."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, override

from fastapi import APIRouter, FastAPI, Request, Response
from opentelemetry.trace import Span, TracerProvider
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import configure_mappers
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from jangada.accounts.runtime import open_accounts
from jangada.config import Settings
from jangada.contacts.housekeeping import keeping_house
from jangada.db import Database
from jangada.errors import Unavailable
from jangada.files.uploads import sweeping
from jangada.jobs.metrics import count_enqueued
from jangada.runtime import Runtime, open_runtime
from jangada.telemetry import get_logger, new_registry
from jangada_api import (
    accounts,
    contact_imports,
    contacts,
    jobs,
    openapi,
    pages,
    problems,
    schedules,
)
from jangada_api.health import open_health
from jangada_api.job_streams import open_streams
from jangada_api.management import ready_gauge
from jangada_api.middleware import (
    ORDER,
    SECURITY_HEADERS,
    AccessLog,
    BodyLimit,
    Failures,
    HeadRequests,
    HttpMetrics,
    RequestId,
    SecurityHeaders,
)
from jangada_api.pool_metrics import watch_pool

log = get_logger(__name__)

TITLE: Final = "Jangada"
_CONVERTOR: Final = re.compile(r":\w+}")

ROUTERS: Final[tuple[APIRouter, ...]] = (
    accounts.router,
    contact_imports.router,
    contacts.router,
    jobs.router,
    schedules.router,
)
"""Every feature's routes, with their whole paths: log lines and metrics name them."""


class Api(FastAPI):
    """FastAPI with our OpenAPI document."""

    @override
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi.document(self.title, self.routes)
        return self.openapi_schema


def create_app(
    settings: Settings,
    *,
    runtime: Runtime | None = None,
    registry: CollectorRegistry | None = None,
    tracer: TracerProvider | None = None,
) -> FastAPI:
    """The public application.

    Its lifespan opens a runtime (unless one is given), sign-in and health checks, and puts them on
    `app.state`. It refuses to start with a database role that tenants would not be safe under.
    """
    registry = registry or new_registry()
    app = Api(
        title=TITLE,
        # Served by `pages`, so that log lines and metrics name it.
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=_middleware(settings, registry, is_traced=tracer is not None),
        # FastAPI's own telemetry sends paths, queries and messages; ours is redacted.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings, app.state.given_runtime, app.state.registry = settings, runtime, registry
    app.state.count_enqueued = count_enqueued(registry)
    app.state.ready_gauge = ready_gauge(registry)
    problems.install(app)
    app.add_exception_handler(Exception, _last_resort)
    # The routes themselves: including a router builds each of its routes anew, for each
    # application, and looks for the route of each request twice.
    for router in (*ROUTERS, pages.router):
        app.router.routes.extend(router.routes)
    app.mount("/static", pages.assets())
    if tracer is not None:
        _trace(app, tracer)
    return app


async def _last_resort(_: Request, __: Exception) -> Response:
    """The answer when the middleware itself fails; the server logs why."""
    own = {name.decode(): value.decode() for name, value in SECURITY_HEADERS.items()}
    return problems.answer(500, headers=own)


def _middleware(
    settings: Settings, registry: CollectorRegistry, *, is_traced: bool
) -> list[Middleware]:
    options: dict[type[Any], dict[str, Any]] = {
        RequestId: {"is_traced": is_traced},
        HttpMetrics: {"registry": registry},
        AccessLog: {"trusted_proxies": settings.api.trusted_proxies},
        SecurityHeaders: {},
        HeadRequests: {},
        BodyLimit: {"max_bytes": settings.api.max_body_bytes},
        Failures: {},
    }
    return [Middleware(layer, **options[layer]) for layer in ORDER]


def _trace(app: FastAPI, tracer: TracerProvider) -> None:
    from opentelemetry.instrumentation.fastapi import (  # noqa: PLC0415 - at no cost when off
        FastAPIInstrumentor,
    )
    from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415

    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=tracer,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
        server_request_hook=_name_as_documented,
    )


def _name_as_documented(span: Span, _: dict[str, Any]) -> None:
    """`GET /v1/jobs/{job_id}`, as in metrics and document, without what its id must look like."""
    attributes = getattr(span, "attributes", None) or {}  # one that isn't recorded has none
    if route := attributes.get("http.route"):
        method = attributes.get("http.request.method") or attributes.get("http.method")
        plain = _CONVERTOR.sub("}", route)
        span.update_name(f"{method} {plain}")
        span.set_attribute("http.route", plain)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        runtime = app.state.given_runtime
        if runtime is None:
            opening = open_runtime(app.state.settings, application_name="jangada-api")
            runtime = await stack.enter_async_context(opening)
        await _refuse_unsafe_role(runtime.database)
        app.state.runtime = runtime
        runtime.database.tally = app.state.count_enqueued
        stack.callback(watch_pool(app.state.registry, runtime.database.pool_usage))
        app.state.accounts = await stack.enter_async_context(open_accounts(runtime))
        await stack.enter_async_context(sweeping(runtime))
        await stack.enter_async_context(keeping_house(runtime))
        app.state.health = await stack.enter_async_context(open_health(runtime))
        streams = open_streams(runtime, app.state.health.stopping)
        app.state.streams = await stack.enter_async_context(streams)
        try:
            yield
        finally:
            app.state.health.stopping.set()


async def prepare(app: FastAPI) -> None:
    """Do now, inside of the lifespan, what the first request would have to wait for.

    That is most of what it takes longer than others, 60 ms of processor. Where the keys can't be
    read, the first request waits for them, and is told why.
    """
    await run_in_threadpool(int)  # imports what threads take
    configure_mappers()
    try:
        await app.state.accounts.keyring.key_set()
    except Exception as error:  # noqa: BLE001 - nothing depends on it; a start must not fail by it
        log.warning("starting without signing keys", error=type(error).__name__)


async def _refuse_unsafe_role(database: Database) -> None:
    """Raise `UnsafeRole`. Without PostgreSQL the API starts all the same, and is not ready."""
    try:
        await database.check_role()
    except Unavailable as error:
        log.warning("starting without PostgreSQL", cause=error)
