"""The benchmark `codecs`: what a packet of each codec costs from the batch to its samples.

Batches of a packet of 20 ms from each of some tracks go through a pipeline whose only sink asks for
the samples; CPU time of this thread. G.711 comes from as many tracks as a batch holds, since it is
decoded for all of them at once; the others, which are decoded one by one, from fewer. There is no
encoder of G.729 here: it is given random frames, each of which is one.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import soundfile

from bench import machine
from bench.report import OTHERS, OURS, Benchmark, Context, Report, bars, median, table
from pipeline.block import Track
from pipeline.decoders import INSTALL, load_library
from pipeline.dispatch import Dispatcher
from pipeline.formats import STATIC, PayloadTypes
from pipeline.packets import Packets
from pipeline.pipeline import Pipeline
from pipeline.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.table import Table

    from pipeline.block import AudioBlock

CODED_TRACKS, TRACKS = 50, 2000
BATCHES = 50
ROUNDS, QUICK_ROUNDS = 9, 2
PACKET_NS = 20_000_000
PAYLOAD_TYPES = PayloadTypes.parse("96=opus,97=L16/16000")
FORMATS = {**STATIC, **PAYLOAD_TYPES}


class _Listener(Sink):
    threaded = False

    def write(self, block: AudioBlock) -> None:
        block.pcm  # noqa: B018 -- decodes at the first use


def run(context: Context) -> Report:
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    report = Report("codecs", [], {"batches": BATCHES, "rounds": rounds})
    report.notes += machine.shortcomings()
    if load_library() is None:
        report.notes.append(f"only what needs no library is measured: {INSTALL}")
    coded = _coded()
    found: dict[int, list[float]] = {payload_type: [] for payload_type in coded}
    for number in range(rounds):
        for payload_type, payloads in coded.items():
            context.progress(f"round {number + 1} of {rounds}", number / rounds)
            found[payload_type].append(_us_per_packet(payload_type, payloads))
    report.rows = [
        {
            "codec": FORMATS[payload_type].encoding,
            "rate_hz": FORMATS[payload_type].sample_rate_hz,
            "us_per_packet": round(median(every), 3),
            "least_us": round(min(every), 3),
            "most_us": round(max(every), 3),
        }
        for payload_type, every in found.items()
    ]
    return report


def _tone(rate_hz: int) -> NDArray[np.int16]:
    phase = 2 * np.pi * 440 * np.arange(rate_hz) / rate_hz
    return np.round(8000 * np.sin(phase)).astype(np.int16)


def _coded() -> dict[int, Sequence[bytes]]:
    """Return packets of 20 ms by payload type, as far as they can be decoded."""
    coded: dict[int, Sequence[bytes]] = {
        0: [bytes(160)],
        97: _cut(_tone(16_000).astype(">i2").tobytes(), 640),
    }
    if load_library() is None:
        return coded
    file = io.BytesIO()
    soundfile.write(file, _tone(8000), 8000, format="RAW", subtype="GSM610")
    frames = np.random.default_rng(1).integers(0, 256, 1000, np.uint8)
    coded[3] = _cut(file.getvalue(), 33)
    coded[18] = _cut(frames.tobytes(), 20)
    coded[9] = _encoded("g722", 16_000)
    coded[96] = _encoded("libopus", 48_000)
    return coded


def _cut(codes: bytes, size: int) -> list[bytes]:
    return [codes[i : i + size] for i in range(0, len(codes), size)]


def _encoded(encoder: str, rate_hz: int) -> list[bytes]:
    av = load_library()
    context = av.CodecContext.create(encoder, "w")
    context.sample_rate, context.layout, context.format = rate_hz, "mono", "s16"
    packets = []
    for samples in _tone(rate_hz).reshape(50, -1):
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets


def _us_per_packet(payload_type: int, payloads: Sequence[bytes]) -> float:
    """Return CPU microseconds per packet."""
    tracks = TRACKS if payload_type == 0 else CODED_TRACKS
    pipeline = Pipeline(Dispatcher({"listener": _Listener()}), payload_types=PAYLOAD_TYPES)
    for row in range(tracks):
        pipeline.open(_track(row), sequence=0)
    clock_hz = FORMATS[payload_type].clock_hz
    cpu_ns = 0
    for number in range(BATCHES):
        packets = _packets(number, tracks, payload_type, payloads[number % len(payloads)], clock_hz)
        start_ns = time.thread_time_ns()
        pipeline.push(packets)
        cpu_ns += time.thread_time_ns() - start_ns if number else 0  # the first makes decoders
    return cpu_ns / 1000 / tracks / (BATCHES - 1)


def _packets(number: int, tracks: int, payload_type: int, payload: bytes, clock_hz: int) -> Packets:
    def all_of(value: int) -> NDArray[np.int64]:
        return np.full(tracks, value, np.int64)

    return Packets(
        rows=np.arange(tracks),
        ssrc=all_of(1),
        sequence=all_of(number),
        timestamp=all_of(number * clock_hz // 50),
        payload_type=all_of(payload_type),
        arrival_ns=all_of(number * PACKET_NS),
        store=np.tile(np.frombuffer(payload, np.uint8), (tracks, 1)),
        slot=np.arange(tracks),
        offset=all_of(0),
        length=all_of(len(payload)),
    )


def _track(row: int) -> Track:
    return Track(
        row=row,
        generation=1,
        call_leg_id=UUID(int=row),
        leg="A",
        direction="inbound",
        opened_ns=0,
        opened_unix_ns=0,
        source="192.0.2.1:4000",
        destination="192.0.2.2:9000",
        ssrc=1,
    )


def tables(report: Report) -> list[Table]:
    made = table("CPU microseconds per packet of 20 ms", "codec", "audio", "median", "from - to")
    for row in report.rows:
        made.add_row(
            row["codec"],
            f"{row['rate_hz'] / 1000:g} kHz",
            f"{row['us_per_packet']:.2f}",
            f"{row['least_us']:.2f} - {row['most_us']:.2f}",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(6.5, 0.36 * len(report.rows) + 0.7)
    names = [_name(row) for row in report.rows]
    colours = [OURS if row["codec"] == "PCMU" else OTHERS for row in report.rows]
    axes = figure.subplots()
    bars(axes, names, [row["us_per_packet"] for row in report.rows], colours)
    axes.set_xlabel("CPU per packet, microseconds")


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['codec']}, {row['rate_hz'] / 1000:g} kHz"


BENCHMARK = Benchmark(
    "codecs", "a packet of each codec, from the batch to samples", run, tables, draw
)
