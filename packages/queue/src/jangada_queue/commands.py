"""`jangada-queue`, for taskiq applications, and `jangada queue`, which has the same commands.

jangada-queue worker app:broker       taskiq's worker with our receiver; its options are taskiq's
jangada-queue stats --broker URL      what waits, runs and died
jangada-queue dead list QUEUE         dead letters: list, show, redrive, forget
"""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Self

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jangada_queue.client import QueueClient
from jangada_queue.connection import SCHEMES, open_client
from jangada_queue.errors import QueueUnavailable
from jangada_queue.leases.dead_letters import (
    DeadLetter,
    dead_letters,
    find_dead_letter,
    forget,
    redrive,
)
from jangada_queue.statistics import QueueStats, queue_stats
from jangada_queue.workers import known_queues

EXIT_ERROR: Final = 1
EXIT_UNAVAILABLE: Final = 69  # EX_UNAVAILABLE of sysexits.h: trying again later may help
BROKER_VARIABLE: Final = "JANGADA_QUEUE_BROKER"
PREFIX_VARIABLE: Final = "JANGADA_QUEUE_PREFIX"
PIPE_WIDTH: Final = 1000
ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
RECEIVER: Final = "jangada_queue.taskiq:LeasedReceiver"


def _is_id(text: str) -> bool:
    """Whether it may be a stream entry's whole id: two numbers of 64 bits."""
    return ID.fullmatch(text) is not None and all(int(part) < 1 << 64 for part in text.split("-"))


def _whole_ids(ids: list[str] | None) -> list[str] | None:
    """Refuse what Valkey would refuse as well, some of the others being done by then."""
    for each in ids or ():
        if not _is_id(each):
            raise typer.BadParameter(f"{each} is no dead letter's id; `dead list` shows them")
    return ids


