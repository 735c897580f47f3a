"""The broker as a taskiq application uses it, in one process, under both receivers."""

import asyncio
import os
import signal
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, override

import pytest
from redis.asyncio import Redis
from taskiq import Context, SimpleRetryMiddleware, SmartRetryMiddleware, TaskiqDepends
from taskiq.abc.middleware import TaskiqMiddleware
from taskiq.message import BrokerMessage, TaskiqMessage
from taskiq.receiver import Receiver

from jangada.testing import eventually
from jangada_queue.client import QueueClient
from jangada_queue.leases.dead_letters import DeadLetter, dead_letters
from jangada_queue.statistics import QueueStats, queue_stats
from jangada_queue.taskiq import LeasedReceiver, LeasedStreamBroker
from jangada_queue.workers import WorkerReport, flag_drain, is_empty, unflag_drain

pytestmark = pytest.mark.anyio

QUEUE = "mail"
LEASE = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

BOTH = pytest.mark.parametrize("receiver", [Receiver, LeasedReceiver])


class Application:
    """A broker with tasks, and what they did."""

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 - the broker's own
        self.broker = broker = LeasedStreamBroker(
            url,
            QUEUE,
            lease=LEASE,
            renew_every=LEASE / 5,
            sweep_every=LEASE / 10,
            pod="pod-1",
            **options,
        )
        self.ran: list[Any] = []
        self.gate = asyncio.Event()
        self.client = QueueClient(Redis.from_url(url))

        @broker.task("note")
        async def note(what: str) -> str:
            self.ran.append(what)
            return what

        @broker.task("wait")
        async def wait(what: str) -> None:
            self.ran.append(what)
            await self.gate.wait()
            self.ran.append(f"{what} ended")

        @broker.task("fail")
        async def fail() -> None:
            self.ran.append("fail")
            raise ValueError

        @broker.task("threaded")
        def threaded(what: str) -> None:
            self.ran.append(what)

        self.note, self.wait, self.fail, self.threaded = note, wait, fail, threaded

    async def stats(self) -> QueueStats:
        (found,) = await queue_stats(self.client, [QUEUE])
        return found

    async def letters(self) -> list[DeadLetter]:
        return [letter async for letter in dead_letters(self.client, QUEUE)]

    async def is_draining(self) -> bool:
        return any(worker.is_draining for worker in (await self.stats()).workers)

    async def has_run(self, *what: object) -> None:
        await eventually(lambda: self.ran == list(what))

    async def is_settled(self) -> bool:
        found = await self.stats()
        return found.waiting == found.claimed == found.delayed == 0

    @asynccontextmanager
    async def working(
        self, receiver: type[Receiver] = LeasedReceiver, **options: int
    ) -> AsyncIterator[asyncio.Event]:
        """A worker in this process; at the end it is stopped as taskiq's command does."""
        self.broker.is_worker_process = True
        chosen: dict[str, Any] = {"max_async_tasks": 10, **options}
        listener = receiver(self.broker, **chosen)
        finish = asyncio.Event()
        listening = asyncio.create_task(listener.listen(finish))
        try:
            yield finish
        finally:
            finish.set()
            self.gate.set()
            await listening
            await self.broker.shutdown()


@pytest.fixture
async def app(valkey_url: str) -> AsyncIterator[Application]:
    made = Application(valkey_url)
    yield made
    await made.client.redis.aclose()


@BOTH
async def test_tasks_run_and_leave_nothing_behind(
    app: Application, receiver: type[Receiver]
) -> None:
    async with app.working(receiver):
        await app.note.kiq("a")
        await app.threaded.kiq("b")
        await eventually(lambda: sorted(app.ran) == ["a", "b"])
        await eventually(app.is_settled)
    keys = app.client.keys(QUEUE)
    assert await app.client.redis.xlen(keys.stream) == 0
    assert await app.client.redis.xinfo_consumers(keys.stream, "workers") == []
    assert (await app.stats()).workers == []


