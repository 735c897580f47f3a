"""`jangada-operator simulate`: the same loads under several policies."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from jangada_operator.durations import parse_duration
from jangada_operator.simulation.cluster import Terms
from jangada_operator.simulation.contest import CHANGED, OURS, POLICIES, Entry, Run, run
from jangada_operator.simulation.figures import with_totals
from jangada_operator.simulation.recorded import read_trace
from jangada_operator.simulation.tables import objects, table
from jangada_operator.simulation.trace import Trace
from jangada_operator.simulation.traces import BY_NAME, load
from jangada_operator.specs import Spec

PIPE_WIDTH: Final = 1000
DEFAULT: Final = Spec()
TERMS: Final = Terms()


def _duration(given: str | timedelta) -> timedelta:
    """What was written; defaults pass."""
    if isinstance(given, timedelta):
        return given
    try:
        return parse_duration(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Traces = Annotated[
    list[str] | None,
    typer.Option(
        "--trace",
        metavar="NAME|FILE.csv",
        help=f"A load: one of {', '.join(BY_NAME)}, or a recorded one, with the header "
        "`at,seconds` or `at,seconds,kind` and a job a line. Repeatable; all of them by default.",
    ),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help=f"One of {', '.join(POLICIES)}. Repeatable; all by default, with --what-if only ours.",
    ),
]
WhatIf = Annotated[
    list[str] | None,
    typer.Option(
        "--what-if",
        metavar="KEY=VALUE",
        help="Run our policy a second time with this changed, as in start-within=10s or max=20. "
        "Repeatable: all changes together are one second run.",
    ),
]
StartWithin = Annotated[
    timedelta,
    typer.Option(
        parser=_duration,
        metavar="DURATION",
        show_default="5s",
        help="A job is to start so soon after it could.",
    ),
]
ScaleDownAfter = Annotated[
    timedelta,
    typer.Option(
        parser=_duration,
        metavar="DURATION",
        show_default="60s",
        help="A size that arrivals haven't needed for so long is given up.",
    ),
]
PodStart = Annotated[
    timedelta,
    typer.Option(
        parser=_duration,
        metavar="DURATION",
        show_default="5s",
        help="From a replica's creation until it takes its first job.",
    ),
]
Grace = Annotated[
    timedelta,
    typer.Option(
        parser=_duration,
        metavar="DURATION",
        show_default="30s",
        help="What a replica that is told to end has for what it runs.",
    ),
]
Least = Annotated[int, typer.Option("--min", min=0, help="Replicas at least.")]
Most = Annotated[int, typer.Option("--max", min=0, help="Replicas at most.")]
MaxDraining = Annotated[
    int | None,
    typer.Option(min=0, help="Busy replicas that drain at once; a quarter of them by default."),
]
MaxStarting = Annotated[
    int | None, typer.Option(min=1, help="Replicas that start at once; all by default.")
]
Slots = Annotated[int, typer.Option(min=1, help="Jobs that a replica runs at once.")]
Seed = Annotated[int, typer.Option(help="Generated loads are drawn from it.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.svg|FOLDER",
        help="Draw load, waits and replicas over time; into a folder that is there, a picture of "
        "each trace. Needs the extra `plots`.",
    ),
]


@dataclass(frozen=True, slots=True)
class _Contest:
    """What is run: every trace under every entry."""

    traces: Sequence[Trace]
    entries: Sequence[Entry]
    terms: Terms

    def runs(self) -> Iterator[Run]:
        """One after the other, with a bar where somebody watches."""
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=len(self.traces) * len(self.entries))
            for trace in self.traces:
                for entry in self.entries:
                    bar.update(task, description=f"{trace.name}, {entry.name}")
                    yield run(trace, entry, self.terms)
                    bar.advance(task)


def simulate(  # noqa: PLR0913 - each is an option of the command
    *,
    trace: Traces = None,
    policy: Policies = None,
    what_if: WhatIf = None,
    start_within: StartWithin = DEFAULT.start_within,
    least: Least = DEFAULT.min,
    most: Most = DEFAULT.max,
    scale_down_after: ScaleDownAfter = DEFAULT.scale_down_after,
    max_draining: MaxDraining = None,
    max_starting: MaxStarting = None,
    slots: Slots = TERMS.slots,
    pod_start: PodStart = timedelta(seconds=TERMS.start),
    grace: Grace = timedelta(seconds=TERMS.grace),
    seed: Seed = 1,
    as_json: AsJson = False,
    plot: Plot = None,
) -> None:
    """Show what policies would do with a load, on simulated replicas.

    `in time` is the part of the jobs that started within --start-within, `once possible` within
    that and --pod-start. The same arguments give the same figures, to the bit.
    """
    if plot and find_spec("matplotlib") is None:
        raise typer.BadParameter('--plot needs `pip install "jangada-operator[plots]"`')
    spec = Spec(
        start_within=start_within,
        min=least,
        max=most,
        scale_down_after=scale_down_after,
        max_draining=max_draining,
        max_starting=max_starting,
    )
    terms = Terms(slots=slots, start=pod_start.total_seconds(), grace=grace.total_seconds())
    try:
        entries = _entries(spec, terms, policy or [], what_if or [])
        traces = _traces(trace or list(BY_NAME), seed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    runs = list(_Contest(traces, entries, terms).runs())
    _print(runs, as_json=as_json)
    if plot:
        _draw(runs, plot)


def _entries(
    spec: Spec, terms: Terms, policies: Sequence[str], changes: Sequence[str]
) -> list[Entry]:
    unknown = [name for name in policies if name not in POLICIES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no policy: choose from {', '.join(POLICIES)}")
    names = policies or ([OURS] if changes else list(POLICIES))
    entries = [Entry(name, name, spec.wanted(terms.slots)) for name in dict.fromkeys(names)]
    if changes:
        entries.append(Entry(CHANGED, OURS, spec.changed(changes).wanted(terms.slots)))
    return entries


def _traces(names: Sequence[str], seed: int) -> list[Trace]:
    found: dict[str, Trace] = {}
    for name in dict.fromkeys(names):
        trace = _trace(name, seed)
        if trace.name in found:
            raise ValueError(f"two traces are called {trace.name!r}: rename a file")
        found[trace.name] = trace
    return list(found.values())


def _trace(name: str, seed: int) -> Trace:
    if name in BY_NAME:
        return load(name, seed)
    path = Path(name)
    if not path.suffix and not path.exists():
        raise ValueError(f"{name!r} is neither a file nor one of {', '.join(BY_NAME)}")
    return read_trace(path)


def _print(runs: Sequence[Run], *, as_json: bool) -> None:
    figures = with_totals([each.figures for each in runs])
    if as_json:
        for each in objects(figures):
            typer.echo(json.dumps(each))
        return
    Console(width=None if Console().is_terminal else PIPE_WIDTH).print(table(figures))


def _draw(runs: Sequence[Run], path: Path) -> None:
    from jangada_operator.simulation.plot import save_plot  # noqa: PLC0415 - an extra

    try:
        save_plot(runs, path)
    except OSError as error:
        typer.echo(f"{path} can't be written: {error.strerror}", err=True)
        raise typer.Exit(1) from error
