"""The benchmark `memory`: resident memory by tracks, after they closed, and over an hour.

The daemon is measured from outside: at rest, with so many tracks open, and after they closed; and
all of this once more with other calls, whose memory should be that of the first ones. The hour of
calls that come and go is simulated in fast motion (`bench.churn`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench import accounting, machine, measure, receivers
from bench.report import OURS, SERIES, Benchmark, Context, Report, by_tracks, plain, table
from bench.traffic import REAL_TIME_PPS, Traffic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from bench.receivers import Daemon

TRACKS, QUICK_TRACKS = (10, 1000, 10_000), (10, 1000)
SINKS = {"vad": ("vad",), "vad and wav": ("vad", "wav")}
PACKETS = 30
"""Of each track."""
RATE_PPS = 100_000.0
MINUTES, QUICK_MINUTES = 60, 3
IDLE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 60.0
SHRINK_S = 4.0
KIB = 1024
MIB = 2**20


def run(context: Context) -> Report:
    minutes = QUICK_MINUTES if context.quick else MINUTES
    report = Report("memory", [], {"packets_per_track": PACKETS, "minutes": minutes})
    report.notes += machine.shortcomings()
    cases = [
        (name, tracks) for name in SINKS for tracks in (QUICK_TRACKS if context.quick else TRACKS)
    ]
    for number, (name, tracks) in enumerate(cases):
        context.progress(f"{tracks:,} tracks, {name}", number / (len(cases) + 1))
        try:
            report.rows.append(_opened_and_closed(context, name, tracks))
        except (receivers.ReceiverError, measure.LoadError) as error:
            report.notes.append(f"{tracks:,} tracks, {name}: {error}")
    context.progress(f"{minutes} minutes in fast motion", len(cases) / (len(cases) + 1))
    report.settings["churn"] = churn(minutes)
    return report


def churn(minutes: int) -> list[dict[str, int]]:
    """Return what `bench.churn` says minute by minute."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.churn", "--minutes", str(minutes)],
        cwd=receivers.ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _opened_and_closed(context: Context, name: str, tracks: int) -> dict[str, Any]:
    folder = context.scratch / "recordings"
    core, sending_core = machine.cores()
    rate_pps = min(RATE_PPS / tracks, REAL_TIME_PPS)
    try:
        with receivers.Daemon(
            SINKS[name], folder, core=core, flags=["--idle-timeout-s", str(IDLE_TIMEOUT_S)]
        ) as daemon:
            pid = daemon.process.pid
            rest = accounting.resident_bytes(pid)
            found = []
            for seed in (1, 2):
                traffic = Traffic(tracks=tracks, rate_pps=rate_pps, loss=0.01, seed=seed)
                load = measure.Source(traffic, core=sending_core).send(daemon, PACKETS * tracks)
                _until_sinks_have_it(daemon)
                opened = _tracks_open(daemon)
                held = accounting.resident_bytes(pid)
                _until_closed(daemon)
                found.append((opened, held, accounting.resident_bytes(pid), load.sent))
    finally:
        receivers.remove_recordings(folder)
    (opened, held, closed, _), (_, held_again, closed_again, _) = found
    return {
        "sinks": name,
        "tracks": tracks,
        "opened": opened,
        "rest_bytes": rest,
        "open_bytes": held,
        "closed_bytes": closed,
        "open_again_bytes": held_again,
        "closed_again_bytes": closed_again,
        "per_track_bytes": round((held - rest) / tracks),
    }


def _tracks_open(daemon: Daemon) -> int:
    return round(daemon.metrics()["strep_tracks_open"])


def _until_sinks_have_it(daemon: Daemon) -> None:
    """Wait until no audio is on its way to a sink: thousands of files take a while to make."""
    deadline = time.monotonic() + IDLE_TIMEOUT_S / 2
    while any(
        waiting
        for name, waiting in daemon.metrics().items()
        if name.startswith("strep_sink_queue_bytes")
    ):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)


def _until_closed(daemon: Daemon) -> None:
    deadline = time.monotonic() + IDLE_TIMEOUT_S + CLOSE_TIMEOUT_S
    while _tracks_open(daemon):
        if time.monotonic() > deadline:
            raise receivers.ReceiverError(f"tracks were open {CLOSE_TIMEOUT_S:g} s too long")
        time.sleep(0.25)
    while daemon.metrics().get('strep_recordings_finishing{sink="wav"}', 0):
        if time.monotonic() > deadline:
            raise receivers.ReceiverError(f"recordings were not finished in {CLOSE_TIMEOUT_S:g} s")
        time.sleep(0.25)
    # given back off the receive loop: until memory does not shrink any more
    before = 0
    while (now := accounting.resident_bytes(daemon.process.pid)) != before:
        if time.monotonic() > deadline:
            break
        before = now
        time.sleep(SHRINK_S)


def tables(report: Report) -> list[Table]:
    made = table(
        "Resident memory of the daemon, MiB",
        "sinks", "tracks", "at rest", "open", "KiB a track", "closed", "open again", "closed again",
    )  # fmt: skip
    for row in report.rows:
        made.add_row(
            row["sinks"],
            f"{row['tracks']:,}",
            f"{row['rest_bytes'] / MIB:.1f}",
            f"{row['open_bytes'] / MIB:.1f}",
            f"{row['per_track_bytes'] / KIB:.1f}",
            *(
                f"{row[k] / MIB:.1f}"
                for k in ("closed_bytes", "open_again_bytes", "closed_again_bytes")
            ),
        )
    minutes = report.settings["churn"]
    hour = table(
        "Tracks that come and go, in fast motion", "minute", "open", "opened so far", "MiB", left=0
    )
    for one in minutes[:: max(1, len(minutes) // 6)] + minutes[-1:]:
        hour.add_row(
            str(one["minute"]),
            f"{one['tracks_open']:,}",
            f"{one['tracks_opened']:,}",
            f"{one['resident_bytes'] / MIB:.1f}",
        )
    return [made, hour]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(9, 3.4)
    left, right = figure.subplots(1, 2)
    for name, colour in zip(SINKS, SERIES, strict=False):
        rows = [row for row in report.rows if row["sinks"] == name]
        tracks = [row["tracks"] for row in rows]
        style = {"color": colour, "marker": "o", "markersize": 3.5}
        left.plot(tracks, [r["open_bytes"] / MIB for r in rows], label=f"{name}, open", **style)
        left.plot(
            tracks, [r["closed_again_bytes"] / MIB for r in rows], label=f"{name}, closed",
            linestyle=":", **style,
        )  # fmt: skip
    by_tracks(left, "resident memory, MiB", [row["tracks"] for row in report.rows])
    left.legend(frameon=False)
    minutes = report.settings["churn"]
    right.plot(
        [one["minute"] for one in minutes], [one["resident_bytes"] / MIB for one in minutes],
        color=OURS,
    )  # fmt: skip
    right.set_xlabel("simulated minutes of tracks that come and go")
    right.set_title("resident memory, MiB", loc="left", fontsize=9.5)
    right.set_ylim(bottom=0)
    plain(right, grid="y")


BENCHMARK = Benchmark("memory", "resident memory by tracks, and over an hour", run, tables, draw)
