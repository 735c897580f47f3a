"""Telemetry: what a process tells about itself, in logs, traces and metrics.

Guarantees: no secret, password, token or e-mail address reaches a log line or a span, at any
level, tracebacks and SQL errors included (`redaction`). Every line goes through one pipeline,
whoever wrote it, and carries the ids that were bound with `bind` (`logs`). Without an OTLP
endpoint no tracing code is even imported (`traces`).

The names below are the whole interface; the rest of the platform imports from here.
"""

from jangada.telemetry.logs import (
    bind,
    bound,
    configure_logging,
    current_request_id,
    get_logger,
    unbind_all,
)
from jangada.telemetry.metrics import DURATION_BUCKETS, exposition, new_registry
from jangada.telemetry.redaction import describe, scrub
from jangada.telemetry.traces import tracing

__all__ = [
    "DURATION_BUCKETS",
    "bind",
    "bound",
    "configure_logging",
    "current_request_id",
    "describe",
    "exposition",
    "get_logger",
    "new_registry",
    "scrub",
    "tracing",
    "unbind_all",
]
