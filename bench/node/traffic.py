"""What users do meanwhile: requests at a constant rate, each counted, and imports of contacts.

The rate is kept whatever the answers take (`node.asker`), so a server that stalls is seen in the
figures of all that wait behind it.
"""

import json
import math
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx

from jangada.client.following import Job
from jangada.client.following import follow as follow_anyway
from node.asker import PATIENCE, RATE

PASSWORD: Final = "a-raft-goes-out-with-the-tide"  # noqa: S105 - of a user made up here
ROWS: Final = 100_000
"""Of an import that takes a worker some seconds."""
IMPORT_EVERY: Final = 10.0
"""Seconds between two imports at least."""
CALM: Final = 60.0
"""Seconds of such a load before a change, to compare with."""


type Window = tuple[float, float]
"""Since when and until when, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: since when, how long it took, what went wrong, and whether it was sent again."""

    at: float
    seconds: float
    trouble: str
    was_resent: bool = False


@dataclass(slots=True)
class Traffic:
    """A user of the API behind a URL, who keeps asking for the first contacts."""

    url: str
    token: str
    answers: list[Answered] = field(default_factory=list)
    _more: threading.Condition = field(default_factory=threading.Condition)
    _is_over: bool = False

    @contextmanager
    def at_rate(self) -> Iterator[None]:
        """Have an asker ask inside of it."""
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with (
            subprocess.Popen(  # noqa: S603 - a program of ours
                [sys.executable, "-m", "node.asker", self.url],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            ) as asker,
            ThreadPoolExecutor(1) as pool,
        ):
            assert asker.stdin is not None
            assert asker.stdout is not None
            asker.stdin.write(f"{self.token}\n")
            hearing = pool.submit(self._hear, asker.stdout)
            try:
                yield
            finally:
                asker.stdin.close()
            hearing.result()
        if asker.returncode:
            raise RuntimeError(f"Who asked ended with code {asker.returncode}.")

    def _hear(self, lines: Iterable[str]) -> None:
        self._is_over = False
        try:
            for line in lines:
                with self._more:
                    self.answers.append(Answered(**json.loads(line)))
                    self._more.notify_all()
        finally:
            with self._more:
                self._is_over = True
                self._more.notify_all()

    def wait_for(self, count: int) -> None:
        """Return when so many requests have been answered."""
        self._wait(lambda: len(self.answers) >= count, count)

    def calm(self) -> Window:
        """A while in which nothing changes: to be asked for when nothing does."""
        since = time.monotonic()
        self.wait_for(len(self.answers) + int(CALM * RATE))
        return since, time.monotonic()

    def wait_served(self, count: int = 10) -> float:
        """Return when the last so many requests were all answered well: since when they are."""
        self._wait(lambda: len(self._well()) >= count, count)
        return min(each.at for each in self._well())

    def _wait(self, is_so: Callable[[], bool], count: int) -> None:
        with self._more:
            self._more.wait_for(lambda: is_so() or self._is_over, timeout=PATIENCE * count)
            if not is_so():
                last = troubles(self.answers)[-3:]
                raise TimeoutError(f"{len(self._well())} of {count} answered well; last: {last}")

    def _well(self) -> Sequence[Answered]:
        """Those since the last that failed."""
        failed = max((each.at for each in self.answers if each.trouble), default=-math.inf)
        return [each for each in self.answers if each.at > failed]

    def within(self, window: Window) -> Sequence[Answered]:
        """What was asked then: all of it when nobody asks any more, the slowest included."""
        since, until = window
        return [each for each in self.answers if since <= each.at < until]


def p99(answers: Sequence[Answered]) -> float:
    """Seconds within which 99 of 100 were answered."""
    ordered = sorted(each.seconds for each in answers)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def troubles(answers: Sequence[Answered]) -> Sequence[str]:
    return [each.trouble for each in answers if each.trouble]


def compared(during: Sequence[Answered], calm: Sequence[Answered]) -> str:
    """How a change went beside what was before it."""
    return f"{summary(during)}, {p99(during) / p99(calm):.1f} times as before"


def token(client: httpx.Client) -> str:
    """The access token that it sends."""
    return str(client.headers["Authorization"]).partition(" ")[2]


