"""Runs the embedded servers as a program of its own, for tests that kill it or change its user.

Prints one JSON line when both servers answer, then waits until its standard input is closed.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import psycopg
import redis

from jangada.local import postgres, process
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey


def ignore_deaths() -> None:
    """Leave orphans, as a machine without death signals would: none is told that we died."""
    for module in (postgres, sys.modules["jangada.local.valkey"]):
        module.Command = lambda **kwargs: dataclasses.replace(  # type: ignore[attr-defined]
            process.Command(**kwargs), death_signal=signal.SIGCONT
        )


def count_in_postgres(url: str) -> int:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS starts (pid int)")
        connection.execute("INSERT INTO starts VALUES (%s)", [os.getpid()])
        row = connection.execute("SELECT count(*) FROM starts").fetchone()
    return int(row[0]) if row else 0


def count_in_valkey(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.incr("starts"))


def main(folder: Path) -> None:
    with (
        EmbeddedPostgres(folder / "postgres", durable=False) as server,
        EmbeddedValkey(folder / "valkey", durable=False) as valkey,
    ):
        report = {
            "uid": os.geteuid(),
            "pids": [server.child.pid, valkey.child.pid],
            "starts": [count_in_postgres(server.url), count_in_valkey(valkey.url)],
        }
        print(json.dumps(report), flush=True)  # noqa: T201 - read by the test
        sys.stdin.read()


if __name__ == "__main__":
    if "--orphans" in sys.argv:
        ignore_deaths()
    main(Path(sys.argv[1]))