@BOTH
async def test_a_task_that_outlives_its_lease_is_started_once(
    app: Application, receiver: type[Receiver]
) -> None:
    async with app.working(receiver):
        await app.wait.kiq("long")
        await app.has_run("long")
        (claimed,) = await app.client.redis.xpending_range(
            app.client.keys(QUEUE).stream, "workers", "-", "+", 9
        )

        async def renewed() -> bool:
            found = await app.client.redis.xpending_range(
                app.client.keys(QUEUE).stream, "workers", "-", "+", 9
            )
            return (
                int(found[0]["times_delivered"]) >= int(claimed["times_delivered"])
                and (await app.client.redis.time())[0] - began >= 3 * LEASE.total_seconds()
            )

        began = (await app.client.redis.time())[0]
        await eventually(renewed)
        assert app.ran == ["long"]
        app.gate.set()
        await app.has_run("long", "long ended")
        await eventually(app.is_settled)


@BOTH
async def test_what_was_not_started_goes_back_at_the_end(
    app: Application, receiver: type[Receiver]
) -> None:
    for number in range(5):
        await app.wait.kiq(str(number))
    async with app.working(receiver, max_async_tasks=2) as finish:
        await app.has_run("0", "1")
        finish.set()
    stats = await app.stats()
    assert (stats.waiting, stats.claimed) == (3, 0)


@BOTH
async def test_nothing_is_taken_that_could_not_start(
    app: Application, receiver: type[Receiver]
) -> None:
    for number in range(5):
        await app.wait.kiq(str(number))
    async with app.working(receiver, max_async_tasks=2):
        await app.has_run("0", "1")
        await eventually(lambda: _is_claimed(app, 2))
        assert (await app.stats()).waiting == 3
        app.gate.set()


async def _is_claimed(app: Application, count: int) -> bool:
    return (await app.stats()).claimed == count


async def test_a_retry_is_a_message_of_its_own(app: Application) -> None:
    """It has its task's id: identity is the delivery's."""
    app.broker.add_middlewares(
        SimpleRetryMiddleware(default_retry_label=True, default_retry_count=3)
    )
    async with app.working():
        await app.fail.kiq()
        await app.has_run("fail", "fail", "fail")
        await eventually(app.is_settled)
    assert (await app.stats()).completed_total == 3


async def test_a_delayed_retry_waits(app: Application) -> None:
    app.broker.add_middlewares(
        SmartRetryMiddleware(default_retry_label=True, default_retry_count=2, default_delay=3600)
    )
    async with app.working():
        await app.fail.kiq()
        await eventually(lambda: _is_delayed(app, 1))
        assert app.ran == ["fail"]


async def _is_delayed(app: Application, count: int) -> bool:
    return (await app.stats()).delayed == count


async def test_a_delayed_task_runs_when_it_is_due(app: Application) -> None:
    async with app.working():
        await app.note.kicker().with_labels(delay=0.05).kiq("a")
        await app.has_run("a")


async def test_a_delay_that_is_no_number_is_refused(app: Application) -> None:
    with pytest.raises(Exception, match="send task") as refused:
        await app.note.kicker().with_labels(delay="soon").kiq("a")
    assert "the label delay must be a number of seconds, not 'soon'" in str(refused.value.__cause__)


class Broken(TaskiqMiddleware):
    """Raises before the task runs."""

    @override
    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        del message
        raise RuntimeError("no such luck")


@BOTH
async def test_a_middleware_that_raises_loses_nothing(
    app: Application, receiver: type[Receiver]
) -> None:
    app.broker.add_middlewares(Broken())
    async with app.working(receiver):
        await app.note.kiq("a")
        await eventually(app.letters)
    (letter,) = await app.letters()
    assert (letter.reason, letter.kind) == ("poison", "note")
    assert "RuntimeError: no such luck" in letter.detail
    assert app.ran == []


@BOTH
async def test_an_unreadable_message_is_a_dead_letter(
    app: Application, receiver: type[Receiver]
) -> None:
    await app.broker.kick(
        BrokerMessage(task_id="t", task_name="note", message=b"{not json", labels={})
    )
    async with app.working(receiver):
        await eventually(app.letters)
        await eventually(app.is_settled)
    (letter,) = await app.letters()
    assert (letter.reason, letter.body) == ("unreadable", b"{not json")


