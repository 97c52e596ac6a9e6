"""The benchmark `workers`: what a second worker costs per packet.

One worker with a load and two workers with twice the load, turn by turn, on the same cores: what
two processes lose against one shows in the CPU time per packet. The load generator needs a core as
well; where there are only two, it shares them with the workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import machine, measure, receivers, series
from bench.report import OURS, Benchmark, Context, Report, bars, figure_of, table
from bench.traffic import Traffic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TRACKS_PER_WORKER = 1600
WORKERS = (1, 2)
ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS, QUICK_SECONDS = 10.0, 3.0


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    report = Report("workers", [], {"rounds": rounds, "seconds": seconds, "sinks": "vad"})
    report.notes += machine.shortcomings()
    cases = {workers: _name(workers) for workers in WORKERS}
    runs = series.in_turn(
        context, report, rounds, cases, lambda workers: _loaded(context, workers, seconds)
    )
    for workers, found in runs.items():
        if found:
            costs = series.costs(found, runs[1], "of_one")
            kept = round(workers / costs["of_one"], 4) if costs["of_one"] else None
            tracks = workers * TRACKS_PER_WORKER
            report.rows.append({"workers": workers, "tracks": tracks, "kept": kept, **costs})
    return report


def _loaded(context: Context, workers: int, seconds: float) -> measure.Run:
    traffic = Traffic(tracks=workers * TRACKS_PER_WORKER)
    # segments of one message are steered together: each call would come to all workers
    source = measure.Source(traffic, core=None, method="sendmmsg")
    folder = context.scratch / "recordings"
    flags = ["--workers", str(workers)]
    try:
        with receivers.Daemon(["vad"], folder, core=None, flags=flags) as daemon:
            measure.warm_up(daemon, source)
            done = measure.measure(daemon, source, round(traffic.total_pps * seconds))
            done.missing = max(0, source.sent - done.drops - round(daemon.totals()["packets"]))
    finally:
        receivers.remove_recordings(folder)
    return done


def _name(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def tables(report: Report) -> list[Table]:
    made = table(
        f"Workers with {TRACKS_PER_WORKER:,} tracks each, VAD",
        "workers", "tracks", "CPU µs/packet", "of one worker's", "packets per CPU second", "lost",
    )  # fmt: skip
    for row in report.rows:
        made.add_row(
            str(row["workers"]),
            f"{row['tracks']:,}",
            f"{row['us_per_packet']:.2f}",
            figure_of(row["of_one"]),
            f"{figure_of(row['kept'])} times one worker's",
            f"{row['lost']:,}" if row["lost"] else "none",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(6, 0.5 * len(report.rows) + 0.8)
    axes = figure.subplots()
    names = [_name(row["workers"]) for row in report.rows]
    bars(axes, names, [row["us_per_packet"] for row in report.rows], [OURS] * len(names))
    axes.set_xlabel("CPU per packet, microseconds")


BENCHMARK = Benchmark("workers", "what a second worker costs per packet", run, tables, draw)
