"""What brokers say, and why they don't: on real sockets."""

import socket
from collections.abc import Iterator

import pytest

from jangada.local.valkey import EmbeddedValkey
from jangada_operator.absence import why_absent, why_unreadable
from jangada_operator.brokers import Brokers, UnreadableBroker
from jangada_operator.workerpool.observing import Look
from jangada_operator.workerpool.spec import Pool, read_pool

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
        return (await brokers.look({one.key: (one, brokers.of(url, "jangada"))}))[one.key]
    finally:
        await brokers.close()


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


async def test_why_a_server_is_absent_is_said_without_its_password(nobody: str) -> None:
    look = await look_of(f"redis://user:secret@{nobody}/0")
    assert (look.stats, look.age) == (None, None)
    assert look.trouble == f"{nobody} doesn't answer: connection refused."
    sentinels = await look_of(f"redis+sentinel://user:secret@{nobody}/main")
    assert sentinels.trouble == f"{nobody} doesn't answer: connection refused."


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
