"""The benchmark `stages`: what each step of the path costs alone, in process, per packet.

Full batches of packets of 4,000 tracks go through the steps one after another, as they do in the
daemon, and a clock is read between two steps: the CPU time of this thread. `all of it` is the
path in one go, from a batch that was read to the VAD. Reading is from a loopback socket and
includes the operating system's part. All of it is measured with the compiled kernel, where there
is one, and without.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

import strep_kernel
from bench import machine
from bench.report import OTHERS, OURS, Benchmark, Context, Report, bars, median, table
from bench.sending import Sender
from bench.traffic import PacketWriter, Traffic
from pipeline.dispatch import Dispatcher
from pipeline.pipeline import Pipeline
from pipeline.sinks.dtmf import DtmfSink
from pipeline.sinks.vad import VadSink
from strep.receive.readers import open_reader
from strep.receive.receiver import Receiver
from strep.receive.sockets import bind, enlarge_receive_buffer
from strep.wire import PacketBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from rich.table import Table

    from pipeline.block import AudioBlock
    from pipeline.packets import Packets

WAYS = ("compiled", "NumPy")
TRACKS = 4000
BATCHES = 64
ROUNDS, QUICK_ROUNDS = 15, 3
FRAME_NS = 20_000_000


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    report = Report("stages", [], {"tracks": TRACKS, "batches": BATCHES, "rounds": rounds})
    report.notes += machine.shortcomings()
    ways = [way for way in WAYS if way == "NumPy" or strep_kernel.load() is not None]
    if len(ways) < len(WAYS):
        report.notes.append(
            "there is no compiled kernel: install a C compiler, then strep from its source"
        )
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        for way in ways:
            context.progress(f"round {number + 1} of {rounds}, {way}", number / rounds)
            with _only(way):
                for stage, us in {"read": _read(), **_stages(), "all of it": _whole()}.items():
                    found[stage, way].append(us)
    report.rows = [
        {
            "stage": stage,
            "way": way,
            "us_per_packet": round(median(every), 4),
            "least_us": round(min(every), 4),
            "most_us": round(max(every), 4),
        }
        for (stage, way), every in found.items()
    ]
    return report


@contextmanager
def _only(way: str) -> Iterator[None]:
    """Let what is made meanwhile go one way."""
    compiled = strep_kernel.load()
    if way == "NumPy":
        strep_kernel._compiled = None  # noqa: SLF001 -- the choice of a process, otherwise
    try:
        yield
    finally:
        strep_kernel._compiled = compiled  # noqa: SLF001


class _Laps:
    """A stopwatch of this thread's CPU time."""

    def __init__(self) -> None:
        self.ns: defaultdict[str, int] = defaultdict(int)
        self._last = 0

    def start(self) -> None:
        self._last = time.thread_time_ns()

    def lap(self, stage: str) -> None:
        now = time.thread_time_ns()
        self.ns[stage] += now - self._last
        self._last = time.thread_time_ns()


class _StagedPipeline(Pipeline):
    """A pipeline that, once told to, only keeps what it is handed."""

    is_staged = False
    caught: Packets

    def push(self, packets: Packets) -> None:
        if self.is_staged:
            self.caught = packets
        else:
            super().push(packets)


def _batches(batch: PacketBatch) -> Iterator[int]:
    """Fill the batch again and again with the next packets, whose time is yielded.

    The first round has one packet of each track, which opens it.
    """
    writer = PacketWriter(Traffic(tracks=TRACKS))
    first = 0
    while first < TRACKS + BATCHES * batch.capacity:
        opening = first < TRACKS
        count = min(batch.capacity, TRACKS - first) if opening else batch.capacity
        index = np.arange(first, first + count)
        writer.write(index, batch.buffer[:count, : writer.datagram_bytes])
        batch.length_bytes[:count] = writer.datagram_bytes
        batch.arrival_ns[:count] = index * FRAME_NS // TRACKS
        batch.count = count
        first += count
        yield int(batch.arrival_ns[count - 1])


