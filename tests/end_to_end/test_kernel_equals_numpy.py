"""Whatever arrives, the compiled kernel and NumPy make the same of it, to the last bit."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordingsink import RecordingSink
from wirecases import rtp, strep

import strep_kernel
from pipeline.block import AudioBlock, Track
from pipeline.codecs import PCMU, audioop
from pipeline.dispatch import Dispatcher
from pipeline.sinks.base import Sink
from pipeline.sinks.dtmf import DtmfSink
from pipeline.sinks.vad import VadSink
from pipeline.sinks.wav import WavSink
from strep.receive.receiver import Receiver
from strep.wire import PacketBatch

pytestmark = pytest.mark.skipif(
    strep_kernel.load() is None, reason="needs the compiled kernel: a C compiler at installation"
)

CALLS = [UUID(int=n << 64 | n * 0x9E3779B97F4A7C15) for n in range(1, 5)]
MS = 1_000_000

# What the next packet is, the usual far more often than the rest.
CHOICES = {
    "call": [0, 0, 0, 1],
    "side": [0, 0, 1, 3],
    "skip": [0] * 12 + [1, 1, 2, -1, -2, -2, 70, 4000],
    "pause": [0] * 12 + [800, 480_000, 480_001, -160, 2**31],
    "payload_type": [0] * 10 + [8, 13, 101],
    "size": [160] * 10 + [80, 240, 1, 0],
    "ssrc": [1] * 15 + [2],
    "csrcs": [0] * 9 + [2],
    "is_plain": [False] * 9 + [True],
    "loud": [True, True, False],
    "ms": [0, 0, 20, 20, 21, 90, 700, 700, 1500],
}
FILLING = {"concealment": "g711", "comfort_noise": "noise", "max_gap_s": 2}
TALKS = st.lists(
    st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()}),
    min_size=1,
    max_size=60,
)


def datagrams(talks):
    """Return (datagram, arrival_ns) of packets that mostly continue their tracks."""
    state = {}
    now_ms = 0
    for talk in talks:
        key = talk["call"], talk["side"], talk["is_plain"]
        sequence, timestamp = state.get(key, (65_530, 2**32 - 500))
        sequence += talk["skip"]
        timestamp += talk["pause"]
        now_ms += talk["ms"]
        random = np.random.default_rng(sequence & 0xFFFF)
        codes = (
            random.integers(0, 256, talk["size"]) if talk["loud"] else np.full(talk["size"], 255)
        )
        packet = rtp(
            codes.astype(np.uint8).tobytes(),
            payload_type=talk["payload_type"],
            sequence=sequence & 0xFFFF,
            timestamp=timestamp & 0xFFFFFFFF,
            ssrc=talk["ssrc"],
            csrcs=range(talk["csrcs"]),
        )
        state[key] = sequence + 1, timestamp + talk["size"]
        if not talk["is_plain"]:
            packet = strep(packet, CALLS[talk["call"]], first=0xC4 | talk["side"])
        yield packet, now_ms * MS


class Levels(Sink):
    """Keeps all columns of all frames, by track."""

    threaded = False

    def __init__(self):
        self.frames = {}

    def write(self, block):
        assert block.has_gaps == block.gap_samples.any()
        for i, row in enumerate(block.rows.tolist()):
            self.frames.setdefault(row, []).append(
                (
                    block.codec.name,
                    int(block.position[i]),
                    int(block.gap_samples[i]),
                    int(block.lost[i]),
                    int(block.arrival_ns[i]),
                    block.pcm[i].tobytes(),
                )
            )


def outcome(packets, splits, folder, options):
    """Return all that a receiver made of packets that came in batches of these sizes."""
    folder.mkdir()
    results = []
    sinks = {
        "recording": RecordingSink(),
        "levels": Levels(),
        "vad": VadSink(start_ms=20, stop_ms=100, pad_ms=10),
        "dtmf": DtmfSink(minimum_ms=20),
        "wav": WavSink(directory=folder),
    }
    dispatcher = Dispatcher(
        sinks,
        on_closed=lambda track, _, got: results.append((track.row, got["vad"], got["dtmf"])),
    )
    dispatcher.start()
    receiver = Receiver(dispatcher, max_tracks=12, **options)
    batch = PacketBatch(64, 512)
    rest = list(packets)
    sizes = iter(splits)
    while rest:
        size = next(sizes, 7)
        batch.clear()
        for packet, arrival_ns in rest[:size]:
            batch.add(packet, arrival_ns)
        rest = rest[size:]
        batch.parse()
        columns = {
            name: getattr(batch, name)[: batch.count].tolist()
            for name in ("kind", "reason", "side", "ssrc", "sequence", "timestamp", "payload_type")
        }
        results.append(columns)
        receiver.receive(batch)
        results.append(receiver.pipeline.counters())
        if batch.count:
            receiver.tick(int(batch.arrival_ns[batch.count - 1]))
    receiver.stop()
    tracks = {key: asdict(summary) for key, summary in sinks["recording"].closed.items()}
    files = sorted((p.name, p.read_bytes()) for p in folder.iterdir())
    results.sort(key=str)
    return tracks, sinks["recording"].frames, sinks["levels"].frames, results, files


def check(talks, splits, folder, **options):
    packets = list(datagrams(talks))
    compiled = outcome(packets, splits, folder / "compiled", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strep_kernel, "_compiled", None)
        plain = outcome(packets, splits, folder / "numpy", options)
    for mine, theirs in zip(compiled, plain, strict=True):
        assert mine == theirs


@settings(max_examples=100, deadline=None)
@given(talks=TALKS, splits=st.lists(st.integers(1, 64), max_size=12))
def test_same_packets_same_outcome(tmp_path_factory, talks, splits):
    check(talks, splits, tmp_path_factory.mktemp("outcomes"))


@pytest.mark.parametrize("seed", range(4))
def test_same_calls_same_outcome(tmp_path, seed):
    random = np.random.default_rng(seed)
    talks = [
        {name: values[random.integers(len(values))] for name, values in CHOICES.items()}
        for _ in range(1500)
    ]
    options = {} if seed % 4 else FILLING
    check(talks, random.integers(1, 65, 60).tolist(), tmp_path, **options)


@pytest.mark.parametrize("samples", [5, 80, 161, 240, 960])
def test_same_frames_same_evidence_to_the_last_bit(samples):
    random = np.random.default_rng(samples)
    loudness = 10 ** random.uniform(0, 4.5, (60, 30, 1))
    noise = random.normal(0, 1, (60, 30, samples)) * loudness
    pitch = np.sin(np.arange(samples) * random.uniform(0.08, 0.3, (60, 30, 1))) * loudness
    audio = np.where(random.random((60, 30, 1)) < 0.5, noise, pitch + noise / 30)
    columns = []
    for compiled in (strep_kernel.load(), None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(strep_kernel, "_compiled", compiled)
            sink = VadSink(start_ms=40, stop_ms=130, floor_ms=600)
        for row in range(30):
            sink.open(Track(row, 0, UUID(int=row), "A", "inbound", 0, 0, "", "", row))
        zero = np.zeros(30, np.int64)
        for number, frames in enumerate(audio):
            block = AudioBlock(
                codec=PCMU,
                rows=np.arange(30),
                position=zero + number * samples,
                gap_samples=zero,
                lost=zero,
                arrival_ns=zero,
                payload=np.stack([encode(frame) for frame in frames]),
            )
            sink.write(block)
        columns.append(
            {
                name: getattr(part, name)[:30].tobytes()
                for part in (sink._activity, sink._floor)
                for name in part.fresh
            }
        )
    assert columns[0] == columns[1]


def encode(frame):
    pcm = np.clip(np.round(frame), -32768, 32767).astype(np.int16)
    return np.frombuffer(audioop.lin2ulaw(pcm.tobytes(), 2), np.uint8)
