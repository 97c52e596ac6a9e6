"""The benchmark `realtime`: what calls in real time take of a core with the default sinks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench import machine, measure, receivers, series
from bench.report import OURS, Benchmark, Context, Report, bars, table
from bench.traffic import Traffic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TRACKS = (200, 1000, 4000)
SECONDS, QUICK_SECONDS = 60.0, 5.0
IDLE_SHARE = 0.5
"""How long idleness is measured, as a part of the seconds."""


def run(context: Context) -> Report:
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    report = Report("realtime", [], {"seconds": seconds, "sinks": "default"})
    report.notes += machine.shortcomings()
    context.progress("idle", 0.0)
    report.rows.append(_idle(context, seconds * IDLE_SHARE))
    series.by_tracks(context, report, TRACKS, lambda tracks: _loaded(context, tracks, seconds))
    return report


def _idle(context: Context, seconds: float) -> dict[str, Any]:
    with receivers.Daemon(None, context.scratch / "recordings", core=machine.cores()[0]) as daemon:
        time.sleep(measure.SETTLE_S)
        before = daemon.cpu()
        time.sleep(seconds)
        used = daemon.cpu().since(before)
    return {"tracks": 0, "packets": 0, "core_share": round(used.run_s / seconds, 5), "lost": 0}


def _loaded(context: Context, tracks: int, seconds: float) -> tuple[dict[str, Any], measure.Run]:
    receiving_core, sending_core = machine.cores()
    traffic = Traffic(tracks=tracks)
    source = measure.Source(traffic, core=sending_core)
    folder = context.scratch / "recordings"
    try:
        with receivers.Daemon(None, folder, core=receiving_core) as daemon:
            measure.warm_up(daemon, source)
            done = measure.measure(daemon, source, round(traffic.total_pps * seconds))
            totals = daemon.totals()
    finally:
        receivers.remove_recordings(folder)
    lost = sum(totals[name] for name in ("kernel_drops", "refused", "lost", "missed_by_sinks"))
    done.missing = max(0, source.sent - round(totals["packets"]))
    row = {
        "tracks": tracks,
        "packets": done.load.sent,
        "core_share": round(done.core_share, 5),
        "lost": round(lost) + done.missing,
        **done.as_dict(),
    }
    return row, done


def tables(report: Report) -> list[Table]:
    made = table(
        f"{report.settings['seconds']:g} s in real time with the default sinks",
        "tracks", "packets", "of a core", "CPU µs/packet", "lost anywhere",
    )  # fmt: skip
    for row in report.rows:
        cost = f"{row['us_per_packet']:.2f}" if "us_per_packet" in row else "-"
        made.add_row(
            f"{row['tracks']:,}" if row["tracks"] else "idle",
            f"{row['packets']:,}",
            f"{row['core_share']:.2%}",
            cost,
            f"{row['lost']:,}" if row["lost"] else "none",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(6, 0.5 * len(report.rows) + 0.8)
    axes = figure.subplots()
    names = [f"{row['tracks']:,} tracks" if row["tracks"] else "idle" for row in report.rows]
    bars(axes, names, [100 * row["core_share"] for row in report.rows], [OURS] * len(names))
    axes.set_xlabel("per cent of one core, in real time, default sinks")


BENCHMARK = Benchmark(
    "realtime", "what calls in real time take of a core; loss anywhere", run, tables, draw
)