def _stages() -> dict[str, float]:
    """Return CPU microseconds per packet by stage."""
    vad, dtmf = VadSink(), DtmfSink()
    dispatcher = Dispatcher({"vad": vad, "dtmf": dtmf})
    receiver = Receiver(dispatcher)
    receiver.pipeline = pipeline = _StagedPipeline(dispatcher)
    laps = _Laps()
    batch = PacketBatch()
    for now_ns in _batches(batch):
        if len(receiver.table) < TRACKS:
            receiver.receive(batch)
            receiver.tick(now_ns)
            continue
        pipeline.is_staged = True
        receiver.receive(batch)
        laps.start()
        batch.parse()
        laps.lap("parse")
        receiver.table.lookup(batch.call_leg_id[0], batch.call_leg_id[1], batch.side)
        laps.lap("look-up")
        receiver.receive(batch)
        laps.lap("parse, look-up and columns")
        for block in _blocks(pipeline, laps):
            block.pcm  # noqa: B018 -- decodes at the first use
            laps.lap("decode")
            vad.write(block)
            laps.lap("VAD")
            dtmf.write(block)
            laps.lap("key tones")
    return {stage: ns / 1000 / (BATCHES * batch.capacity) for stage, ns in laps.ns.items()}


def _blocks(pipeline: _StagedPipeline, laps: _Laps) -> Iterator[AudioBlock]:
    """Take what was caught through the bank, the statistics and the playout."""
    straight = pipeline._straight  # noqa: SLF001 -- alone, beside its whole
    if straight is not None:
        _, blocks = straight.push(pipeline.caught)
        for block in blocks:
            laps.lap("ring, statistics and release in one")
            yield block
        return
    _, released = pipeline.bank.push(pipeline.caught)
    laps.lap("ring")
    pipeline.statistics.update(pipeline.caught)
    laps.lap("statistics")
    for part in released:
        for block in pipeline.playout.play(part):
            laps.lap("release")
            yield block


def _whole() -> float:
    """Return CPU microseconds per packet of the whole path behind the socket."""
    receiver = Receiver(Dispatcher({"vad": VadSink()}))
    laps = _Laps()
    batch = PacketBatch()
    for now_ns in _batches(batch):
        stage = "opening" if len(receiver.table) < TRACKS else "whole"
        laps.start()
        receiver.receive(batch)
        receiver.tick(now_ns)
        laps.lap(stage)
    return laps.ns["whole"] / 1000 / (BATCHES * batch.capacity)


def _read() -> float:
    """Return CPU microseconds per packet of reading full batches from a loopback socket."""
    batch = PacketBatch()
    writer = PacketWriter(Traffic(tracks=TRACKS))
    datagrams = np.empty((batch.capacity, writer.datagram_bytes), np.uint8)
    writer.write(np.arange(batch.capacity), datagrams)
    sock = bind("127.0.0.1", 0)
    enlarge_receive_buffer(sock, machine.RECEIVE_BUFFER_BYTES)
    reader = open_reader(sock)
    sender = Sender("127.0.0.1", [sock.getsockname()[1]])
    laps = _Laps()
    read = 0
    for _ in range(BATCHES):
        sender.send(datagrams)
        laps.start()
        read += reader.read(batch)
        laps.lap("read")
    sender.close()
    reader.close()
    return laps.ns["read"] / 1000 / read


def tables(report: Report) -> list[Table]:
    made = table(
        f"CPU microseconds per packet, full batches, {report.settings['tracks']:,} tracks",
        "stage", *(text for way in WAYS for text in (way, "from - to")),
    )  # fmt: skip
    for stage in dict.fromkeys(row["stage"] for row in report.rows):
        figures = []
        for way in WAYS:
            row = _find(report, stage, way)
            figures += (
                [f"{row['us_per_packet']:.3f}", f"{row['least_us']:.3f} - {row['most_us']:.3f}"]
                if row
                else ["-", "-"]
            )
        made.add_row(stage, *figures)
    return [made]


def _find(report: Report, stage: str, way: str) -> dict[str, Any] | None:
    return next((r for r in report.rows if (r["stage"], r["way"]) == (stage, way)), None)


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(6.5, 0.36 * len(report.rows) + 0.7)
    axes = figure.subplots()
    names = [f"{row['stage']}, {row['way']}" for row in report.rows]
    colours = [OURS if row["way"] == "compiled" else OTHERS for row in report.rows]
    bars(axes, names, [row["us_per_packet"] for row in report.rows], colours)
    axes.set_xlabel("CPU per packet, microseconds")


BENCHMARK = Benchmark("stages", "each step of the path alone, per packet", run, tables, draw)
