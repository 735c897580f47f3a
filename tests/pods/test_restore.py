"""A database that is lost under a running platform, and restored as docs/guides/backup.md says."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Final

import httpx
import pytest
from node import traffic
from node.release import Release, is_ready
from node.traffic import Traffic

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]

JOBS: Final = 16
"""Enough for some to wait when the dump has been made."""

DUMP: Final = "/tmp/jangada.dump"  # noqa: S108 - a pod's own
SCOPE: Final = "PGOPTIONS=-c jangada.scope=system"
LOST: Final = ("database.", "ConnectError", "RemoteProtocolError", "ReadError")
"""How a request may fail without the tables: told so, or refused, since no API pod is ready.

The last two are how a refusal looks behind a connection that is handed on: closed before a word is
said, or reset when the request was already sent.
"""


def inside(shop: Release, *command: str) -> None:
    """Run a program of PostgreSQL's in its pod, as the platform's role in the system scope."""
    shop.in_postgres("env", SCOPE, *command)


def dump(shop: Release) -> None:
    whole = ("--enable-row-security", "--format=custom", f"--file={DUMP}")
    inside(shop, "pg_dump", *whole, "--username=jangada", "jangada")


def lose(shop: Release) -> None:
    """As a volume that is lost: the server is there, and a database that holds nothing."""
    for statement in (
        "DROP DATABASE jangada WITH (FORCE)",
        "CREATE DATABASE jangada OWNER jangada TEMPLATE template0",
    ):
        shop.sql(statement, database="postgres")


def restore(shop: Release) -> None:
    whole = ("--exit-on-error", "--single-transaction", "--no-owner")
    inside(shop, "pg_restore", *whole, "--username=jangada", "--dbname=jangada", DUMP)


def test_a_database_is_lost_and_restored(
    shop: Release, ana: httpx.Client, seen: Traffic, say: Callable[[str], None]
) -> None:
    """No process starts anew for it. What was done since then is done again, or says why not."""
    before = shop.contacts()
    jobs = [traffic.send_import(ana) for _ in range(JOBS)]
    traffic.wait_running(ana, jobs[0])
    dump(shop)
    since = next(job for job in jobs if traffic.state(ana, job) != "completed")
    assert traffic.ended(ana, since)["state"] == "completed"
    with closing(traffic.sign_in(seen.url)) as later, seen.at_rate():
        restarts = shop.restarts()
        lose(shop)
        shop.wait_pods("api", lambda pods: not any(map(is_ready, pods)))
        restore(shop)
        restored = time.monotonic()
        shop.wait_ready()
        served = seen.wait_served()
        assert later.get("/v1/me").status_code == 401
        jobs.append(traffic.send_import(ana))
        found = [traffic.ended(ana, job) for job in jobs]
    ends = [end_of(each) for each in found]
    assert ends[-1] == "completed"
    assert set(ends) <= {"completed", "storage.blob_not_found"}, "a file goes with the completion"
    assert shop.contacts() == before + ends.count("completed") * traffic.ROWS
    assert shop.restarts() == restarts
    say(
        f"the database lost and restored: requests succeed {served - restored:.1f} s later; of "
        f"{JOBS} imports {ends.count('storage.blob_not_found')} found no file any more; "
        f"{traffic.summary(seen.answers)}"
    )
    failed = traffic.troubles(seen.answers)
    assert [each for each in failed if not any(name in each for name in LOST)] == []


def end_of(job: Mapping[str, Any]) -> str:
    """Its state, or the reason why it was given up."""
    return str(job["errors"][-1]["code"] if job["state"] == "discarded" else job["state"])
