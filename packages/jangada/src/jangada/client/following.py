"""Following a job to its end: by its events where the server sends any, by asking otherwise.

A server that restarts, a proxy that cuts or buffers streams, and a session that is refreshed
meanwhile are all borne; only a server that says nothing for minutes is given up. The job goes on
without us in any case.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import httpx

from jangada.client.errors import ServerRefused, ServerUnavailable
from jangada.client.requests import ask, checked, reaching

type Job = dict[str, Any]
type Seen = Callable[[Job], None]

ENDED: Final = frozenset({"completed", "discarded", "cancelled"})
PATIENCE: Final = timedelta(minutes=3)
PAUSE: Final = timedelta(seconds=1)


def follow(http: httpx.Client, job_id: str, seen: Seen, *, patience: timedelta = PATIENCE) -> Job:
    """The job as it ended; `seen` is called with each state of it on the way.

    Raises `ServerUnavailable` after a time without any answer, `ServerRefused` when the job is
    gone, and `NotSignedIn`.
    """
    silent_since: float | None = None
    while True:
        try:
            for job in _news(http, job_id):
                silent_since = None
                seen(job)
                if job["state"] in ENDED:
                    return job
        except ServerUnavailable:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > patience.total_seconds():
                raise
        time.sleep(PAUSE.total_seconds())


def _news(http: httpx.Client, job_id: str) -> Iterator[Job]:
    """Its events until they end, then its state, asked for."""
    with suppress(ServerRefused, ServerUnavailable):
        yield from _events(http, job_id)
    job: Job = ask(http, "GET", f"/v1/jobs/{job_id}").json()
    yield job


def _events(http: httpx.Client, job_id: str) -> Iterator[Job]:
    accept = {"Accept": "text/event-stream"}
    with (
        reaching(http),
        http.stream("GET", f"/v1/jobs/{job_id}/events", headers=accept) as response,
    ):
        if not checked(response).headers.get("content-type", "").startswith("text/event-stream"):
            return
        for data in _messages(response.iter_lines()):
            yield json.loads(data)


def _messages(lines: Iterator[str]) -> Iterator[str]:
    """The data of each whole event; comments and other fields are skipped (HTML, §9.2.6)."""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
