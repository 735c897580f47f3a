"""Runs as a picture: load, waiting jobs and replicas over time, a row for each trace.

The same runs give the same SVG, byte for byte. Needs the extra `plots`.
"""

from collections.abc import Sequence
from io import BytesIO
from itertools import batched, groupby
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
    """Runs of one trace must stand beside each other."""
    path.write_bytes(svg(runs))


def svg(runs: Sequence[Run]) -> bytes:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        drawn = BytesIO()
        figure = _figure([list(group) for _, group in groupby(runs, lambda run: id(run.trace))])
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        return drawn.getvalue()


def _figure(rows: Sequence[Sequence[Run]]) -> Figure:
    height = 2.3 * len(rows) + 0.9
    figure = Figure(figsize=(14, height), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for runs, (load, waiting, replicas) in zip(rows, grid, strict=True):
        unit, scale = _unit(runs)
        _draw_load(load, runs[0].trace, scale)
        _draw_waiting(waiting, runs, scale)
        _draw_replicas(replicas, runs, scale)
        load.set_ylabel(runs[0].trace.name, fontweight="bold", fontsize=11)
        for axes in (load, waiting, replicas):
            axes.set_xlim(0, _end(runs) / scale)
            axes.set_xlabel(unit, loc="right", labelpad=1)
    for axes, title in zip(
        grid[0], ("arrivals a second", "waiting jobs", "replicas that serve"), strict=True
    ):
        axes.set_title(title, loc="left", fontsize=11)
    names = list(dict.fromkeys(run.entry.name for runs in rows for run in runs))
    handles = [_curve(name) for name in names]
    figure.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
    return figure


def _curve(name: str) -> Line2D:
    style = STYLES[name]
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


def _draw_waiting(axes: Axes, runs: Sequence[Run], scale: float) -> None:
    moments = _moments(_end(runs))
    for run in runs:
        waiting = run.outcome.waiting_at(moments, run.trace.arrivals)
        _draw(axes, run.entry.name, [at / scale for at in moments], waiting)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylim(bottom=0)


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
    style = STYLES[name]
    times = [group[0] for group in batched(moments, FINER, strict=True)]
    peaks = [max(group) for group in batched(values, FINER, strict=True)]
    axes.step(
        times,
        peaks,
        where="post",
        color=style.color,
        linestyle=style.dashes,
        linewidth=style.width,
    )