Broker = Annotated[
    str | None,
    typer.Option(help="URL of the Valkey, redis:// or rediss://…", envvar=BROKER_VARIABLE),
]
Prefix = Annotated[str, typer.Option(help="Prefix of all keys.", envvar=PREFIX_VARIABLE)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Queue = Annotated[str, typer.Argument(help="The queue's name.", metavar="QUEUE")]
Kind = Annotated[str | None, typer.Option(help="Only of this task.")]
Reason = Annotated[str | None, typer.Option(help="Only with this reason: poison or unreadable.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(help="Ids of dead letters.", metavar="[ID]…", callback=_whole_ids),
]
All = Annotated[bool, typer.Option("--all", help="All that the other options leave.")]


def queue_commands(default_broker: Callable[[], str] | None = None) -> typer.Typer:
    """The commands over queues, for a program whose settings may name the server."""

    def keep_group(context: typer.Context) -> None:
        """Look at queues and their dead letters."""
        context.obj = default_broker

    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(keep_group)
    app.command()(stats)
    dead = typer.Typer(help="Messages that nobody can process.", no_args_is_help=True)
    dead.command("list")(list_letters)
    dead.command("show")(show_letter)
    dead.command("redrive")(redrive_letters)
    dead.command("forget")(forget_letters)
    app.add_typer(dead, name="dead")
    return app


def build() -> typer.Typer:
    """The program `jangada-queue`."""
    app = queue_commands()
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=settings, add_help_option=False)(worker)
    return app


def main() -> None:
    """Run `jangada-queue`."""
    # As `taskiq` does: the application is found in the folder where the command is called.
    sys.path.insert(0, "")
    build()()


def worker(context: typer.Context) -> None:
    """Run taskiq's worker with the receiver that is fast on leased queues; options are taskiq's."""
    from taskiq.cli.worker.cmd import WorkerCMD  # noqa: PLC0415 - only this command needs taskiq

    raise typer.Exit(WorkerCMD().exec(["--receiver", RECEIVER, *context.args]) or 0)


@dataclass(frozen=True, slots=True)
class Server:
    """The one that a command works on."""

    url: str
    prefix: str

    @classmethod
    def of(cls, context: typer.Context, broker: str | None, prefix: str) -> Self:
        """The one that was named, or that the program's settings name."""
        url = broker or (context.obj() if context.obj else None)
        if url is None:
            raise typer.BadParameter(f"give --broker URL, or set {BROKER_VARIABLE}")
        if not url.startswith(SCHEMES):
            raise typer.BadParameter("must be a redis://, rediss:// or unix:// URL")
        return cls(url, prefix)

    def run[T](self, act: Callable[[QueueClient], Awaitable[T]]) -> T:
        """Do it; a Valkey that is absent ends the program with one line and code 69."""

        async def opened() -> T:
            async with open_client(self.url, connections=2) as redis:
                return await act(QueueClient(redis, prefix=self.prefix))

        try:
            return asyncio.run(opened())
        except QueueUnavailable as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(EXIT_UNAVAILABLE) from error


def stats(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Queues; all by default.")] = None,
    *,
    broker: Broker = None,
    prefix: Prefix = "jangada",
    as_json: AsJson = False,
) -> None:
    """Show what waits, runs, is delayed and died in each queue, and who works on it."""

    async def read(client: QueueClient) -> list[QueueStats]:
        if names:
            await _say_unknown(client, names)
        return await queue_stats(client, names or await known_queues(client))

    found = Server.of(context, broker, prefix).run(read)
    if as_json:
        _print_json(found)
        return
    _print_stats(found)


def _print_stats(found: Sequence[QueueStats]) -> None:
    """A line for each queue; where that is too wide for the terminal, a column."""
    rows = [[Text(show(each)) for show in COLUMNS.values()] for each in found]
    wide = _table(list(COLUMNS), rows)
    console = Console()
    unbounded = console.options.update(width=PIPE_WIDTH)
    needed = console.measure(wide, options=unbounded).maximum
    if console.is_terminal and needed > console.width:
        first, *others = zip(map(Text, COLUMNS), *rows, strict=True)
        console.print(_table([str(cell) for cell in first], others))
    else:
        _print_table(wide)


def _table(header: Sequence[str], rows: Iterable[Iterable[Text]]) -> Table:
    table = Table(*header, box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


async def _say_unknown(client: QueueClient, queues: Sequence[str]) -> None:
    """Tell a queue that is empty from a slip in its name, or in the prefix, on stderr."""
    known = await known_queues(client)
    for each in await queue_stats(client, [name for name in queues if name not in known]):
        # Nobody may have served yet what somebody has enqueued.
        if each.waiting == each.delayed == 0:
            message = f"No queue {each.queue} is known under the prefix {client.prefix}."
            typer.echo(message, err=True)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} s"


def _upstream(stats: QueueStats) -> str:
    """What waits in PostgreSQL and isn't published yet; `?` where nobody has said so lately."""
    if stats.upstream is None:
        return "-"
    return str(stats.upstream.available) if stats.is_upstream_fresh else "?"


def _own(stats: QueueStats, count: int) -> str:
    """What Valkey keeps aside; `-` where such jobs are rows in PostgreSQL, and it keeps none."""
    return str(count) if stats.upstream is None else "-"


COLUMNS: Final[dict[str, Callable[[QueueStats], str]]] = {
    "queue": lambda stats: stats.queue,
    "waiting": lambda stats: str(stats.waiting),
    "upstream": _upstream,
    "busy": lambda stats: f"{stats.busy}/{stats.slots}",
    "claimed": lambda stats: str(stats.claimed),
    "delayed": lambda stats: _own(stats, stats.delayed),
    "parked": lambda stats: str(sum(stats.parked.values())),
    "dead": lambda stats: _own(stats, stats.dead),
    "oldest": lambda stats: _seconds(stats.oldest_wait_seconds),
    "in/s": lambda stats: f"{stats.arrival_per_second:.3g}",
    "out/s": lambda stats: f"{stats.completion_per_second:.3g}",
    "mean": lambda stats: _seconds(stats.service_mean_seconds),
    "p95": lambda stats: _seconds(stats.service_p95_seconds),
    "workers": lambda stats: str(len(stats.workers)),
}


def _print_json(found: Iterable[object]) -> None:
    for each in found:
        typer.echo(msgspec.json.encode(each).decode())


def _print_table(table: Table) -> None:
    """For a person as wide as the terminal, for a program as wide as it takes."""
    Console(width=None if Console().is_terminal else PIPE_WIDTH).print(table)


def _letters(count: int) -> str:
    return f"{count} dead letter" if count == 1 else f"{count} dead letters"


async def _chosen(
    client: QueueClient, queue: str, kind: str | None, reason: str | None
) -> list[DeadLetter]:
    return [
        letter
        async for letter in dead_letters(client, queue)
        if kind in {None, letter.kind} and reason in {None, letter.reason}
    ]


def list_letters(
    context: typer.Context,
    queue: Queue,
    *,
    kind: Kind = None,
    reason: Reason = None,
    broker: Broker = None,
    prefix: Prefix = "jangada",
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first."""

    async def read(client: QueueClient) -> list[DeadLetter]:
        await _say_unknown(client, [queue])
        return await _chosen(client, queue, kind, reason)

    found = Server.of(context, broker, prefix).run(read)
    if as_json:
        _print_json(found)
        return
    table = Table("id", "died at", "task", "reason", "detail", box=None, header_style="bold")
    for letter in found:
        died_at = letter.died_at.isoformat(timespec="seconds")
        cells = (letter.id, died_at, letter.kind, letter.reason, letter.detail)
        table.add_row(*map(Text, cells))
    _print_table(table)


def show_letter(
    context: typer.Context,
    queue: Queue,
    letter: Annotated[str, typer.Argument(help="The dead letter's id.", metavar="ID")],
    *,
    broker: Broker = None,
    prefix: Prefix = "jangada",
) -> None:
    """Show one dead letter whole, as JSON; its body is in base64."""
    server = Server.of(context, broker, prefix)
    found = server.run(lambda client: find_dead_letter(client, queue, letter))
    if found is None:
        typer.echo(f"There is no dead letter {letter} in {queue}.", err=True)
        raise typer.Exit(EXIT_ERROR)
    _print_json([found])


def redrive_letters(
    context: typer.Context,
    queue: Queue,
    ids: Ids = None,
    *,
    everything: All = False,
    kind: Kind = None,
    reason: Reason = None,
    broker: Broker = None,
    prefix: Prefix = "jangada",
) -> None:
    """Put dead letters back into their queue, as if they were new."""
    choice = _Choice(ids, kind, reason, everything)
    count = Server.of(context, broker, prefix).run(partial(choice.apply, redrive, queue))
    typer.echo(f"{_letters(count)} redriven.")


def forget_letters(
    context: typer.Context,
    queue: Queue,
    ids: Ids = None,
    *,
    everything: All = False,
    kind: Kind = None,
    reason: Reason = None,
    broker: Broker = None,
    prefix: Prefix = "jangada",
) -> None:
    """Delete dead letters for good."""
    choice = _Choice(ids, kind, reason, everything)
    count = Server.of(context, broker, prefix).run(partial(choice.apply, forget, queue))
    typer.echo(f"{_letters(count)} forgotten.")


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which dead letters: those that are named, or what kind and reason leave of all."""

    ids: list[str] | None
    kind: str | None
    reason: str | None
    everything: bool

    def __post_init__(self) -> None:
        if not (self.ids or self.everything or self.kind or self.reason):
            raise typer.BadParameter("name dead letters, or choose them by --kind, --reason, --all")

    async def apply(
        self,
        act: Callable[[QueueClient, str, Sequence[str]], Awaitable[int]],
        queue: str,
        client: QueueClient,
    ) -> int:
        found = self.ids or [
            letter.id for letter in await _chosen(client, queue, self.kind, self.reason)
        ]
        return await act(client, queue, found)
