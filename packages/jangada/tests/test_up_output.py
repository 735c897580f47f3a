"""What `jangada up` says: tidy, complete, and never a reason for the platform to wait."""

import io
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from jangada.local.logs import MAX_BYTES, LogFile, open_log, tail
from jangada.local.output import SENTENCES, JsonOutput, TerminalOutput, printable

EXAMPLES: dict[str, dict[str, Any]] = {
    "starting": {"process": "api"},
    "started": {"process": "api", "seconds": 1.5},
    "demo": {"email": "demo@example.com", "password": "p", "file": "/data/demo.json"},
    "ready": {
        "api_url": "http://127.0.0.1:8000",
        "management_url": "http://127.0.0.1:9000",
        "data_dir": "/data",
        "demo_file": "/data/demo.json",
        "seconds": 7.5,
    },
    "log": {"process": "worker", "record": {"event": "job done", "job_id": "1"}},
    "exited": {"process": "worker", "reason": "SIGKILL", "restart_in": 0.5},
    "cleaned": {"what": "3 processes were still running"},
    "stopping": {"reason": "SIGINT"},
    "hurrying": {},
    "stopped": {"process": "api"},
    "error": {"detail": "the port is in use", "code": "local.port_in_use"},
    "finished": {"data_dir": "/data"},
}


def shown(event: str, **fields: Any) -> str:  # noqa: ANN401 - any JSON
    stream = io.StringIO()
    output = TerminalOutput(stream)
    output.say(event, **fields)
    output.close()
    return re.sub(r"^\d\d:\d\d:\d\d ", "", stream.getvalue(), flags=re.MULTILINE)


def logged(**record: Any) -> str:  # noqa: ANN401 - any JSON
    return shown("log", process="api", record=record)


def test_every_event_has_a_sentence_and_an_example() -> None:
    assert SENTENCES.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("event", EXAMPLES)
def test_every_event_reads_and_parses(event: str) -> None:
    # Standard error has the error already: the program says it as it does for every command.
    assert bool(shown(event, **EXAMPLES[event])) == (event != "error")
    stream = io.StringIO()
    output = JsonOutput(stream)
    output.say(event, **EXAMPLES[event])
    output.close()
    assert json.loads(stream.getvalue()) == {"event": event, **EXAMPLES[event]}


def test_a_log_line_is_tidy() -> None:
    line = logged(
        timestamp="2026-01-01T00:00:00Z", level="info", event="job done", job_id="7", attempts=2
    )
    assert line == "api        job done  job_id=7  attempts=2\n"


def test_a_request_is_told_in_one_glance() -> None:
    line = logged(
        event="request", method="GET", route="/v1/me", status=200, duration_seconds=0.0123, code="x"
    )
    assert line == "api        GET /v1/me 200 12 ms  code=x\n"


def test_an_exception_follows_its_line() -> None:
    lines = logged(level="error", event="oh", exception="Traceback\n  here").splitlines()
    assert [line.strip() for line in lines] == ["api        oh", "Traceback", "here"]


def test_nothing_that_a_terminal_would_act_on_gets_through() -> None:
    assert "\x1b" not in logged(event="a\x1b[2Jb", field="\x1b]0;x\x07", more=["\x1b"])
    assert printable("é\x1b\n") == "é\\x1b\\x0a"
    assert "[red]" in logged(event="[red]markup[/red]")


def test_a_reader_that_stops_reading_stops_nobody() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    before = set(threading.enumerate())
    output = JsonOutput(stream)
    (writer,) = set(threading.enumerate()) - before
    for _ in range(5_000):
        output.say("log", process="api", record={"event": "x" * 1000})
    output.close()
    with os.fdopen(reading) as reader:
        assert json.loads(reader.readline())["event"] == "log"
    output.close()
    writer.join()
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    output = JsonOutput(stream)
    output.say("hurrying")
    output.close()
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_lines_are_whole_however_many_speak() -> None:
    stream = io.StringIO()
    output = JsonOutput(stream)
    speakers = [
        threading.Thread(target=output.say, args=("stopped",), kwargs={"process": f"{n}"})
        for n in range(50)
    ]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    output.close()
    said = {json.loads(line)["process"] for line in stream.getvalue().splitlines()}
    assert said == {f"{n}" for n in range(50)}


def test_a_log_file_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "child.log"
    log = LogFile(path)
    for _ in range(20):
        log.write(b"x" * (MAX_BYTES // 8))
    log.close()
    old = tmp_path / "child.log.old"
    assert path.stat().st_size <= MAX_BYTES * 1.2
    assert old.stat().st_size <= MAX_BYTES * 1.2
    assert path.stat().st_mode & 0o077 == 0


def test_the_end_of_a_log_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path) == "(there is no log)"
    with open_log(path) as log:
        assert tail(path) == "(the log is empty)"
        log.write("".join(f"line {n}\n" for n in range(5000)).encode())
    assert tail(path, lines=2) == "line 4998\nline 4999"
