"""What a benchmark brings back, and how it is shown: tables, JSON, plots."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from bench import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, GREY, RULE = "#fdfdfb", "#22282e", "#68707a", "#d9dcdf"
OURS, OTHERS, FLOOR = "#2f6690", "#b9b2a4", "#68707a"
SERIES = ("#2f6690", "#2b8a78", "#c7792b", "#8a4f7d", "#68707a", "#b03a2e")
DPI = 160
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": GREY,
    "axes.facecolor": PAPER,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "figure.facecolor": PAPER,
}


class PlotError(Exception):
    """A plot cannot be drawn, in words for a person."""


@dataclass(slots=True)
class Context:
    """What a benchmark is given."""

    scratch: Path
    """A folder for recordings and programs, removed afterwards."""
    quick: bool = False
    """Whether a rough answer soon is worth more than a sound one."""
    seconds: float | None = None
    """How long to load a receiver each time, instead of the benchmark's own choice."""
    rounds: int | None = None
    """How often to repeat, likewise."""
    progress: Callable[[str, float], None] = field(default=lambda _what, _share: None)
    """Told what is going on, and which share of the whole is done."""


@dataclass(slots=True)
class Report:
    """The outcome of a benchmark: figures ready for JSON, and what has to be said with them."""

    benchmark: str
    rows: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was missing or went wrong, in sentences."""

    def as_dict(self) -> dict[str, Any]:
        """Return the document that is written as JSON."""
        return {
            "benchmark": self.benchmark,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine.facts(),
            "settings": self.settings,
            "rows": self.rows,
            "notes": self.notes,
        }

    def write(self, path: Path) -> None:
        """Write the document."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: how to run it and how to show what it brought."""

    name: str
    text: str
    """What it measures, in half a line."""
    run: Callable[[Context], Report]
    tables: Callable[[Report], Sequence[Table]]
    draw: Callable[[Report, Figure], None]


def table(title: str, *columns: str, left: int = 1) -> Table:
    """Return an empty table whose first `left` columns hold words and whose others figures."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        is_text = number < left
        made.add_column(
            column, justify="left" if is_text else "right", no_wrap=not is_text or left == 1
        )
    return made


def median(values: Iterable[float]) -> float:
    """Return the median, not a number where there are no values."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def figure_of(value: float | None, digits: int = 2) -> str:
    """Return a figure as tables show it; a dash for none."""
    if value is None or value != value:  # noqa: PLR0124 -- NaN
        return "-"
    return f"{value:,.{digits}f}"


def plot(benchmark: Benchmark, report: Report, path: Path) -> None:
    """Draw a report as PNG. Raises `PlotError`."""
    try:
        from matplotlib import rc_context  # noqa: PLC0415 -- an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise PlotError("plots need matplotlib: pip install 'strep[bench]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        benchmark.draw(report, figure)
        figure.savefig(path, dpi=DPI)


def bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    """Draw horizontal bars, each with its figure."""
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.62)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f"  {value:,.2f}", va="center", fontsize=8)
    axes.set_xlim(right=max(values) * 1.15)
    plain(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def by_tracks(axes: Axes, title: str, tracks: Iterable[int], *, of: str = "tracks") -> None:
    """Finish a plot of lines over numbers of tracks."""
    axes.set_title(title, loc="left", fontsize=9.5)
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = sorted(set(tracks))
    axes.set_xticks(ticks, [f"{count:,}" for count in ticks])
    axes.set_xlabel(of)
    axes.set_ylim(bottom=0)
    plain(axes, grid="y")


def plain(axes: Axes, *, grid: Literal["x", "y"]) -> None:
    """Take off what carries nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
