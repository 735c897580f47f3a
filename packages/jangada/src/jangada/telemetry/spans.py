"""Redaction of spans, on their way out.

Imported only when tracing is on, because it needs OpenTelemetry's SDK.
"""

from collections.abc import Mapping, Sequence
from typing import override

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from jangada.telemetry.redaction import scrub

DROPPED = frozenset(
    {
        "db.query.text",
        "db.statement",
        "exception.message",
        "exception.stacktrace",
        "http.target",
        "http.url",
        "url.full",
        "url.path",
        "url.query",
    }
)
"""Attributes that hold data of a request.

The route and the exception's type are kept, and are enough.
"""


def _attributes(found: Mapping[str, AttributeValue] | None) -> dict[str, AttributeValue]:
    kept = ((key, value) for key, value in (found or {}).items() if key not in DROPPED)
    return {key: scrub(value) if isinstance(value, str) else value for key, value in kept}


def _event(event: Event) -> Event:
    return Event(event.name, _attributes(event.attributes), event.timestamp)


def redacted(span: ReadableSpan) -> ReadableSpan:
    """A copy of the span without what must not leave the process."""
    failed = span.status.status_code is StatusCode.ERROR
    return ReadableSpan(
        name=scrub(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[_event(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(StatusCode.ERROR) if failed else span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class RedactingExporter(SpanExporter):
    """Sends redacted copies on to the real exporter."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([redacted(span) for span in spans])

    @override
    def shutdown(self) -> None:
        self._exporter.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