@BOTH
async def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    app: Application, receiver: type[Receiver]
) -> None:
    message = TaskiqMessage(task_id="t", task_name="later", labels={}, args=["x"], kwargs={})
    await app.broker.kick(app.broker.formatter.dumps(message))
    async with app.working(receiver):
        await app.note.kiq("a")
        await app.has_run("a")

        async def is_parked() -> bool:
            return (await app.stats()).parked == {"1:later": 1}

        await eventually(is_parked)

        async def later(what: str) -> None:
            app.ran.append(what)

        app.broker.register_task(later, task_name="later")
        await app.has_run("a", "x")


async def test_acknowledged_by_the_task_itself(app: Application) -> None:
    @app.broker.task("manual", ack_type="manual")
    async def manual(context: Context = TaskiqDepends()) -> None:  # noqa: B008 - taskiq's way
        await context.ack()
        app.ran.append((await app.stats()).claimed)

    async with app.working():
        await manual.kiq()
        await app.has_run(0)


async def test_acknowledged_before_it_runs(app: Application) -> None:
    """Then a crash runs it never: at most once."""

    @app.broker.task("once", ack_type="when_received")
    async def once() -> None:
        app.ran.append((await app.stats()).claimed)

    async with app.working():
        await once.kiq()
        await app.has_run(0)


async def test_what_was_acknowledged_early_is_busy_until_it_ends(app: Application) -> None:
    """Its lease is over and its work isn't: the pod is not empty."""

    @app.broker.task("early", ack_type="when_received")
    async def early() -> None:
        await app.gate.wait()
        app.ran.append("early")

    async with app.working():
        await early.kiq()

        async def is_busy_without_a_lease() -> bool:
            found = await app.stats()
            return (found.busy, found.claimed, found.waiting) == (1, 0, 0)

        await eventually(is_busy_without_a_lease)
        app.gate.set()
        await app.has_run("early")

        async def is_idle() -> bool:
            return (await app.stats()).busy == 0

        await eventually(is_idle)


@BOTH
async def test_every_connection_killed_aborts_nothing(
    app: Application, receiver: type[Receiver]
) -> None:
    async with app.working(receiver):
        await app.wait.kiq("a")
        await app.has_run("a")
        await app.client.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        app.gate.set()
        await app.has_run("a", "a ended")
        await app.note.kiq("b")
        await app.has_run("a", "a ended", "b")
        await eventually(app.is_settled)


async def test_a_flagged_pod_takes_nothing_and_is_empty(app: Application) -> None:
    async with app.working():
        await app.wait.kiq("a")
        await app.has_run("a")
        await flag_drain(app.client, [QUEUE], "pod-1", MINUTE)
        await app.note.kiq("b")
        await eventually(app.is_draining)
        assert not await is_empty(app.client, [QUEUE], "pod-1")
        app.gate.set()
        await eventually(lambda: is_empty(app.client, [QUEUE], "pod-1"))
        assert app.ran == ["a", "a ended"]
        await unflag_drain(app.client, [QUEUE], "pod-1")
        await app.has_run("a", "a ended", "b")


async def test_statistics_show_what_runs(app: Application) -> None:
    async with app.working(max_async_tasks=7):
        await app.wait.kiq("a")

        async def is_busy() -> bool:
            found = await app.stats()
            return (found.busy, found.slots) == (1, 7)

        await eventually(is_busy)
        (worker,) = (await app.stats()).workers
        assert [work.kind for work in worker.running] == ["wait"]
        assert set(worker.kinds) >= {"note", "wait", "fail", "threaded"}
        assert (worker.pod, worker.queues) == ("pod-1", [QUEUE])
        app.gate.set()


async def test_a_worker_s_first_word_says_how_many_it_runs(app: Application) -> None:

    async def workers() -> list[WorkerReport]:
        return (await app.stats()).workers

    LeasedReceiver(app.broker, max_async_tasks=7)
    app.broker.is_worker_process = True
    await app.broker.startup()
    (worker,) = await eventually(workers)
    assert worker.slots == 7
    await app.broker.shutdown()


