"""Logs: one line per event, JSON for machines and one tidy line for people, on standard error.

structlog's loggers and the standard library's (uvicorn, SQLAlchemy, Alembic, taskiq, warnings,
uncaught exceptions) pass through the same steps: bound ids, stamp, redaction, rendering.
Libraries are never heard below INFO, because what they say at DEBUG is data; our own code is.
"""

import json
import logging
import sys
import threading
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, ClassVar, override

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from jangada.config import TelemetrySettings
from jangada.telemetry.redaction import describe, describe_traceback, redact, scrub

LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}

QUIET = {
    "alembic": logging.INFO,
    "asyncio": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "multipart": logging.WARNING,
    "python_multipart": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "urllib3": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.CRITICAL + 1,
}
"""Libraries that write data or noise below these levels.

Uvicorn's access log prints queries: ours replaces it.
"""


def get_logger(name: str = "") -> FilteringBoundLogger:
    """Get the logger of a module (`__name__`): `log.info("contact created", contact_id=…)`."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def bind(**ids: object) -> None:
    """Put ids (request_id, tenant_id, job_id, …) on every further line of this task."""
    structlog.contextvars.bind_contextvars(**ids)


def bound(**ids: object) -> AbstractContextManager[None]:
    """Put ids on every line inside the block, and take them off after it."""
    return structlog.contextvars.bound_contextvars(**ids)


def unbind_all() -> None:
    """Take every id off: what begins a new request or job in an old task starts with this."""
    structlog.contextvars.clear_contextvars()


def current_request_id() -> str | None:
    """The id of the request that the current task serves, if it serves one.

    A job that it causes inherits it.
    """
    found = structlog.contextvars.get_contextvars().get("request_id")
    return found if isinstance(found, str) else None


def configure_logging(settings: TelemetrySettings, service: str = "jangada") -> None:
    """Send every log line of this process through the pipeline.

    Called once by each command; calling again replaces.
    """
    steps = _steps(settings, settings.service_name or service)
    level = LEVELS[settings.log_level]
    structlog.configure(
        processors=steps,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StandardError,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Pipeline(steps)]
    root.setLevel(max(level, logging.INFO))
    for name in ("jangada", "jangada_queue", "jangada_api", "jangada_worker"):
        logging.getLogger(name).setLevel(level)
    for name, floor in QUIET.items():
        logging.getLogger(name).setLevel(max(level, floor))
    _catch_the_uncaught()


def _steps(settings: TelemetrySettings, service: str) -> list[Processor]:
    def stamp(logger: object, level: str, event: EventDict) -> EventDict:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "timestamp": now,
            "level": "error" if level == "exception" else level,
            "event": event.pop("event", ""),
            "logger": event.pop("logger", None) or getattr(logger, "name", "") or service,
            "service": service,
            **event,
        }

    first: list[Processor] = [structlog.contextvars.merge_contextvars]
    if settings.otlp_endpoint is not None:
        first.append(_span_ids)
    return [*first, _redacted, stamp, _renderer(settings)]


def _span_ids(_: object, __: str, event: EventDict) -> EventDict:
    from opentelemetry import trace  # noqa: PLC0415 - only where tracing is on

    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def _redacted(_: object, __: str, event: EventDict) -> EventDict:
    error = _error_of(event.pop("exc_info", None))
    event.pop("stack_info", None)
    clean: EventDict = {key: redact(value, key) for key, value in event.items()}
    if error is not None:
        clean["exception"] = describe_traceback(error)
    return clean


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exception() if exc_info else None


def _renderer(settings: TelemetrySettings) -> Processor:
    terminal = sys.stderr.isatty()
    if settings.log_format == "json" or (settings.log_format == "auto" and not terminal):
        return _json
    return _Console(colours=terminal)


def _json(_: object, __: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # a lone surrogate or an integer beyond 64 bits
        return json.dumps(event)


class _Console:
    """One line to read.

    Time, level, event, then the rest as `key=value`; control characters are escaped.
    """

    OMITTED = frozenset(
        {"timestamp", "level", "event", "exception", "service", "trace_id", "span_id"}
    )
    COLOURS: ClassVar = {
        "debug": "2",
        "info": "32",
        "warning": "33",
        "error": "31",
        "critical": "1;31",
    }

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _: object, __: str, event: EventDict) -> str:
        rest = " ".join(
            f"{key}={self._word(value)}" for key, value in event.items() if key not in self.OMITTED
        )
        level = event["level"]
        head = self._paint(f"{level:<8}", self.COLOURS.get(level, "0"))
        said = self._word(event["event"])
        line = f"{event['timestamp'][11:23]} {head} {said}  {self._paint(rest, '2')}"
        return f"{line}\n{event['exception']}" if "exception" in event else line

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text

    @staticmethod
    def _word(value: object) -> str:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text if text.isprintable() else json.dumps(text)


class _StandardError:
    """Writes whole lines to standard error as it is at that moment.

    Structlog wants a method for each level.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        _write(line)

    debug = info = warning = warn = error = exception = critical = fatal = failure = log = err = msg


_writing = threading.Lock()


def _write(line: str) -> None:
    try:
        with _writing:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads any more (a closed pipe or stream), and there is nowhere to say so


class _Pipeline(logging.Handler):
    """Takes what the standard library's loggers say through the same steps."""

    def __init__(self, steps: list[Processor]) -> None:
        super().__init__()
        self._steps = steps

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self._render(record))
        except Exception as error:  # noqa: BLE001 - logging's fallback prints arguments
            lost = {"event": "log line lost", "level": "error", "logger": record.name}
            _write(_json(None, "", {**lost, "error": type(error).__name__}))

    def _render(self, record: logging.LogRecord) -> str:
        event: Any = {"event": _text(record), "logger": record.name, "exc_info": record.exc_info}
        level = record.levelname.lower()
        for step in self._steps:
            event = step(None, level, event)
        return str(event)


def _text(record: logging.LogRecord) -> str:
    """The message, with exceptions among its arguments reduced to what may be said of them."""
    if isinstance(record.args, tuple):
        record.args = tuple(describe(a) if isinstance(a, BaseException) else a for a in record.args)
    if isinstance(record.msg, BaseException):
        record.msg = describe(record.msg)
    text = record.getMessage()
    # asyncio puts the repr of a task and its exception on the lines after the first.
    return scrub(text.split("\n", 1)[0] if record.name == "asyncio" else text)


def _catch_the_uncaught() -> None:
    """Uncaught exceptions and warnings become log lines.

    Python's own reports print messages unredacted.
    """
    log = get_logger("python")

    def main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        log.critical("uncaught exception", exc_info=error.with_traceback(trace))

    def thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            log.critical("uncaught exception in a thread", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        log.error("exception that could not be raised", exc_info=args.exc_value)

    sys.excepthook = main
    threading.excepthook = thread
    sys.unraisablehook = unraisable
    logging.captureWarnings(capture=True)
