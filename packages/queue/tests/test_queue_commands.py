"""`jangada-queue`: what people do with queues on a terminal."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from jangada_queue.client import QueueClient
from jangada_queue.commands import COLUMNS, EXIT_UNAVAILABLE, build
from jangada_queue.leases import client as leases
from jangada_queue.messages import Offer
from jangada_queue.statistics import Upstream, write_upstream

pytestmark = pytest.mark.anyio

QUEUE = "mail"


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[QueueClient]:
    async with Redis.from_url(valkey_url) as redis:
        yield QueueClient(redis)


@pytest.fixture
async def letters(client: QueueClient) -> list[str]:
    """Three dead letters: two of `send`, one of `print`."""
    await leases.serve(client, [QUEUE])
    for key, kind in [("a", "send"), ("b", "print"), ("c", "send")]:
        await leases.kick(client, QUEUE, Offer(key, kind, b"\xff body"), extra={"task_id": key})
    for claim in (await client.claim(QUEUE, "w1", 9, pod="p1")).claims:
        await leases.bury(client, claim, "It can't be [read].")
    code, output = await run(client, "dead", "list", QUEUE, "--json")
    assert code == 0
    return [json.loads(line)["id"] for line in output.splitlines()]


async def run(client: QueueClient | str, *arguments: str) -> tuple[int, str]:
    result = await invoke(client, *arguments)
    return result.exit_code, result.output


async def invoke(client: QueueClient | str, *arguments: str, **more: str) -> Result:
    if isinstance(client, str):
        url = client
    else:
        options = client.redis.connection_pool.connection_kwargs
        url = f"unix://:{options['password']}@{options['path']}"
    environment = {"JANGADA_QUEUE_BROKER": url, **more}
    return await asyncio.to_thread(CliRunner().invoke, build(), arguments, env=environment)


async def test_a_narrow_terminal_shows_all_figures(client: QueueClient) -> None:
    """A column for each queue, where a line would be cut."""
    await leases.serve(client, [QUEUE, "an-import"])
    shown = {
        columns: (await invoke(client, "stats", TTY_COMPATIBLE="1", COLUMNS=columns)).output
        for columns in ("60", "160")
    }
    lines = {
        columns: [line.split() for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()]
        for columns, text in shown.items()
    }
    assert lines["160"][0] == list(COLUMNS)
    assert [line[0] for line in lines["160"][1:]] == ["an-import", QUEUE]
    assert lines["60"][0] == ["queue", "an-import", QUEUE]
    assert [line[0] for line in lines["60"]] == list(COLUMNS)


async def test_statistics_are_for_people_and_programs(client: QueueClient) -> None:
    await leases.serve(client, [QUEUE])
    await leases.kick(client, QUEUE, Offer("a", "send", b""))
    code, output = await run(client, "stats", "--json")
    assert code == 0
    (stats,) = [json.loads(line) for line in output.splitlines()]
    assert (stats["queue"], stats["waiting"], stats["dead"]) == (QUEUE, 1, 0)
    code, output = await run(client, "stats", QUEUE)
    assert code == 0
    header, row = (line.split() for line in output.splitlines())
    assert (header[0], row[0], row[1]) == ("queue", QUEUE, "1")


async def test_what_is_aside_in_postgresql_is_not_said_to_be_none(client: QueueClient) -> None:
    await write_upstream(client, QUEUE, Upstream(1, 0, 0.0, 0, 0))
    code, output = await run(client, "stats", QUEUE)
    assert code == 0
    header, row = (line.split() for line in output.splitlines())
    shown = dict(zip(header, row, strict=False))
    assert (shown["upstream"], shown["delayed"], shown["dead"]) == ("1", "-", "-")
    assert shown["parked"] == "0"


async def test_dead_letters_are_listed_and_shown(client: QueueClient, letters: list[str]) -> None:
    code, output = await run(client, "dead", "list", QUEUE, "--kind", "send")
    assert code == 0
    assert [letters[0] in output, letters[1] in output, letters[2] in output] == [True, False, True]
    assert "It can't be [read]." in output
    code, output = await run(client, "dead", "show", QUEUE, letters[1])
    assert code == 0
    assert json.loads(output)["fields"]["task_id"] == "b"


async def test_a_dead_letter_that_is_not_there_is_said_so(client: QueueClient) -> None:
    code, output = await run(client, "dead", "show", QUEUE, "0-1")
    assert (code, output) == (1, "There is no dead letter 0-1 in mail.\n")


@pytest.mark.parametrize("command", ["redrive", "forget"])
@pytest.mark.parametrize("nonsense", ["nonsense", "17", "17-1-1", f"{1 << 64}-0"])
async def test_what_is_no_id_is_refused_before_anything_is_done(
    client: QueueClient, letters: list[str], command: str, nonsense: str
) -> None:
    code, output = await run(client, "dead", command, QUEUE, letters[0], nonsense)
    assert code == 2
    assert f"{nonsense} is no dead letter's id" in output
    assert "Traceback" not in output
    _, output = await run(client, "dead", "list", QUEUE, "--json")
    assert len(output.splitlines()) == len(letters)


async def test_nonsense_is_no_dead_letter_that_could_be_shown(
    client: QueueClient, letters: list[str]
) -> None:
    assert letters
    code, output = await run(client, "dead", "show", QUEUE, "nonsense")
    assert (code, output) == (1, "There is no dead letter nonsense in mail.\n")


@pytest.mark.parametrize("command", [["stats"], ["dead", "list"]])
async def test_a_queue_that_nobody_knows_is_said_so_on_stderr(
    client: QueueClient, command: list[str]
) -> None:
    await leases.serve(client, [QUEUE])
    message = "No queue mial is known under the prefix jangada.\n"
    result = await invoke(client, *command, "mial", "--json")
    assert (result.exit_code, result.stderr) == (0, message)
    result = await invoke(client, *command, QUEUE, "--json")
    assert (result.exit_code, result.stderr) == (0, "")


async def test_a_queue_that_has_messages_is_known_though_nobody_served_it(
    client: QueueClient,
) -> None:
    await leases.kick(client, QUEUE, Offer("a", "send", b""))
    result = await invoke(client, "stats", QUEUE, "--json")
    assert (result.exit_code, result.stderr) == (0, "")


async def test_dead_letters_are_redriven_by_filter(client: QueueClient, letters: list[str]) -> None:
    assert len(letters) == 3
    code, output = await run(client, "dead", "redrive", QUEUE, "--kind", "send")
    assert (code, output) == (0, "2 dead letters redriven.\n")
    claims = (await client.claim(QUEUE, "w1", 9, pod="p1")).claims
    assert [claim.key for claim in claims] == ["a", "c"]


async def test_dead_letters_are_forgotten_by_name(client: QueueClient, letters: list[str]) -> None:
    code, output = await run(client, "dead", "forget", QUEUE, letters[0])
    assert (code, output) == (0, "1 dead letter forgotten.\n")
    code, output = await run(client, "dead", "forget", QUEUE, *letters)
    assert (code, output) == (0, "2 dead letters forgotten.\n")
    assert (await client.claim(QUEUE, "w1", 9, pod="p1")).claims == ()


async def test_nothing_is_redriven_without_a_choice(
    client: QueueClient, letters: list[str]
) -> None:
    code, output = await run(client, "dead", "redrive", QUEUE)
    assert code == 2
    assert "--all" in output
    code, output = await run(client, "dead", "redrive", QUEUE, "--all")
    assert output == f"{len(letters)} dead letters redriven.\n"


async def test_a_server_that_is_absent_is_said_in_one_line() -> None:
    code, output = await run("unix:///nonexistent.sock", "stats")
    assert (code, output.count("\n")) == (EXIT_UNAVAILABLE, 1)
    assert "Valkey is absent" in output


async def test_a_url_that_is_none_is_refused() -> None:
    code, output = await run("http://localhost", "stats")
    assert code == 2
    assert "rediss://" in output


async def test_no_broker_is_said_so() -> None:
    result = await asyncio.to_thread(CliRunner().invoke, build(), ["stats"], env={})
    assert result.exit_code == 2
    assert "JANGADA_QUEUE_BROKER" in result.output
