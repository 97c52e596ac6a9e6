"""The benchmark `latency`: from a packet's arrival in the kernel to a sink, in real time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench import machine, measure, receivers, series
from bench.report import SERIES, Benchmark, Context, Report, by_tracks, table
from bench.traffic import Traffic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TRACKS = (100, 1000, 4000)
SECONDS, QUICK_SECONDS = 20.0, 3.0
PERCENTILES = ("p50_ms", "p99_ms", "max_ms")

AFTER_PAUSE_S = 0.5
"""What is left out behind the pause between the opening of the tracks and the load."""


def run(context: Context) -> Report:
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    report = Report("latency", [], {"seconds": seconds, "sinks": "vad and the probe"})
    report.notes += machine.shortcomings()
    series.by_tracks(context, report, TRACKS, lambda tracks: _measured(context, tracks, seconds))
    return report


def _measured(context: Context, tracks: int, seconds: float) -> tuple[dict[str, Any], measure.Run]:
    receiving_core, sending_core = machine.cores()
    traffic = Traffic(tracks=tracks)
    source = measure.Source(traffic, core=sending_core)
    found = context.scratch / f"latency-{tracks}.json"
    # The probe stands behind the VAD. It does not look at the packets that open the tracks, nor at
    # those behind the pause that follows: they wait to be told from a network that had stalled.
    skipped = measure.warm_up_packets(traffic) + round(traffic.total_pps * AFTER_PAUSE_S)
    probe = f"bench.probes:LatencySink:path={found},skip_frames={skipped}"
    with receivers.Daemon(["vad", probe], context.scratch, core=receiving_core) as daemon:
        measure.warm_up(daemon, source)
        done = measure.measure(daemon, source, round(traffic.total_pps * (seconds + AFTER_PAUSE_S)))
    return {"tracks": tracks, **json.loads(found.read_text()), **done.as_dict()}, done


def tables(report: Report) -> list[Table]:
    made = table(
        "From the kernel to a sink, milliseconds",
        "tracks",
        "p50",
        "p99",
        "most",
        "frames",
        "dropped",
    )
    for row in report.rows:
        made.add_row(
            f"{row['tracks']:,}",
            *(f"{row[name]:.2f}" for name in PERCENTILES),
            f"{row['frames']:,}",
            f"{row['drops']:,}" if row["drops"] else "none",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(6, 3.4)
    axes = figure.subplots()
    tracks = [row["tracks"] for row in report.rows]
    for name, colour in zip(PERCENTILES, SERIES, strict=False):
        values = [row[name] for row in report.rows]
        axes.plot(tracks, values, color=colour, marker="o", markersize=3.5, label=name[:-3])
    by_tracks(axes, "from the kernel to a sink, milliseconds", tracks, of="tracks in real time")
    axes.legend(frameon=False)


BENCHMARK = Benchmark("latency", "from the kernel to a sink", run, tables, draw)
