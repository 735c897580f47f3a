"""What brokers say, and why they don't: on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from redis.asyncio.sentinel import MasterNotFoundError

from jangada.local.valkey import EmbeddedValkey
from jangada_operator.absence import why_absent, why_unreadable
from jangada_operator.brokers import Answer, Broker, Brokers, UnreadableBroker
from jangada_operator.workerpool.observing import Look
from jangada_operator.workerpool.spec import Pool, read_pool
from jangada_queue.statistics import QueueStats

pytestmark = pytest.mark.anyio


def pool(name: str) -> Pool:
    return read_pool(
        {
            "metadata": {"namespace": "shop", "name": name, "uid": name},
            "spec": {
                "scaleTargetRef": {"name": name},
                "queues": ["mail"],
                "broker": {"secretKeyRef": {"name": "valkey", "key": "url"}},
                "replicas": {"max": 1},
            },
        }
    )


async def look_of(url: str) -> Look:
    brokers, one = Brokers(), pool("one")
    try:
        return await late_look(brokers, one, brokers.of(url, "jangada"))
    finally:
        await brokers.close()


async def late_look(brokers: Brokers, one: Pool, broker: Broker) -> Look:
    """What is said in the end."""
    pools = {one.key: (one, broker)}
    while one.key not in (looks := await brokers.look(pools)):
        if broker.asked is not None:
            await asyncio.wait([broker.asked])
    return looks[one.key]


@pytest.fixture
def nobody() -> Iterator[str]:
    """A port on which nobody listens, and nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


async def test_a_server_that_answers_has_nothing_to_explain(valkey_server: EmbeddedValkey) -> None:
    look = await look_of(valkey_server.url)
    assert look.stats is not None
    assert (look.why, look.trouble) == ("", "")


async def test_a_server_that_hangs_delays_only_its_own_pools(valkey_server: EmbeddedValkey) -> None:
    """It is asked once; what it says in the end is taken by the look after that."""
    async with hanging() as (url, connections):
        brokers, one, other = Brokers(timedelta(seconds=60)), pool("one"), pool("other")
        pools = {
            one.key: (one, brokers.of(valkey_server.url, "jangada")),
            other.key: (other, brokers.of(url, "jangada")),
        }
        seen = 0
        while seen < 3:
            looks = await brokers.look(pools)
            assert other.key not in looks
            seen += one.key in looks
        (connection,) = connections
        connection.close()
        look = await late_look(brokers, *pools[other.key])
        assert look.stats is None
        assert look.trouble.startswith(f"{url.removeprefix('redis://')} doesn't answer")
        assert len(connections) == 1
        await brokers.close()


async def test_a_server_that_hangs_is_given_up_at_the_deadline() -> None:
    async with hanging() as (url, _):
        brokers, one = Brokers(timedelta(milliseconds=1)), pool("one")
        look = await late_look(brokers, one, brokers.of(url, "jangada"))
        assert look.trouble.endswith("doesn't answer: nothing came in time.")
        await brokers.close()


async def test_a_pool_that_came_since_the_question_waits_for_the_next(
    valkey_server: EmbeddedValkey,
) -> None:
    brokers, one = Brokers(), pool("one")
    broker, other = brokers.of(valkey_server.url, "jangada"), replace(one, queues=("other",))
    broker.asked = asyncio.create_task(answered({}))
    await broker.asked
    assert await brokers.look({one.key: (one, broker)}) == {}
    assert (await late_look(brokers, other, broker)).stats is not None
    await brokers.close()


async def answered(stats: Mapping[str, QueueStats]) -> Answer:
    return Answer(stats)


@asynccontextmanager
async def hanging() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """The URL of a server that accepts and never says anything, and its connections."""
    connections: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
    finally:
        for connection in connections:
            connection.close()
        server.close()


async def test_why_a_server_is_absent_is_said_without_its_password(nobody: str) -> None:
    look = await look_of(f"redis://user:secret@{nobody}/0")
    assert (look.stats, look.age) == (None, None)
    assert look.trouble == f"{nobody} doesn't answer: connection refused."
    # Sentinels are asked again after pauses that are drawn: the deadline ends it, or they do.
    sentinels = await look_of(f"redis+sentinel://user:secret@{nobody}/main")
    assert sentinels.trouble in {
        f"{nobody} doesn't answer: connection refused.",
        f"{nobody} doesn't answer: no sentinel answers, or none knows the master.",
    }


def test_a_master_that_no_sentinel_knows_is_said_in_words() -> None:
    error = MasterNotFoundError("No master found for 'main' : <redis.asyncio.client.Redis(<…>)>")
    text = why_absent(error, "redis+sentinel://user:secret@valkey:26379/main")
    assert text.endswith("doesn't answer: no sentinel answers, or none knows the master.")


async def test_a_socket_that_is_not_there_is_told() -> None:
    look = await look_of("unix:///nowhere/valkey.sock")
    assert look.trouble == "/nowhere/valkey.sock doesn't answer: no such file or directory."


async def test_a_refused_password_is_told_and_not_shown(valkey_server: EmbeddedValkey) -> None:
    look = await look_of(valkey_server.url.replace("://", "://nobody:secret@"))
    assert look.trouble.endswith("doesn't answer: it refuses the user or the password.")
    assert "secret" not in look.trouble


@pytest.mark.parametrize("password", ["hunter2", "p%2Fw", "p%40w%3A"])
def test_whatever_an_error_quotes_no_password_is_shown(password: str) -> None:
    plain = password.replace("%2F", "/").replace("%40", "@").replace("%3A", ":")
    for shown in (password, plain):
        text = why_absent(RuntimeError(f"odd: {shown}!"), f"redis://:{password}@valkey:6379/0")
        assert text == "valkey:6379 doesn't answer: odd: …!."
    asked = why_absent(RuntimeError(f"odd: {plain}!"), f"redis://valkey:6379?password={password}")
    assert asked == "valkey:6379 doesn't answer: odd: …!."


@pytest.mark.parametrize("url", ["redis://:se/cret@valkey:6379/0", "redis://:se#cret@valkey:6379"])
def test_a_url_that_cannot_be_read_is_told_without_what_is_in_it(url: str) -> None:
    with pytest.raises(UnreadableBroker) as refused:
        Brokers().of(url, "jangada")
    assert "%2F" in str(refused.value)
    assert "se" not in str(refused.value).replace("password", "")


def test_other_faults_of_a_url_are_told_as_they_are() -> None:
    assert why_unreadable(ValueError("it has no scheme.")) == "it has no scheme"