def summary(answers: Sequence[Answered]) -> str:
    """How many, and how they went."""
    resent = sum(each.was_resent for each in answers)
    return (
        f"{len(troubles(answers))} of {len(answers)} requests failed, {resent} were sent again, "
        f"p99 {p99(answers) * 1000:.0f} ms"
    )


def sign_in(url: str) -> httpx.Client:
    """A client of a new user, with an access token that is good for a quarter of an hour."""
    client = httpx.Client(base_url=url, timeout=120, trust_env=False)
    who = {"email": f"ana-{secrets.token_hex(4)}@example.com", "password": PASSWORD}
    registered = client.post("/v1/auth/register", json={**who, "name": "Ana"})
    registered.raise_for_status()
    renew(client, who)
    return client


def renew(client: httpx.Client, who: dict[str, str]) -> None:
    answer = client.post("/v1/auth/login", json=who)
    answer.raise_for_status()
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def contacts(rows: int, tag: str) -> bytes:
    """A file of so many contacts, none of whom is in a file with another tag."""
    lines = (f"Ana {number},ana.{tag}.{number}@example.com" for number in range(rows))
    return "\n".join(("name,email", *lines)).encode()


def send(client: httpx.Client, content: bytes) -> str:
    """Begin an import; answers its job."""
    kind = {"Content-Type": "text/csv"}
    answer = client.post("/v1/contacts/imports", content=content, headers=kind)
    answer.raise_for_status()
    job: str = answer.json()["id"]
    return job


def send_import(client: httpx.Client) -> str:
    """One of `ROWS` contacts whom nobody has yet."""
    return send(client, contacts(ROWS, secrets.token_hex(4)))


@contextmanager
def importing(client: httpx.Client, jobs: list[str]) -> Iterator[None]:
    """Begin imports of `ROWS` contacts at a constant rate; their jobs are added to these.

    The first one is waited for: a worker is to be busy for a quarter of the time at most, so that
    the load is one that the machine bears. The rate is kept whatever becomes of the others. Each is
    sent over a connection of its own, for an import that may have arrived isn't sent again.
    """
    once = httpx.Limits(max_keepalive_connections=0)
    over = threading.Event()
    with (
        httpx.Client(
            base_url=client.base_url,
            headers=client.headers,
            limits=once,
            timeout=client.timeout,
            trust_env=False,
        ) as own,
        ThreadPoolExecutor(1) as pool,
    ):
        jobs.append(send_import(own))
        every = max(IMPORT_EVERY, 4 * took(own, jobs[-1]))

        def send_on() -> None:
            due = time.monotonic()
            while not over.wait(due - time.monotonic()):
                jobs.append(send_import(own))
                due += every

        sending = pool.submit(send_on)
        try:
            yield
        finally:
            over.set()
        sending.result()


def took(client: httpx.Client, job: str) -> float:
    """The seconds of its last attempt, when it has ended."""
    found = ended(client, job)
    first, last = (datetime.fromisoformat(found[each]) for each in ("started_at", "finished_at"))
    return (last - first).total_seconds()


def state(client: httpx.Client, job: str) -> str:
    answer = client.get(f"/v1/jobs/{job}")
    answer.raise_for_status()
    found: str = answer.json()["state"]
    return found


def follow(client: httpx.Client, job: str) -> Sequence[str]:
    """The job's events, as they are sent, until it has ended."""
    with client.stream("GET", f"/v1/jobs/{job}/events", timeout=600) as lines:
        return [line for line in lines.iter_lines() if line.startswith("event:")]


def wait_running(client: httpx.Client, job: str) -> None:
    """Return when it runs, or has ended."""
    with client.stream("GET", f"/v1/jobs/{job}/events", timeout=600) as lines:
        next(line for line in lines.iter_lines() if '"started_at":"' in line)


def ended(client: httpx.Client, job: str) -> Job:
    """The job at its end, whatever breaks off meanwhile."""
    return follow_anyway(client, job, lambda _: None)


def statistics(client: httpx.Client, job: str) -> dict[str, Any]:
    answer = client.get(f"/v1/contacts/imports/{job}")
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()["statistics"]
    return found
