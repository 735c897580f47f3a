"""What `jangada up` says: tidy lines for people, or one JSON object a line for scripts.

Lines are written by a thread of their own: a reader that stops reading never stops the platform.
What it misses is in the log files.
"""

import json
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.text import Text

LINES_KEPT = 1000

COLOURS = {
    "api": "cyan",
    "worker": "green",
    "dispatcher": "magenta",
    "postgres": "blue",
    "valkey": "yellow",
}

LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}

OMITTED = frozenset(
    {
        "event",
        "bytes_sent",
        "exception",
        "level",
        "logger",
        "parent_span_id",
        "pid",
        "request_id",
        "service",
        "span_id",
        "tenant_id",
        "timestamp",
        "trace_id",
    }
)
"""Fields of a log line that the log files keep and a tidy line leaves out."""


REQUEST_ORDER = ("method", "route", "status", "duration_seconds")

REQUEST = frozenset(REQUEST_ORDER)
"""The fields by which a line of an access log is known."""


class Output(Protocol):
    """Where events go. `event` is a stable word; the fields are for scripts as for people."""

    def say(self, event: str, **fields: Any) -> None: ...  # noqa: ANN401 - any JSON

    def close(self) -> None: ...


class Lines:
    """Writes lines in the background; drops them when nobody reads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(LINES_KEPT)
        self._thread = threading.Thread(target=self._write, name="writes lines", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            return

    def close(self) -> None:
        """Give a reader a moment for what is left."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(timeout=1.0)

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                continue  # the reader has gone; nobody else wants these lines


class JsonOutput:
    """One JSON object a line: `{"event": …, …}`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._lines = Lines(stream or sys.stdout)

    def say(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON
        self._lines.put(json.dumps({"event": event, **fields}, default=str))

    def close(self) -> None:
        self._lines.close()


class TerminalOutput:
    """Lines to read, each with the time and a coloured name of who it is about."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self._lines = Lines(stream or sys.stdout)

    def say(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - any JSON
        for text in SENTENCES[event](fields):
            with self._console.capture() as captured:
                self._console.print(text, end="")
            self._lines.put(captured.get())

    def close(self) -> None:
        self._lines.close()


def _line(name: str, message: str, style: str = "") -> Text:
    now = f"{datetime.now().astimezone():%H:%M:%S}"
    colour = COLOURS.get(name, "white")
    return Text.assemble((now, "dim"), " ", (f"{name:<10}", colour), " ", (message, style))


def parse(line: bytes) -> dict[str, Any]:
    """A log line as its fields; what is no JSON object is a message of its own."""
    text = line.decode("utf-8", "replace")
    with suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict):
            return record
    return {"event": text}


def readable(fields: dict[str, Any]) -> tuple[str, str, list[str]]:
    """A log line in three parts: what happened, the particulars, and the lines of a traceback."""
    record = dict(fields)
    message = _message(record)
    rest = [f"{k}={printable(_word(v))}" for k, v in record.items() if k not in OMITTED]
    trace = str(record.get("exception", "")).splitlines()
    return printable(message), "  ".join(rest), [printable(line) for line in trace]


def _logged(fields: dict[str, Any]) -> list[Text]:
    level = LEVELS.get(str(fields["record"].get("level")), "")
    message, rest, trace = readable(fields["record"])
    line = _line(fields["process"], message, level).append(f"  {rest}" if rest else "", "dim")
    return [line, *(Text(f"{'':20}{text}", level) for text in trace)]


def _message(record: dict[str, Any]) -> str:
    """What happened, in a few words. Takes the fields that it says out of the record."""
    if record.keys() >= REQUEST:
        method, route, status, seconds = (record.pop(name) for name in REQUEST_ORDER)
        return f"{method} {route} {status} {float(seconds) * 1000:.0f} ms"
    return str(record.get("event", ""))


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def printable(text: str) -> str:
    """The text without what a terminal would act on."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _ready(fields: dict[str, Any]) -> list[Text]:
    rows = [("API", fields["api_url"]), ("Documentation", f"{fields['api_url']}/docs")]
    rows += [("Health and metrics", fields["management_url"]), ("Data", fields["data_dir"])]
    if fields["demo_file"]:
        rows.append(("Demo sign-in", fields["demo_file"]))
    title = Text(f"Jangada is afloat after {fields['seconds']} s.", "bold green")
    table = [Text.assemble(f"  {name:<20}", (str(value), "bold")) for name, value in rows]
    return [Text(), title, *table, Text("  Ctrl-C stops it.", "dim"), Text()]


def _demo(fields: dict[str, Any]) -> list[Text]:
    return [
        Text("A demo account was made; its password is shown this once:", "bold"),
        Text.assemble("  e-mail    ", (fields["email"], "bold")),
        Text.assemble("  password  ", (fields["password"], "bold")),
        Text(f"  It is kept in {fields['file']}, which only you can read.", "dim"),
    ]


def _exited(fields: dict[str, Any]) -> list[Text]:
    message = f"ended ({fields['reason']}); starting it again in {fields['restart_in']} s"
    return [_line(fields["process"], message, "red")]


SENTENCES: dict[str, Callable[[dict[str, Any]], list[Text]]] = {
    "starting": lambda f: [_line(f["process"], "starting …", "dim")],
    "started": lambda f: [_line(f["process"], f"ready after {f['seconds']} s")],
    "demo": _demo,
    "ready": _ready,
    "log": _logged,
    "exited": _exited,
    "cleaned": lambda f: [_line("up", f"cleaned up after an earlier run: {f['what']}", "yellow")],
    "stopping": lambda f: [_line("up", f"stopping ({f['reason']}); again to hurry", "bold")],
    "hurrying": lambda _: [_line("up", "stopping now, without waiting for jobs", "bold yellow")],
    "stopped": lambda f: [_line(f["process"], "has ended", "dim")],
    # The program says it itself, on standard error, as it does for every command.
    "error": lambda _: [],
    "finished": lambda f: [_line("up", f"everything has stopped; the data is in {f['data_dir']}")],
}
"""Every event that there is, and how it reads."""
