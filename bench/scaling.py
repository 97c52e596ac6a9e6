"""The benchmark `workers`: what a second worker costs per packet.

One worker with a load and two workers with twice the load, turn by turn, on the same cores: what
two processes lose against one shows in the CPU time per packet. The load generator needs a core as
well; where there are only two, it shares them with the workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import machine, measure, receivers
from bench.report import OURS, Benchmark, Context, Report, bars, median, table
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
    runs: dict[int, list[measure.Run]] = {workers: [] for workers in WORKERS}
    steps = [(number, workers) for number in range(rounds) for workers in WORKERS]
    for step, (number, workers) in enumerate(steps):
        what = f"round {number + 1} of {rounds}, {_name(workers)}"
        context.progress(what, step / len(steps))
        try:
            runs[workers].append(_loaded(context, workers, seconds))
        except (receivers.ReceiverError, measure.LoadError) as error:
            report.notes.append(f"{what}: {error}")
    for workers, found in runs.items():
        ratios = [
            one.us_per_packet / base.us_per_packet
            for base, one in zip(runs[1], found, strict=False)
        ]
        report.rows.append(
            {
                "workers": workers,
                "tracks": workers * TRACKS_PER_WORKER,
                "us_per_packet": round(median(one.us_per_packet for one in found), 4),
                "of_one": round(median(ratios), 4),
                "kept": round(workers / median(ratios), 4),
                "lost": sum(one.drops + one.missing for one in found),
                "runs": [one.as_dict() for one in found],
            }
        )
    report.notes += measure.notes_on(
        {_name(workers): found for workers, found in runs.items() if found}
    )
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
            f"{row['of_one']:.2f}",
            f"{row['kept']:.2f} times one worker's",
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
