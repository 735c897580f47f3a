"""Runs as a picture: load, waits and replicas over time.

A single trace has its panels below each other, several have a row each; into a folder each trace is
drawn by itself. The same runs give the same SVG, byte for byte. Needs the extra `plots`.
"""

from collections.abc import Sequence
from io import BytesIO
from itertools import batched, chain, groupby
from pathlib import Path
from typing import Final, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.typing import LineStyleType, RcKeyType

from jangada_operator.simulation.contest import CHANGED, ORACLE, OURS, Run
from jangada_operator.simulation.trace import Trace

MOMENTS: Final = 600
"""Points of a curve."""
FINER: Final = 5
"""Of so many moments each, the highest is drawn: no peak is lost."""
BINS: Final = 200
"""Of the jobs that come in so many parts of the time each, the longest wait is drawn."""

TITLES: Final = ("arrivals a second", "longest wait, in seconds", "replicas that serve")
OBJECTIVE: Final = "objective"

SETTINGS: Final[dict[RcKeyType, object]] = {
    "svg.hashsalt": "jangada",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
}


class Style(NamedTuple):
    """How a policy's curve is drawn."""

    color: str
    dashes: LineStyleType
    width: float


TARGET: Final = Style("#777777", (0, (1, 2)), 1.2)

# The colours that Okabe and Ito chose so that nobody confuses them; dashes tell them apart in grey.
STYLES: Final = {
    OURS: Style("#0072B2", "solid", 2.0),
    CHANGED: Style("#009E73", (0, (6, 2)), 2.0),
    "keda": Style("#D55E00", (0, (4, 2)), 1.1),
    "keda-tuned": Style("#E69F00", (0, (6, 2, 1.5, 2)), 1.1),
    "hpa": Style("#CC79A7", (0, (1.5, 1.5)), 1.4),
    ORACLE: Style("#333333", "solid", 0.9),
}
UNITS: Final = (("h", 3600.0, 3 * 3600.0), ("min", 60.0, 180.0), ("s", 1.0, 0.0))


def save_plot(runs: Sequence[Run], path: Path) -> None:
    """Runs of one trace must stand beside each other. A folder gets a picture of each trace."""
    if not path.is_dir():
        path.write_bytes(svg(runs))
        return
    for row in _rows(runs):
        (path / f"{row[0].trace.name}.svg").write_bytes(svg(row))


def svg(runs: Sequence[Run]) -> bytes:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        drawn = BytesIO()
        _figure(_rows(runs)).savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        return drawn.getvalue()


def _rows(runs: Sequence[Run]) -> list[list[Run]]:
    return [list(group) for _, group in groupby(runs, lambda run: id(run.trace))]


def _figure(rows: Sequence[Sequence[Run]]) -> Figure:
    is_single = len(rows) == 1
    figure = Figure(
        figsize=(10.0, 6.4) if is_single else (14.0, 2.3 * len(rows) + 0.9),
        layout="constrained",
        facecolor="white",
    )
    FigureCanvasSVG(figure)
    for runs, panels in zip(rows, _panels(figure, len(rows)), strict=True):
        _draw_row(runs, panels)
        for axes in panels[-1:] if is_single else panels:
            axes.set_xlabel(_unit(runs)[0], loc="right", labelpad=1)
        panels[0].set_ylabel(runs[0].trace.name, fontweight="bold", fontsize=11)
    _add_legend(figure, [run.entry.name for run in chain.from_iterable(rows)])
    return figure


def _panels(figure: Figure, rows: int) -> Sequence[Sequence[Axes]]:
    """Three for each row; those of a single one are below each other, on one axis of time."""
    if rows == 1:
        found = [list(figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.8, 1.8)))]
    else:
        found = [list(row) for row in figure.subplots(rows, 3)]
    for axes, title in zip(found[0], TITLES, strict=True):
        axes.set_title(title, loc="left", fontsize=11)
    return found


def _add_legend(figure: Figure, names: Sequence[str]) -> None:
    shown = {**{name: STYLES[name] for name in names}, OBJECTIVE: TARGET}
    figure.legend(
        [_curve(style) for style in shown.values()],
        list(shown),
        loc="outside upper left",
        ncols=len(shown),
        frameon=False,
    )


def _draw_row(runs: Sequence[Run], panels: Sequence[Axes]) -> None:
    load, waiting, replicas = panels
    _, scale = _unit(runs)
    _draw_load(load, runs[0].trace, scale)
    _draw_waits(waiting, runs, scale)
    _draw_replicas(replicas, runs, scale)
    for axes in panels:
        axes.set_xlim(0, _end(runs) / scale)


def _curve(style: Style) -> Line2D:
    return Line2D([], [], color=style.color, linestyle=style.dashes, linewidth=style.width)


def _end(runs: Sequence[Run]) -> float:
    """The trace, and what was left of it afterwards, but no more than a tenth."""
    seconds = runs[0].trace.seconds
    return max(1.0, min(1.1 * seconds, max(run.outcome.ended_at for run in runs)))


def _unit(runs: Sequence[Run]) -> tuple[str, float]:
    return next((unit, scale) for unit, scale, least in UNITS if _end(runs) >= least)


def _draw_load(axes: Axes, trace: Trace, scale: float) -> None:
    width = max(1.0, trace.seconds) / BINS
    counts = [0] * (BINS + 1)
    for at in trace.arrivals:
        counts[min(BINS, int(at / width))] += 1
    moments = [number * width / scale for number in range(BINS + 1)]
    rates = [count / width for count in counts]
    axes.fill_between(moments, rates, step="post", color="#9aa5b1", linewidth=0)
    axes.set_ylim(bottom=0)


def _draw_waits(axes: Axes, runs: Sequence[Run], scale: float) -> None:
    width = max(1.0, runs[0].trace.seconds) / BINS
    moments = [number * width / scale for number in range(BINS + 1)]
    for within in dict.fromkeys(run.entry.wanted.start_within.total_seconds() for run in runs):
        axes.axhline(within, color=TARGET.color, linestyle=TARGET.dashes, linewidth=TARGET.width)
    for run in runs:
        _step(axes, run.entry.name, moments, _longest_waits(run, width))
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylim(bottom=0)


def _longest_waits(run: Run, width: float) -> list[float]:
    """Of the jobs that came in each part; one that never started waited until the end."""
    longest = [0.0] * (BINS + 1)
    for at, wait in zip(run.trace.arrivals, run.outcome.waits, strict=True):
        part = min(BINS, int(at / width))
        longest[part] = max(longest[part], min(wait, run.outcome.ended_at - at))
    return longest


def _draw_replicas(axes: Axes, runs: Sequence[Run], scale: float) -> None:
    moments = _moments(_end(runs))
    for run in runs:
        sizes = run.outcome.size_at(moments)
        _draw(axes, run.entry.name, [at / scale for at in moments], sizes)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylim(bottom=0)


def _moments(seconds: float) -> list[float]:
    count = MOMENTS * FINER
    return [seconds * number / count for number in range(count)]


def _draw(axes: Axes, name: str, moments: Sequence[float], values: Sequence[int]) -> None:
    times = [group[0] for group in batched(moments, FINER, strict=True)]
    _step(axes, name, times, [max(group) for group in batched(values, FINER, strict=True)])


def _step(axes: Axes, name: str, moments: Sequence[float], values: Sequence[float]) -> None:
    style = STYLES[name]
    axes.step(
        moments,
        values,
        where="post",
        color=style.color,
        linestyle=style.dashes,
        linewidth=style.width,
        zorder=3 if name in {OURS, CHANGED} else 2,
    )
