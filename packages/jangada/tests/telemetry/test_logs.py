"""The pipeline: every line parses, carries its ids, and holds no canary, whoever wrote it."""

import asyncio
import gc
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog

from jangada.config import TelemetrySettings
from jangada.telemetry import (
    bind,
    bound,
    configure_logging,
    current_request_id,
    get_logger,
    unbind_all,
)
from jangada.telemetry.logs import QUIET, _Pipeline

OURS = ("jangada", "jangada_queue", "jangada_api", "jangada_worker")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is global to the process: leave it as it was."""
    root = logging.getLogger()
    names = ("", *OURS, *QUIET)
    levels = {name: logging.getLogger(name).level for name in names}
    handlers, hooks = root.handlers[:], (sys.excepthook, threading.excepthook, sys.unraisablehook)
    before = structlog.get_config()
    yield
    logging.captureWarnings(capture=False)
    structlog.configure(**before)
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    unbind_all()


def fail() -> None:
    raise ValueError("canary")


class Lines:
    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err

    def all(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def one(self) -> dict[str, object]:
        (line,) = self.all()
        return line


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    configure_logging(TelemetrySettings(log_level="DEBUG", log_format="json"), "jangada-test")
    return Lines(capsys)


def test_a_line_has_time_level_event_logger_service_and_bound_ids(lines: Lines) -> None:
    bind(request_id="r-1", tenant_id="t-1")
    get_logger("jangada.jobs").info("job enqueued", kind="import", rows=3)
    line = lines.one()
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "level": "info",
        "event": "job enqueued",
        "logger": "jangada.jobs",
        "service": "jangada-test",
        "request_id": "r-1",
        "tenant_id": "t-1",
        "kind": "import",
        "rows": 3,
    }


def test_ids_are_taken_off_again(lines: Lines) -> None:
    with bound(job_id="j-1"):
        get_logger().info("inside")
    bind(request_id="r-1")
    assert current_request_id() == "r-1"
    unbind_all()
    assert current_request_id() is None
    get_logger().info("outside")
    inside, outside = lines.all()
    assert inside["job_id"] == "j-1"
    assert "job_id" not in outside
    assert "request_id" not in outside


def test_a_bound_value_is_redacted_too(lines: Lines) -> None:
    with bound(user="canary@example.org"):
        get_logger().debug("canary@example.org came", password="canary", found=ValueError("canary"))
    assert "canary" not in lines.text()


def test_an_exception_is_told_without_its_data(lines: Lines) -> None:
    try:
        fail()
    except ValueError:
        get_logger().exception("failed", reason="broken")
    line = lines.one()
    assert line["level"] == "error"
    assert "ValueError: (message withheld)" in str(line["exception"])
    assert "canary" not in str(line)


def test_the_standard_library_goes_through_the_same_pipeline(lines: Lines) -> None:
    bind(request_id="r-1")
    log = logging.getLogger("some.library")
    log.warning("sent to %s because of %s", "canary@example.org", ValueError("canary"))
    line = lines.one()
    assert line["event"] == "sent to [redacted] because of ValueError: (message withheld)"
    assert line["logger"] == "some.library"
    assert line["request_id"] == "r-1"


def test_a_library_that_logs_an_exception_object_or_its_traceback_is_redacted(lines: Lines) -> None:
    log = logging.getLogger("some.library")
    try:
        fail()
    except ValueError as error:
        log.exception(error)  # noqa: TRY401 - libraries do it
        log.warning("failed", exc_info=error)
    assert "canary" not in "".join(str(line) for line in lines.all())


def test_a_message_that_cannot_be_formatted_does_not_print_its_arguments(lines: Lines) -> None:
    pipeline = next(h for h in logging.getLogger().handlers if isinstance(h, _Pipeline))
    record = logging.makeLogRecord({"name": "some.library", "msg": "%d rows", "args": ("canary",)})
    pipeline.handle(record)
    line = lines.one()
    assert line["event"] == "log line lost"
    assert line["logger"] == "some.library"
    assert "canary" not in str(line)


def test_libraries_are_not_heard_at_debug_but_we_are(lines: Lines) -> None:
    logging.getLogger("python_multipart").debug("canary")
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT canary")
    logging.getLogger("httpx").info("GET https://x/?canary")
    logging.getLogger("uvicorn.access").info("GET /?canary")
    logging.getLogger("some.library").debug("canary")
    logging.getLogger("jangada_queue.streams").debug("heard")
    assert [line["event"] for line in lines.all()] == ["heard"]


def test_the_level_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySettings(log_level="WARNING", log_format="json"))
    get_logger().info("quiet")
    logging.getLogger("alembic").info("quiet")
    get_logger().warning("loud")
    assert Lines(capsys).one()["event"] == "loud"


def test_configuring_twice_does_not_double_the_lines(lines: Lines) -> None:
    configure_logging(TelemetrySettings(log_format="json"))
    logging.getLogger("some.library").warning("once")
    assert lines.one()["event"] == "once"


def test_values_that_json_refuses_are_written_all_the_same(lines: Lines) -> None:
    get_logger().info("odd \udc80", big=2**70, nan=float("nan"))
    assert lines.one()["big"] == 2**70


def test_a_task_whose_exception_nobody_took_tells_no_data(lines: Lines) -> None:
    async def failing() -> None:
        fail()

    async def main() -> None:
        task = asyncio.ensure_future(failing())
        await asyncio.wait([task])
        del task
        gc.collect()

    asyncio.run(main())
    text = lines.text()
    assert "never retrieved" in text
    assert "canary" not in text


@pytest.mark.parametrize("daemon", [True, False])
def test_an_uncaught_exception_in_a_thread_is_a_line(lines: Lines, daemon: bool) -> None:
    thread = threading.Thread(target=fail, daemon=daemon)
    thread.start()
    thread.join()
    line = lines.one()
    assert line["level"] == "critical"
    assert "canary" not in str(line)


def test_uncaught_exceptions_of_the_program_and_of_destructors_are_lines(lines: Lines) -> None:
    error = ValueError("canary")
    sys.excepthook(ValueError, error, None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    sys.unraisablehook(
        type("Args", (), {"exc_value": error, "exc_type": ValueError, "object": None})()
    )
    first, second = lines.all()
    assert first["level"] == "critical"
    assert second["level"] == "error"
    assert "canary" not in f"{first}{second}"


def test_warnings_are_lines(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old canary@example.org", stacklevel=1)
        logging.captureWarnings(capture=False)
    line = lines.one()
    assert line["logger"] == "py.warnings"
    assert "canary" not in str(line)


def test_the_console_is_one_readable_line_without_forged_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(TelemetrySettings(log_format="console"), "jangada-test")
    get_logger().info("started", address="127.0.0.1:8000", note="a\n12:00 forged")
    try:
        fail()
    except ValueError:
        get_logger().exception("failed")
    first, *rest = capsys.readouterr().err.splitlines()
    assert "info" in first
    assert 'started  logger=jangada-test address=127.0.0.1:8000 note="a\\n12:00 forged"' in first
    assert rest[-1] == "ValueError: (message withheld)"


def test_a_closed_stream_does_not_break_the_program(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    class Closed:
        def write(self, text: str) -> None:
            tried.append(text)
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    get_logger().info("nobody reads this")
    assert "nobody reads this" in "".join(tried)
