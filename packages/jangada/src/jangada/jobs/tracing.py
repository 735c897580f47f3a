"""The trace that a job belongs to, carried in its row as W3C trace context."""

import sys


def current_traceparent() -> str | None:
    """The `traceparent` of the present span; None, at no cost, where nothing is traced."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 - only when tracing

    carrier: dict[str, str] = {}
    tracecontext.TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