async def test_a_helper_process_that_was_killed_is_replaced(app: Application) -> None:
    async with app.working():
        await app.wait.kiq("a")
        await app.has_run("a")
        process = app.broker.worker.helper
        assert process is not None
        process.kill()
        await eventually(lambda: app.broker.worker.helper not in {process, None})
        await eventually(lambda: _is_claimed(app, 1))
        app.gate.set()
        await app.has_run("a", "a ended")
        await eventually(app.is_settled)


async def test_nothing_is_claimed_while_no_lease_is_renewed(app: Application) -> None:
    async with app.working():
        await app.note.kiq("a")
        await app.has_run("a")
        worker = app.broker.worker
        assert worker.helper is not None
        os.kill(worker.helper.pid, signal.SIGSTOP)
        await eventually(lambda: not worker.is_renewing)
        await app.note.kiq("b")
        assert (await app.stats()).waiting == 1
        os.kill(worker.helper.pid, signal.SIGCONT)
        await app.has_run("a", "b")


async def test_no_more_tasks_run_than_a_child_may(app: Application) -> None:
    for number in range(5):
        await app.note.kiq(str(number))
    async with app.working(max_tasks_to_execute=3):
        await app.has_run("0", "1", "2")
    assert (await app.stats()).waiting == 2


def test_arguments_without_meaning_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="maxlen means nothing here"):
        LeasedStreamBroker("redis://localhost", maxlen=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LeasedStreamBroker("redis://localhost", "name", 5)


def test_lease_times_must_fit_together() -> None:
    with pytest.raises(ValueError, match="renew_every must be at most a third of the lease"):
        LeasedStreamBroker("redis://localhost", lease=MINUTE, renew_every=MINUTE / 2)


@pytest.mark.parametrize("lease", [3, -3, 10.0])
def test_a_lease_is_a_timedelta(lease: Any) -> None:  # noqa: ANN401 - as somebody might give it
    with pytest.raises(TypeError, match=f"^lease must be a timedelta, not {lease}$"):
        LeasedStreamBroker("redis://localhost", lease=lease)


def test_a_lease_lasts() -> None:
    with pytest.raises(ValueError, match="the lease must be longer than nothing"):
        LeasedStreamBroker("redis://localhost", lease=-LEASE)


@pytest.mark.parametrize("url", ["http://localhost", "amqp://localhost", "localhost:6379", ""])
def test_a_url_of_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^the URL must begin with redis://, .* or rediss"):
        LeasedStreamBroker(url)


def test_sentinels_without_a_service_are_refused() -> None:
    with pytest.raises(ValueError, match="ends with the name of the service"):
        LeasedStreamBroker("redis+sentinel://localhost")


@pytest.mark.parametrize(
    ("url", "keyword"),
    [
        ("redis://localhost", "leese"),
        ("rediss://localhost", "leese"),
        ("unix:///valkey.sock", "leese"),
        ("redis+sentinel://localhost/service", "leese"),
        ("redis+sentinel://localhost/service", "sentinel_leese"),
        ("redis://localhost", "ssl_ca_certs"),
    ],
)
def test_a_keyword_that_no_connection_takes_is_refused(url: str, keyword: str) -> None:
    name = keyword.removeprefix("sentinel_")
    options: dict[str, Any] = {keyword: "x"}
    with pytest.raises(TypeError, match=f"redis-py's connection refuses an argument: .*'{name}'"):
        LeasedStreamBroker(url, **options)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://localhost", {"socket_timeout": 3, "client_name": "x", "timeout": 1}),
        ("rediss://localhost:1/2", {"ssl_ca_certs": "/nonexistent", "ssl_cert_reqs": "none"}),
        ("unix://:password@/valkey.sock", {"db": 3}),
        ("rediss+sentinel://a,b:1/service/2", {"sentinel_password": "x", "client_name": "x"}),
    ],
)
def test_keywords_of_connections_are_taken(url: str, options: dict[str, Any]) -> None:
    assert LeasedStreamBroker(url, **options).queue_name == "taskiq"


def test_another_broker_s_messages_are_not_for_this_receiver() -> None:
    from taskiq import InMemoryBroker  # noqa: PLC0415 - only here

    with pytest.raises(TypeError, match="needs a LeasedStreamBroker"):
        LeasedReceiver(InMemoryBroker())
