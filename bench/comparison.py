"""The benchmark `peers`: the same packets to this receiver and to others, turn by turn.

In every round each contestant is started anew on one core, its tracks are opened by a few packets
of each, and then the loaded interval is measured from outside; the sender has the other core. All
contestants of a match get the same packets. The ratios are taken round by round, so that a
machine that grows slower in between moves both of their sides.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bench import floor, machine, measure, receivers, series
from bench.report import (
    FLOOR,
    OTHERS,
    OURS,
    Benchmark,
    Context,
    Report,
    bars,
    figure_of,
    median,
    table,
)
from bench.traffic import REAL_TIME_PPS, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.figure import Figure
    from rich.table import Table

    from bench.receivers import Receiver
    from bench.series import Runs
    from bench.traffic import Wrapping

ROUNDS, QUICK_ROUNDS = 5, 2
SECONDS, QUICK_SECONDS = 3.0, 1.0
FLOOR_NAME, OURS_NAME = "floor", "strep, VAD"
RECORDING_NAME = "strep, VAD and WAV"
MERGED = ", merged"
"""Behind the name of a receiver that reads what came together as one."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A receiver, with what it does and what it leaves out."""

    name: str
    does: str
    lacks: str
    start: Callable[[Path, int, int], Receiver]
    """Called with a scratch folder, the core and the number of streams."""
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot run here and how it could, None where it can."""
    wrapping: Wrapping = "strep"
    holds_back: int = 0
    """Packets of each track that have not come out when all have been sent."""


@dataclass(frozen=True, slots=True)
class Match:
    """Contestants that get the same packets."""

    tracks: int
    contestants: tuple[Contestant, ...]
    rate_pps: float = REAL_TIME_PPS

    @property
    def title(self) -> str:
        """Return what is sent."""
        return f"{self.tracks:,} tracks in real time, {self.tracks * self.rate_pps:,.0f} packets/s"


def _no_compiler() -> str | None:
    return None if machine.compiler() else "needs a C compiler: apt-get install gcc"


def _no_package(name: str) -> str | None:
    return None if find_spec(name) else f"needs {name}: pip install 'strep[bench]'"


def _no_gstreamer() -> str | None:
    if shutil.which("gst-launch-1.0"):
        return None
    return (
        "needs GStreamer: apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base "
        "gstreamer1.0-plugins-good"
    )


def _no_ffmpeg() -> str | None:
    return None if shutil.which("ffmpeg") else "needs ffmpeg: apt-get install ffmpeg"


@cache
def _floor_program(folder: Path) -> Path:
    return floor.build(folder)


def _start_floor(folder: Path, core: int, _: int, *, with_metadata: bool = False) -> Receiver:
    return receivers.floor(_floor_program(folder), core=core, with_metadata=with_metadata)


def _start_strep(
    folder: Path, core: int, _: int, *, sinks: tuple[str, ...], flags: tuple[str, ...] = ()
) -> Receiver:
    return receivers.Daemon(sinks, receivers.new_folder(folder), core=core, flags=flags)


def _start_python(_: Path, core: int, streams: int, *, module: str) -> Receiver:
    return receivers.python_peer(module, streams, core=core)


def _start_program(_: Path, core: int, streams: int, *, module: str) -> Receiver:
    return receivers.python_peer(module, streams, core=core, port_per_stream=True)


FLOOR_PEER = Contestant(
    FLOOR_NAME,
    "C: recvmmsg in batches on a 10 ms tick, counts",
    "looks at no byte: no headers, tracks, order, audio; no arrival times or source addresses",
    _start_floor,
    _no_compiler,
)
FLOOR_WITH_METADATA = Contestant(
    "floor with metadata",
    "the same, with the kernel's arrival times and source addresses",
    "as above, but for those",
    partial(_start_floor, with_metadata=True),
    _no_compiler,
)
STREP = Contestant(
    OURS_NAME,
    "headers checked, tracks, order, loss, RFC 3550 statistics, kernel arrival times, decoding, "
    "VAD with an adaptive noise floor, metrics over HTTP",
    "no recording",
    partial(_start_strep, sinks=("vad",)),
)
STREP_RECORDING = Contestant(
    RECORDING_NAME,
    "the same, and stereo recordings of both directions on disk, kept in time",
    "",
    partial(_start_strep, sinks=("vad", "wav")),
)
STREP_MERGED = Contestant(
    f"{OURS_NAME}{MERGED}",
    "what strep with VAD does, with `merge_datagrams`: the sender's runs of up to 64 come as one, "
    "as from a network card that merges (UDP_GRO)",
    "no recording; no gain where each call has a source port of its own",
    partial(_start_strep, sinks=("vad",), flags=("--merge-datagrams",)),
)
STREP_RECORDING_MERGED = Contestant(
    f"{RECORDING_NAME}{MERGED}",
    "the same, and stereo recordings",
    "no gain where each call has a source port of its own",
    partial(_start_strep, sinks=("vad", "wav"), flags=("--merge-datagrams",)),
)
UVLOOP = Contestant(
    "uvloop",
    "DatagramProtocol, code per packet: headers, dict of tracks, heap with a 60 ms limit, RFC 3550 "
    "statistics, media time, audioop, VAD with an adaptive noise floor",
    "no kernel arrival times, no metrics, no recording",
    partial(_start_python, module="uvloop_peer"),
    lambda: _no_package("uvloop"),
)
UVLOOP_LEVEL = Contestant(
    "uvloop, level only",
    "the same with no more than headers, dict, heap, audioop and the level of each frame",
    "as above; no statistics, media time or VAD",
    partial(_start_python, module="uvloop_level_peer"),
    lambda: _no_package("uvloop"),
)
ASYNCIO = Contestant(
    "asyncio",
    "what uvloop does, on asyncio's own loop",
    "as uvloop",
    partial(_start_python, module="asyncio_peer"),
)
AIORTC = Contestant(
    "aiortc on uvloop",
    "its RtpPacket, JitterBuffer and G.711 decoder, level per frame",
    "no statistics, no VAD, no recording; without the encryption and RTCP of its peer connections",
    partial(_start_python, module="aiortc_peer"),
    lambda: _no_package("aiortc") or _no_package("uvloop"),
    holds_back=4,
)
GSTREAMER = Contestant(
    "GStreamer",
    "a pipeline per stream: udpsrc, rtpjitterbuffer, rtppcmudepay, mulawdec, wavenc, filesink",
    "no STREP, so a port per stream; no VAD; a mono file per direction, without silence in gaps",
    partial(_start_program, module="gstreamer_peer"),
    _no_gstreamer,
    "rtp",
)
FFMPEG = Contestant(
    "ffmpeg",
    "a process per stream, from SDP to a WAV file",
    "no STREP, so a port per stream; no VAD; a mono file per direction",
    partial(_start_program, module="ffmpeg_peer"),
    _no_ffmpeg,
    "rtp",
)

MATCHES = (
    Match(
        4000,
        (
            FLOOR_PEER,
            FLOOR_WITH_METADATA,
            STREP,
            STREP_RECORDING,
            STREP_MERGED,
            STREP_RECORDING_MERGED,
            UVLOOP,
            UVLOOP_LEVEL,
        ),
    ),
    Match(400, (FLOOR_PEER, STREP, UVLOOP, UVLOOP_LEVEL, ASYNCIO, AIORTC)),
    Match(200, (FLOOR_PEER, STREP_RECORDING, GSTREAMER)),
    Match(20, (FLOOR_PEER, STREP_RECORDING, FFMPEG)),
)


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    report = Report("peers", [], {"rounds": rounds, "seconds": seconds})
    report.notes += machine.shortcomings()
    absent = {c.name: why for m in MATCHES for c in m.contestants if (why := c.missing())}
    report.notes += [f"{name}: {why}" for name, why in absent.items()]
    turns = {
        (match.tracks, contestant.name): (match, contestant)
        for match in MATCHES
        for contestant in match.contestants
        if contestant.name not in absent
    }
    cases = {(tracks, name): f"{name}, {tracks:,} tracks" for tracks, name in turns}
    runs = series.in_turn(
        context, report, rounds, cases,
        lambda case: _play(context.scratch, *turns[case], seconds),
    )  # fmt: skip
    report.rows = [_row(*turns[case], runs) for case, found in runs.items() if found]
    return report


def _play(scratch: Path, match: Match, contestant: Contestant, seconds: float) -> measure.Run:
    receiving_core, sending_core = machine.cores()
    traffic = Traffic(
        tracks=match.tracks, rate_pps=match.rate_pps, wrapping=contestant.wrapping, sides=2
    )
    source = measure.Source(traffic, core=sending_core)
    with contestant.start(scratch, receiving_core, match.tracks) as receiver:
        measure.warm_up(receiver, source)
        done = measure.measure(receiver, source, round(traffic.total_pps * seconds))
        heard = receiver.totals()
    held_back = match.tracks * contestant.holds_back
    done.missing = max(0, source.sent - round(heard["packets"]) - held_back)
    return done


def _row(
    match: Match, contestant: Contestant, runs: Mapping[tuple[int, str], Runs]
) -> dict[str, Any]:
    found = runs[match.tracks, contestant.name]
    played = found.values()
    ours = OURS_NAME if STREP in match.contestants else RECORDING_NAME

    def of(tracks: int, name: str) -> float | None:
        return series.ratio(found, runs.get((tracks, name), {}))

    return {
        "load": match.title,
        "tracks": match.tracks,
        "rate_pps": match.tracks * match.rate_pps,
        "name": contestant.name,
        "us_per_packet": round(median(run.us_per_packet for run in played), 4),
        "least_us": round(min(run.us_per_packet for run in played), 4),
        "most_us": round(max(run.us_per_packet for run in played), 4),
        "core_share": round(median(run.core_share for run in played), 4),
        "of_floor": of(match.tracks, FLOOR_NAME),
        "of_ours": of(match.tracks, ours),
        "of_ours_at_4000_tracks": of(MATCHES[0].tracks, ours),
        "of_merged_at_4000_tracks": of(MATCHES[0].tracks, ours + MERGED),
        "dropped_share": round(sum(r.drops for r in played) / sum(r.load.sent for r in played), 6),
        "does": contestant.does,
        "lacks": contestant.lacks,
        "rounds": [run.as_dict() for run in played],
    }


def tables(report: Report) -> list[Table]:
    found = []
    for load in dict.fromkeys(row["load"] for row in report.rows):
        made = table(
            load, "receiver", "CPU µs/packet", "least - most", "÷ floor", "÷ strep",
            "÷ strep at 4,000", "÷ merged at 4,000", "dropped",
        )  # fmt: skip
        for row in report.rows:
            if row["load"] == load:
                made.add_row(
                    row["name"],
                    figure_of(row["us_per_packet"]),
                    f"{row['least_us']:.2f} - {row['most_us']:.2f}",
                    figure_of(row["of_floor"]),
                    figure_of(row["of_ours"]),
                    figure_of(row["of_ours_at_4000_tracks"]),
                    figure_of(row["of_merged_at_4000_tracks"]),
                    f"{row['dropped_share']:.2%}" if row["dropped_share"] else "none",
                )
        found.append(made)
    legend = table("What each does, and what not", "receiver", "does", "does not", left=3)
    for name, does, lacks in dict.fromkeys((r["name"], r["does"], r["lacks"]) for r in report.rows):
        legend.add_row(name, does, lacks)
    return [*found, legend]


def draw(report: Report, figure: Figure) -> None:
    loads = list(dict.fromkeys(row["load"] for row in report.rows))
    counts = [sum(row["load"] == load for row in report.rows) for load in loads]
    figure.set_size_inches(8, 0.5 * sum(counts) + 0.7 * len(loads))
    panels = figure.subplots(
        len(loads), 1, sharex=True, squeeze=False, height_ratios=[n + 1 for n in counts]
    )
    for axes, load in zip(panels[:, 0], loads, strict=True):
        rows = [row for row in report.rows if row["load"] == load]
        colours = [
            FLOOR if r["name"].startswith("floor")
            else OURS if r["name"].startswith("strep") else OTHERS
            for r in rows
        ]  # fmt: skip
        bars(axes, [r["name"] for r in rows], [r["us_per_packet"] for r in rows], colours)
        axes.set_title(load, loc="left", fontsize=9.5)
        axes.set_xscale("log")
        axes.set_xlim(0.1, 2 * max(row["us_per_packet"] for row in report.rows))
    panels[-1, 0].set_xlabel("CPU per packet, microseconds (logarithmic)")


BENCHMARK = Benchmark(
    "peers", "CPU per packet beside other ways to receive call audio", run, tables, draw
)
