"""The benchmark `stages`: what each step of the path costs alone, in process, per packet.

Batches of 1,024 packets of 4,000 tracks go through the steps one after another, as they do in the
daemon, and a clock is read between two steps: the CPU time of this thread. `all of it` is the
path in one go, from a batch that was read to the VAD. Reading is from a loopback socket and
includes the kernel's part.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bench import machine
from bench.report import OURS, Benchmark, Context, Report, bars, median, table
from bench.sending import Sender
from bench.traffic import PacketWriter, Traffic
from pipeline.dispatch import Dispatcher
from pipeline.pipeline import Pipeline
from pipeline.sinks.vad import VadSink
from strep.receive.readers import open_reader
from strep.receive.receiver import Receiver
from strep.receive.sockets import bind, enlarge_receive_buffer
from strep.wire import PacketBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from rich.table import Table

    from pipeline.packets import Packets

TRACKS = 4000
BATCHES = 64
ROUNDS, QUICK_ROUNDS = 15, 3
FRAME_NS = 20_000_000


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    report = Report("stages", [], {"tracks": TRACKS, "batches": BATCHES, "rounds": rounds})
    report.notes += machine.shortcomings()
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        context.progress(f"round {number + 1} of {rounds}", number / rounds)
        for stage, us in {"read": _read(), **_stages(), "all of it": _whole()}.items():
            found[stage].append(us)
    report.rows = [
        {
            "stage": stage,
            "us_per_packet": round(median(every), 4),
            "least_us": round(min(every), 4),
            "most_us": round(max(every), 4),
        }
        for stage, every in found.items()
    ]
    return report


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
    vad = VadSink()
    dispatcher = Dispatcher({"vad": vad})
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
        side = batch.buffer[:, 0] & np.uint8(0b11)
        receiver.table.lookup(batch.call_leg_id[0], batch.call_leg_id[1], side)
        laps.lap("look-up")
        receiver.receive(batch)
        laps.lap("parse, look-up and columns")
        _, released = pipeline.bank.push(pipeline.caught)
        laps.lap("ring")
        pipeline.statistics.update(pipeline.caught)
        laps.lap("statistics")
        for part in released:
            for block in pipeline.playout.play(part):
                laps.lap("release")
                block.pcm  # noqa: B018 -- decodes at the first use
                laps.lap("decode")
                vad.write(block)
                laps.lap("VAD")
    return {stage: ns / 1000 / (BATCHES * batch.capacity) for stage, ns in laps.ns.items()}


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
        f"CPU microseconds per packet, batches of 1,024, {report.settings['tracks']:,} tracks",
        "stage", "median", "least", "most",
    )  # fmt: skip
    for row in report.rows:
        figures = (row[name] for name in ("us_per_packet", "least_us", "most_us"))
        made.add_row(row["stage"], *(f"{value:.3f}" for value in figures))
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(6.5, 0.36 * len(report.rows) + 0.7)
    axes = figure.subplots()
    names = [row["stage"] for row in report.rows]
    bars(axes, names, [row["us_per_packet"] for row in report.rows], [OURS] * len(names))
    axes.set_xlabel("CPU per packet, microseconds")


BENCHMARK = Benchmark("stages", "each step of the path alone, per packet", run, tables, draw)
