"""One trace from the request to the job: the job's span continues what its row carries."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.util.types import AnyValue

from jangada.jobs.delivery.grant import GrantedJob


@contextmanager
def job_span(job: GrantedJob) -> Iterator[None]:
    """A span around an attempt; nothing, at no cost, where nothing is traced."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        yield
        return
    from opentelemetry import trace  # noqa: PLC0415 - only when tracing
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

    carrier = {"traceparent": job.traceparent} if job.traceparent else {}
    parent = tracecontext.TraceContextTextMapPropagator().extract(carrier)
    attributes: dict[str, AnyValue] = {
        "messaging.system": "jangada",
        "messaging.destination.name": job.queue,
        "jangada.job.kind": job.kind,
        "jangada.job.id": str(job.job_id),
        "jangada.job.attempt": job.attempt,
    }
    tracer = trace.get_tracer("jangada_worker")
    with tracer.start_as_current_span(
        f"{job.kind} process",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ):
        yield
