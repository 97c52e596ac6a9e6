"""The benchmark `merging`: what a packet costs by how many come together.

A carrier's media server that sends many calls from one port lets the network card's driver merge
them; how many come together depends on the rate and on how often the card interrupts. Here the
sender decides, and the packets are read merged and one by one, turn by turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import machine, measure, receivers, series
from bench.report import OTHERS, OURS, Benchmark, Context, Report, figure_of, plain, table
from bench.traffic import Traffic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TRACKS = 4000
TOGETHER, QUICK_TOGETHER = (1, 2, 4, 8, 16, 64), (1, 8)
ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS, QUICK_SECONDS = 3.0, 1.0
WAYS = {"one by one": (), "merged": ("--merge-datagrams",)}
"""The daemon's flags by how it reads."""


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    report = Report("merging", [], {"rounds": rounds, "seconds": seconds, "tracks": TRACKS})
    report.notes += machine.shortcomings()
    cases = {
        (together, way): f"{together} together, {way}"
        for together in (QUICK_TOGETHER if context.quick else TOGETHER)
        for way in WAYS
    }
    runs = series.in_turn(
        context, report, rounds, cases, lambda case: _loaded(context, *case, seconds)
    )
    report.rows = [
        {
            "together": together,
            "read": way,
            **series.costs(found, runs[together, "one by one"], "of_one_by_one"),
        }
        for (together, way), found in runs.items()
        if found
    ]
    return report


def _loaded(context: Context, together: int, way: str, seconds: float) -> measure.Run:
    receiving_core, sending_core = machine.cores()
    source = measure.Source(Traffic(tracks=TRACKS), core=sending_core, most_segments=together)
    folder = receivers.new_folder(context.scratch)
    with receivers.Daemon(["vad"], folder, core=receiving_core, flags=WAYS[way]) as daemon:
        measure.warm_up(daemon, source)
        done = measure.measure(daemon, source, round(source.traffic.total_pps * seconds))
        done.missing = max(0, source.sent - done.drops - round(daemon.totals()["packets"]))
    return done


def tables(report: Report) -> list[Table]:
    made = table(
        f"{TRACKS:,} tracks in real time, VAD: CPU per packet by how many come together",
        "together", "read", "CPU µs/packet", "÷ one by one", "lost",
    )  # fmt: skip
    for row in report.rows:
        made.add_row(
            str(row["together"]),
            row["read"],
            figure_of(row["us_per_packet"]),
            figure_of(row["of_one_by_one"]),
            f"{row['lost']:,}" if row["lost"] else "none",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(5.5, 3.2)
    axes = figure.subplots()
    for way, colour in zip(WAYS, (OTHERS, OURS), strict=True):
        rows = [row for row in report.rows if row["read"] == way]
        together = [row["together"] for row in rows]
        costs = [row["us_per_packet"] for row in rows]
        axes.plot(together, costs, color=colour, marker="o", markersize=3.5, label=f"read {way}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(together, [str(count) for count in together])
    axes.set_xlabel("packets that come together")
    axes.set_title("CPU per packet, microseconds", loc="left", fontsize=9.5)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    plain(axes, grid="y")


BENCHMARK = Benchmark("merging", "what a packet costs by how many come together", run, tables, draw)
