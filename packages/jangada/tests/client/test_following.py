"""Following a job through what proxies, restarts and refusals do to streams."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from jangada.client import following
from jangada.client.errors import NotSignedIn, ServerRefused, ServerUnavailable
from jangada.client.following import follow

ID = "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1"
EVENTS, JOB = f"/v1/jobs/{ID}/events", f"/v1/jobs/{ID}"

type Answer = httpx.Response | Exception


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSE", timedelta(0))


def job(state: str, done: int = 0) -> dict[str, Any]:
    return {"id": ID, "state": state, "progress": {"done": done, "total": 10}}


def events(*jobs: dict[str, Any]) -> httpx.Response:
    text = "".join(f": ping\n\nevent: job\ndata: {json.dumps(j)}\nid: 1\n\n" for j in jobs)
    return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})


def problem(status: int, code: str) -> httpx.Response:
    document = {"code": code, "detail": "So it is.", "request_id": "r", "errors": []}
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, json=document, headers=headers)


def answering(**answers: list[Answer]) -> tuple[httpx.Client, Callable[[], list[str]]]:
    """A client whose server gives these answers, the last one of each for ever."""
    asked: list[str] = []
    left: dict[str, Iterator[Answer]] = {}

    def forever(found: list[Answer]) -> Iterator[Answer]:
        yield from found
        while True:
            yield found[-1]

    def handle(request: httpx.Request) -> httpx.Response:
        name = "events" if request.url.path == EVENTS else "job"
        asked.append(name)
        found = next(left.setdefault(name, forever(answers[name])))
        if isinstance(found, Exception):
            raise found
        return found

    transport = httpx.MockTransport(handle)
    return httpx.Client(transport=transport, base_url="https://api.test"), lambda: asked


def seen_states(http: httpx.Client) -> list[str]:
    seen: list[str] = []
    last = follow(http, ID, lambda found: seen.append(found["state"]))
    assert last["state"] == seen[-1]
    return seen


def test_events_are_followed_to_the_end() -> None:
    http, asked = answering(events=[events(job("available"), job("running"), job("completed"))])
    assert seen_states(http) == ["available", "running", "completed"]
    assert asked() == ["events"]


@pytest.mark.parametrize("state", ["completed", "discarded", "cancelled"])
def test_every_end_is_one(state: str) -> None:
    http, _ = answering(events=[events(job(state))])
    assert seen_states(http) == [state]


@pytest.mark.parametrize(
    "broken",
    [
        httpx.Response(502, text="<html>Bad Gateway</html>"),
        httpx.Response(200, text="<html>Hello</html>", headers={"Content-Type": "text/html"}),
        problem(503, "job.too_many_streams"),
        problem(404, "route.not_found"),
        httpx.ReadTimeout("nothing came"),
        httpx.RemoteProtocolError("cut off"),
    ],
)
def test_without_events_the_job_is_asked_for(broken: Answer) -> None:
    states = [httpx.Response(200, json=job(state)) for state in ("available", "completed")]
    http, asked = answering(events=[broken], job=list(states))
    assert seen_states(http) == ["available", "completed"]
    assert asked() == ["events", "job"] * 2


def test_a_stream_that_is_cut_is_taken_up_again() -> None:
    http, _ = answering(
        events=[events(job("running")), events(job("running", 5), job("completed"))],
        job=[httpx.Response(200, json=job("running", 3))],
    )
    assert seen_states(http) == ["running", "running", "running", "completed"]


def test_a_server_that_restarts_is_waited_for() -> None:
    away: list[Answer] = [httpx.ConnectError("refused")] * 3
    http, _ = answering(events=[*away, events(job("completed"))], job=[*away])
    assert seen_states(http) == ["completed"]


def test_a_server_that_stays_away_is_given_up() -> None:
    http, _ = answering(events=[httpx.ConnectError("refused")], job=[httpx.ConnectError("refused")])
    with pytest.raises(ServerUnavailable):
        follow(http, ID, lambda _: None, patience=timedelta(milliseconds=1))


def test_a_job_that_is_gone_is_said_to_be() -> None:
    http, _ = answering(events=[problem(404, "job.not_found")], job=[problem(404, "job.not_found")])
    with pytest.raises(ServerRefused, match=r"job\.not_found"):
        follow(http, ID, lambda _: None)


def test_a_session_that_ends_is_said_to_have() -> None:
    ended = problem(401, "auth.session_ended")
    http, _ = answering(events=[ended], job=[ended])
    with pytest.raises(NotSignedIn, match=r"auth\.session_ended"):
        follow(http, ID, lambda _: None)


def test_data_of_several_lines_is_one_message() -> None:
    lines = iter(["data: {", "data: }", "", ": ping", "", "data:x", "id: 2", "", "data: cut off"])
    assert list(following._messages(lines)) == ["{\n}", "x"]
