"""The benchmark `analysis`: what the analysis sinks cost, at a rate near the highest.

The same load without sinks and with one more of them each time, turn by turn. At such a rate a
packet costs what the highest rate is made of: nobody sleeps, and every batch is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import machine, measure, receivers, series
from bench.report import SERIES, Benchmark, Context, Report, figure_of, plain, table
from bench.traffic import Traffic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TRACKS, QUICK_TRACKS = (1000, 8000), (8000,)
RATE_PPS = 400_000
"""8,000 tracks in real time; fewer tracks are in fast motion."""
ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS, QUICK_SECONDS = 4.0, 1.0
SETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "vad": ("vad",),
    "vad, dtmf": ("vad", "dtmf"),
    "all": ("vad", "dtmf", "conversation"),
}
"""The sinks by the name of the set; `all` is every one that analyses and needs no extra."""


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    constants = {"rounds": rounds, "seconds": seconds, "rate_pps": RATE_PPS, "sinks": SETS}
    report = Report("analysis", [], constants)
    report.notes += machine.shortcomings()
    cases = {
        (tracks, name): f"{tracks:,} tracks, {name}"
        for tracks in (QUICK_TRACKS if context.quick else TRACKS)
        for name in SETS
    }
    runs = series.in_turn(
        context, report, rounds, cases, lambda case: _loaded(context, *case, seconds)
    )
    report.rows = [
        {"tracks": tracks, "sinks": name, **series.costs(found, runs[tracks, "none"], "of_none")}
        for (tracks, name), found in runs.items()
        if found
    ]
    return report


def _loaded(context: Context, tracks: int, name: str, seconds: float) -> measure.Run:
    receiving_core, sending_core = machine.cores()
    traffic = Traffic(tracks=tracks, rate_pps=RATE_PPS / tracks)
    source = measure.Source(traffic, core=sending_core)
    folder = receivers.new_folder(context.scratch)
    with receivers.Daemon(SETS[name], folder, core=receiving_core) as daemon:
        measure.warm_up(daemon, source)
        done = measure.measure(daemon, source, round(RATE_PPS * seconds))
        done.missing = max(0, source.sent - done.drops - round(daemon.totals()["packets"]))
    return done


def tables(report: Report) -> list[Table]:
    made = table(
        f"CPU per packet at {RATE_PPS:,} packets/s by the sinks that analyse",
        "tracks", "sinks", "CPU µs/packet", "÷ none", "lost",
    )  # fmt: skip
    for row in report.rows:
        made.add_row(
            f"{row['tracks']:,}",
            row["sinks"],
            figure_of(row["us_per_packet"]),
            figure_of(row["of_none"]),
            f"{row['lost']:,}" if row["lost"] else "none",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(5.5, 3.2)
    axes = figure.subplots()
    counts = sorted({row["tracks"] for row in report.rows})
    width = 0.8 / len(counts)
    for number, tracks in enumerate(counts):
        rows = [row for row in report.rows if row["tracks"] == tracks]
        costs = [row["us_per_packet"] for row in rows]
        places = [list(SETS).index(row["sinks"]) + (number + 0.5) * width - 0.4 for row in rows]
        axes.bar(places, costs, width, color=SERIES[number], label=f"{tracks:,} tracks")
    axes.set_xticks(range(len(SETS)), list(SETS))
    axes.set_title("CPU per packet, microseconds", loc="left", fontsize=9.5)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    plain(axes, grid="y")


BENCHMARK = Benchmark("analysis", "what the analysis sinks cost a packet", run, tables, draw)
