"""The benchmark `throughput`: cost per packet at fixed rates, and the highest rate without loss.

By number of tracks and by sinks. A rate is free of loss when every packet that was sent is
accepted and none is lost anywhere: not by the kernel, not in the receiver, not by a sink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import machine, measure, receivers
from bench.report import SERIES, Benchmark, Context, Report, by_tracks, figure_of, table
from bench.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from rich.table import Table

    from bench.measure import Run, Source
    from bench.receivers import Daemon

TRACKS, QUICK_TRACKS = (10, 100, 1000, 4000, 10_000), (100, 4000)
RATES_PPS, QUICK_RATES_PPS = (50_000, 100_000, 200_000), (100_000,)
SECONDS, QUICK_SECONDS = 3.0, 1.0
LOWEST_PPS, HIGHEST_PPS = 10_000.0, 800_000.0
PRECISION, QUICK_PRECISION = 1.04, 1.15
"""The highest rate is found to within this factor."""
CONFIRM_FACTOR, CONFIRM_STEP = 2.0, 0.95
"""It is confirmed for so many times as long, and lowered by this step, each time by twice as much,
until it holds."""


def sink_sets(*, quick: bool) -> dict[str, tuple[str, ...]]:
    """Return the sinks that are measured, by the name of the set.

    `analysis` is all that needs no extra, `all` that and what writes.
    """
    analysis = ("vad", "dtmf", "conversation")
    sets = {
        "none": (),
        "vad": ("vad",),
        "analysis": analysis,
        "wav": ("wav",),
        "all": (*analysis, "wav", "log"),
    }
    return {name: sets[name] for name in ("none", "vad", "analysis")} if quick else sets


@dataclass(frozen=True, slots=True)
class _Case:
    """A daemon to measure."""

    name: str
    """Of the set of sinks."""
    sinks: tuple[str, ...]
    tracks: int

    def __str__(self) -> str:
        return f"{self.name}, {self.tracks:,} tracks"


def run(context: Context) -> Report:
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    sets = sink_sets(quick=context.quick)
    report = Report("throughput", [], {"seconds": seconds, "sinks": sets})
    report.notes += machine.shortcomings()
    runs: dict[str, list[Run]] = {}
    tracks = QUICK_TRACKS if context.quick else TRACKS
    cases = [_Case(name, sets[name], count) for name in sets for count in tracks]
    for number, case in enumerate(cases):
        runs[str(case)] = []
        say = partial(_say, context, case, number / len(cases))
        try:
            report.rows.append(_measured(context, case, seconds, say, runs[str(case)]))
        except (receivers.ReceiverError, measure.LoadError) as error:
            report.notes.append(f"{case}: {error}")
    report.notes += measure.notes_on({name: found for name, found in runs.items() if found})
    return report


def _say(context: Context, case: _Case, share: float, what: str) -> None:
    context.progress(f"{case}: {what}", share)


def _measured(
    context: Context, case: _Case, seconds: float, say: Callable[[str], None], runs: list[Run]
) -> dict[str, Any]:
    """Return the row of a case; the runs at fixed rates are added to `runs`."""
    receiving_core, sending_core = machine.cores()
    folder = context.scratch / "recordings"
    source = measure.Source(Traffic(tracks=case.tracks), core=sending_core)
    costs = {}
    try:
        with receivers.Daemon(case.sinks, folder, core=receiving_core) as daemon:
            say("opening")
            measure.warm_up(daemon, source)
            for rate in QUICK_RATES_PPS if context.quick else RATES_PPS:
                say(f"{rate:,} packets/s")
                done = measure.measure(daemon, source, round(rate * seconds), rate_pps=rate)
                runs.append(done)
                costs[str(rate)] = done.as_dict()

            def probe(rate: float, factor: float = 1.0) -> str:
                say(f"trying {rate:,.0f} packets/s")
                return _outcome(daemon, source, rate, seconds * factor)

            precision = QUICK_PRECISION if context.quick else PRECISION
            highest, limit = search(probe, precision=precision)
            say(f"no loss up to {highest:,.0f} packets/s")
    finally:
        receivers.remove_recordings(folder)
    return {
        "sinks": case.name,
        "tracks": case.tracks,
        "costs": costs,
        "highest_pps": round(highest),
        "limit": limit,
    }


def _outcome(daemon: Daemon, source: Source, rate: float, seconds: float) -> str:
    """Try a rate; return `clean`, `short` (of the sender) or what was lost where first."""
    before = daemon.totals()
    done = measure.measure(daemon, source, round(rate * seconds), rate_pps=rate)
    after = daemon.totals()
    outcome = _judged(done, before, after)
    if outcome != "clean":
        # holes show when the next packets come: here, not in the next try
        measure.warm_up(daemon, source)
    return outcome


def _judged(done: Run, before: dict[str, float], after: dict[str, float]) -> str:
    if done.backlog_drops or done.load.rate_share < measure.LATE_SHARE:
        return "short"
    for name, words in (
        ("kernel_drops", "kernel"),
        ("refused", "receiver"),
        ("missed_by_sinks", "sink"),
        ("lost", "receiver"),
    ):
        if after[name] > before[name]:
            return words
    return "clean" if after["packets"] - before["packets"] == done.load.sent else "receiver"


def search(
    probe: Callable[..., str],
    *,
    lowest: float = LOWEST_PPS,
    highest: float = HIGHEST_PPS,
    precision: float = PRECISION,
) -> tuple[float, str]:
    """Find the highest rate at which `probe(rate)` says `clean`; 0 where none does.

    By bisection of the logarithm, confirmed by `probe(rate, CONFIRM_FACTOR)`. Returns it with
    what the next higher rate met.
    """
    low, high, limit = lowest, highest, "sender"
    while high / low > precision:
        middle = math.sqrt(low * high)
        outcome = probe(middle)
        if outcome == "clean":
            low = middle
        else:
            high, limit = middle, "sender" if outcome == "short" else outcome
    step = CONFIRM_STEP
    while low >= lowest * CONFIRM_STEP:
        outcome = probe(low, CONFIRM_FACTOR)
        if outcome == "clean":
            return low, limit
        low, limit = low * step, "sender" if outcome == "short" else outcome
        step *= step
    return 0.0, limit


def tables(report: Report) -> list[Table]:
    rates = list(dict.fromkeys(rate for row in report.rows for rate in row["costs"]))
    made = table(
        "CPU per packet in microseconds (user + system), and the highest rate without loss",
        "sinks", "tracks", *(f"at {int(rate):,}/s" for rate in rates), "no loss up to", "limit",
    )  # fmt: skip
    for row in report.rows:
        cells = []
        for rate in rates:
            cost = row["costs"][rate]
            lost = f", {cost['drops']:,} dropped" if cost["drops"] else ""
            split = f"{cost['user_us']:.2f} + {cost['system_us']:.2f}"
            cells.append(f"{figure_of(cost['us_per_packet'])} ({split}){lost}")
        made.add_row(
            row["sinks"], f"{row['tracks']:,}", *cells, f"{row['highest_pps']:,}/s", row["limit"]
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(9, 3.8)
    cost, rate = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["sinks"] for row in report.rows))
    for name, colour in zip(names, SERIES, strict=False):
        rows = [row for row in report.rows if row["sinks"] == name]
        tracks = [row["tracks"] for row in rows]
        middle = [list(row["costs"].values())[len(row["costs"]) // 2] for row in rows]
        style = {"color": colour, "marker": "o", "markersize": 3.5, "label": name}
        cost.plot(tracks, [c["us_per_packet"] for c in middle], **style)
        rate.plot(tracks, [row["highest_pps"] / 1000 for row in rows], **style)
    tracks = [row["tracks"] for row in report.rows]
    by_tracks(cost, "CPU per packet, microseconds", tracks)
    by_tracks(rate, "highest rate without loss, thousand packets/s", tracks)
    cost.legend(title="sinks", frameon=False)


BENCHMARK = Benchmark(
    "throughput", "CPU per packet, and the highest rate without loss", run, tables, draw
)
