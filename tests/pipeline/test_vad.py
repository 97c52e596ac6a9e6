"""The voice activity sink: behaviour in words, and a plain scalar model that it must equal."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import pairwise
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.block import AudioBlock, Track, TrackSummary
from pipeline.codecs import PCMU, audioop
from pipeline.level import band_scale
from pipeline.sinks import SinkError
from pipeline.sinks.speech import QUIET, SPEAKING, STARTING, STOPPING
from pipeline.sinks.vad import VadSink
from strep.voices import load_voice

pytestmark = pytest.mark.usefixtures("kernel")

RATE_HZ = 8000


def make_track(row, generation=0):
    return Track(
        row=row,
        generation=generation,
        call_leg_id=UUID(int=row),
        leg="A",
        direction="inbound",
        opened_ns=0,
        opened_unix_ns=0,
        source="192.0.2.1:4000",
        destination="192.0.2.2:9000",
        ssrc=row,
    )


def make_summary(duration_samples):
    figures = dict.fromkeys((field.name for field in fields(TrackSummary)), 0)
    return TrackSummary(
        **{**figures, "duration_samples": duration_samples, "sample_rate_hz": RATE_HZ}
    )


def make_block(rows, position, gap_samples, pcm):
    payload = np.frombuffer(audioop.lin2ulaw(np.int16(pcm).tobytes(), 2), np.uint8)
    return AudioBlock(
        codec=PCMU,
        rows=np.array(rows, np.intp),
        position=np.array(position, np.int64),
        gap_samples=np.array(gap_samples, np.int64),
        lost=np.zeros(len(rows), np.int64),
        arrival_ns=np.zeros(len(rows), np.int64),
        payload=payload.reshape(len(rows), -1),
    )


def tone(milliseconds, level_dbfs=-20.0):
    amplitude = 32768 * math.sqrt(2) * 10 ** (level_dbfs / 20)
    time_s = np.arange(milliseconds * RATE_HZ // 1000) / RATE_HZ
    return np.round(amplitude * np.sin(2 * np.pi * 1020 * time_s + 0.3)).astype(np.int16)


def silence(milliseconds):
    return np.zeros(milliseconds * RATE_HZ // 1000, np.int16)


def noise(milliseconds, level_dbfs):
    deviation = 32768 * 10 ** (level_dbfs / 20)
    samples = milliseconds * RATE_HZ // 1000
    return np.round(np.random.default_rng(5).normal(0, deviation, samples)).astype(np.int16)


class Line:
    """One track on a sink of its own or on one shared with others."""

    def __init__(self, sink=None, row=0, **options):
        self.sink = sink or VadSink(**{"start_ms": 60, "stop_ms": 500, **options})
        self.events = []
        if sink is None:
            self.sink.emit = self.events.append
        self.track = make_track(row)
        self.sink.open(self.track)
        self.position = 0

    def hear(self, pcm, frame_ms=20, gap_ms=0):
        """Send `pcm` in frames, the first of them behind a gap."""
        gap = gap_ms * RATE_HZ // 1000
        for frame in pcm.reshape(-1, frame_ms * RATE_HZ // 1000):
            self.position += gap
            self.sink.write(make_block([self.track.row], [self.position], [gap], frame))
            self.position += len(frame)
            gap = 0

    def close(self):
        return self.sink.close(self.track, make_summary(self.position))

    def spans(self):
        return [(one["start_s"], one["end_s"]) for one in self.close()["speech"]]

    def kinds(self):
        return [(event.kind, event.position_samples) for event in self.events]


def test_tone_burst_is_a_segment_from_its_first_to_its_last_sample():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(1500), silence(1000)]))
    assert line.close() == {
        "speech": [{"start_s": 1.0, "end_s": 2.5, "level_dbfs": -20.0}],
        "speech_ratio": 1.5 / 3.5,
        "speech_dropped": 0,
    }


def test_burst_that_begins_and_ends_within_frames_takes_in_both_frames():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1005), tone(500), silence(1015)]))
    assert line.spans() == [(1.0, 1.52)]


def test_segment_reaches_pad_ms_beyond_its_sound():
    line = Line(pad_ms=100)
    line.hear(np.concatenate([silence(1000), tone(500), silence(1000)]))
    assert line.spans() == [(0.9, 1.6)]


def test_padding_does_not_begin_before_the_track():
    line = Line(pad_ms=100)
    line.hear(np.concatenate([silence(40), tone(500), silence(1000)]))
    assert line.spans() == [(0.0, 0.64)]


def test_padding_is_never_more_than_half_of_the_hangover():
    line = Line(stop_ms=120, pad_ms=100)
    line.hear(np.concatenate([silence(1000), tone(200), silence(120), tone(200), silence(120)]))
    assert line.spans() == [(0.94, 1.26), (1.26, 1.58)]


def test_events_come_when_certain_and_stand_where_speech_started_and_stopped():
    line = Line(start_ms=60, stop_ms=500, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(40)]))
    assert line.kinds() == []
    line.hear(tone(20))
    assert line.kinds() == [("speech_started", 8000)]
    line.hear(silence(480))
    assert line.kinds() == [("speech_started", 8000)]
    line.hear(silence(20))
    started, stopped = line.events
    assert started.track is line.track
    assert started.sample_rate_hz == 8000
    assert started.data == {"start_s": 1.0}
    assert (stopped.kind, stopped.position_samples) == ("speech_stopped", 8480)
    assert stopped.data == {"start_s": 1.0, "end_s": 1.06, "level_dbfs": -20.0}


def test_track_passes_through_four_states():
    line = Line(start_ms=60, stop_ms=500)
    state = line.sink._activity.state
    assert state[0] == QUIET
    line.hear(np.concatenate([silence(1000), tone(40)]))
    assert state[0] == STARTING
    line.hear(tone(20))
    assert state[0] == SPEAKING
    line.hear(silence(480))
    assert state[0] == STOPPING
    line.hear(silence(20))
    assert state[0] == QUIET


def test_click_does_not_start_speech():
    line = Line(start_ms=60)
    line.hear(np.concatenate([silence(1000), tone(40, -6), silence(40), tone(40, -6)]))
    line.hear(silence(1000))
    assert line.events == []
    assert line.spans() == []


def test_pause_of_one_frame_delays_the_start_of_speech_and_is_part_of_it():
    line = Line(start_ms=60, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(40), silence(20), tone(20)]))
    assert line.events == []
    line.hear(tone(20))
    assert line.kinds() == [("speech_started", 8000)]


def test_one_loud_frame_in_the_hangover_is_a_click_and_does_not_go_on():
    line = Line(stop_ms=500, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200), silence(240), tone(20), silence(280)]))
    assert line.spans() == [(1.0, 1.2)]


def test_hangover_bridges_a_short_pause_and_no_longer_one():
    line = Line(stop_ms=500, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200), silence(480), tone(200)]))
    line.hear(np.concatenate([silence(500), tone(200), silence(500)]))
    assert line.spans() == [(1.0, 1.88), (2.38, 2.58)]


def test_level_is_that_of_the_speech_without_its_pauses():
    line = Line(stop_ms=500)
    line.hear(np.concatenate([silence(1000), tone(200, -30), silence(400), tone(200, -30)]))
    assert line.close()["speech"][0]["level_dbfs"] == -30.0


def test_gap_longer_than_the_hangover_ends_a_segment_where_its_sound_ended():
    line = Line(stop_ms=500, pad_ms=100)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    line.hear(tone(200), gap_ms=5000)
    assert line.kinds() == [
        ("speech_started", 7200),
        ("speech_stopped", 10400),
        ("speech_started", 48800),
    ]


def test_pause_and_gap_add_up_to_the_hangover():
    line = Line(stop_ms=500, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200), silence(200)]))
    line.hear(tone(200), gap_ms=300)
    assert line.spans() == [(1.0, 1.2), (1.7, 1.9)]


def test_gap_shorter_than_the_hangover_is_bridged():
    line = Line(stop_ms=500, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    line.hear(tone(200), gap_ms=480)
    assert line.spans() == [(1.0, 1.88)]


def test_gap_counts_against_the_start_of_speech():
    line = Line(start_ms=60, pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(40)]))
    line.hear(tone(40), gap_ms=40)
    assert line.events == []
    line.hear(tone(20))
    assert line.kinds() == [("speech_started", 8640)]


def test_overlap_is_no_gap():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    line.hear(tone(200), gap_ms=-10)
    line.hear(silence(600))
    assert line.spans() == [(1.0, 1.39)]


def test_speech_after_a_step_back_does_not_overlap_the_segment_ahead():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200), silence(600)]))
    line.hear(tone(300), gap_ms=-1000)
    assert line.spans() == [(1.0, 1.2), (1.2, 1.2)]


def test_click_after_a_step_back_does_not_start_speech():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200), silence(600)]))
    line.hear(np.concatenate([tone(40), silence(600)]), gap_ms=-1000)
    assert line.spans() == [(1.0, 1.2)]


def test_noise_floor_follows_rising_noise_within_its_window():
    line = Line(floor_ms=4000, pad_ms=0)
    line.hear(noise(6000, -60))
    assert line.events == []
    line.hear(noise(6000, -45))
    assert [kind for kind, _ in line.kinds()] == ["speech_started", "speech_stopped"]
    start, stop = [event.position_samples for event in line.events]
    assert start == 6 * RATE_HZ
    assert 8 * RATE_HZ <= stop <= 10 * RATE_HZ
    line.hear(tone(1000, -35))
    assert line.kinds()[2:] == [("speech_started", 12 * RATE_HZ)]


def test_speech_that_a_track_begins_with_is_heard_at_once():
    line = Line()
    line.hear(tone(80, -30))
    assert line.kinds() == [("speech_started", 0)]


def test_sound_below_the_minimum_is_never_speech():
    line = Line(minimum_dbfs=-50, voiced_db=15)
    line.hear(np.concatenate([silence(1000), tone(1000, -52)]))
    assert line.events == []


def test_frames_of_any_length_mix_within_a_segment():
    line = Line(start_ms=60, stop_ms=500, pad_ms=0)
    line.hear(silence(990), frame_ms=30)
    line.hear(tone(40), frame_ms=20)
    line.hear(tone(60), frame_ms=60)
    line.hear(silence(300), frame_ms=60)
    line.hear(tone(60), frame_ms=10)
    line.hear(silence(480), frame_ms=10)
    assert line.kinds() == [("speech_started", 7920)]
    line.hear(silence(20), frame_ms=10)
    assert line.spans() == [(0.99, 1.45)]


@pytest.mark.parametrize("frame_ms", [10, 20, 30, 40, 60])
def test_one_burst_has_the_same_segment_in_frames_of_every_length(frame_ms):
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1200), tone(600), silence(1200)]), frame_ms=frame_ms)
    assert line.spans() == [(1.2, 1.8)]


def test_frame_of_a_single_sample_is_passed_over():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    line.sink.write(make_block([0], [line.position], [0], [30000]))
    line.position += 1
    line.hear(np.concatenate([tone(200), silence(600)]))
    assert line.spans() == [(1.0, 1.400125)]


def test_open_segment_stops_where_the_track_ends():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200), silence(100)]))
    assert line.spans() == [(1.0, 1.3)]
    assert line.kinds() == [("speech_started", 8000), ("speech_stopped", 10400)]


def test_start_that_was_not_confirmed_before_the_track_ends_is_no_speech():
    line = Line()
    line.hear(np.concatenate([silence(1000), tone(40)]))
    assert line.spans() == []
    assert line.events == []


def test_track_without_audio_has_no_speech():
    assert Line().close() == {"speech": [], "speech_ratio": 0.0, "speech_dropped": 0}


def test_segments_beyond_max_segments_are_counted_and_still_make_events():
    line = Line(max_segments=2, stop_ms=100, pad_ms=0)
    line.hear(np.tile(np.concatenate([silence(200), tone(200)]), 5))
    results = line.close()
    assert [one["start_s"] for one in results["speech"]] == [0.2, 0.6]
    assert results["speech_dropped"] == 3
    assert results["speech_ratio"] == 0.5
    assert len(line.events) == 10


def test_reused_row_starts_afresh():
    line = Line()
    line.hear(np.concatenate([noise(5000, -30), tone(1000, -10)]))
    line.close()
    line.events.clear()
    again = make_track(0, generation=1)
    line.sink.open(again)
    line.sink.write(make_block([0], [0], [0], tone(80, -30)))
    assert line.kinds() == [("speech_started", 0)]
    assert line.events[0].track is again


def test_tracks_in_one_block_do_not_influence_each_other():
    sink = VadSink(pad_ms=0)
    events = []
    sink.emit = events.append
    talker, listener = Line(sink, row=900), Line(sink, row=3)
    speech = np.concatenate([silence(1000), tone(500), silence(1000)]).reshape(-1, 160)
    quiet = noise(2500, -60).reshape(-1, 160)
    for number, frames in enumerate(zip(speech, quiet, strict=True)):
        sink.write(make_block([900, 3], [number * 160] * 2, [0, 0], np.concatenate(frames)))
    talker.position = listener.position = 20000
    assert talker.spans() == [(1.0, 1.5)]
    assert listener.spans() == []
    assert {event.track.row for event in events} == {900}


def test_rows_grow_while_a_segment_is_open():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(500)]))
    line.sink.open(make_track(5000))
    line.hear(silence(1000))
    assert line.spans() == [(1.0, 1.5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_ms": -1.0}, "vad: start_ms must be between 0 and 10000, not -1"),
        ({"stop_ms": 60001.0}, "vad: stop_ms must be between 0 and 60000, not 60001"),
        ({"pad_ms": -5.0}, "vad: pad_ms must be between 0 and 30000, not -5"),
        ({"threshold_db": math.nan}, "vad: threshold_db must be between 0 and 60, not nan"),
        ({"voiced_db": 16.0}, "vad: voiced_db must be between 0 and 15, not 16"),
        ({"minimum_dbfs": 3.0}, "vad: minimum_dbfs must be between -100 and 0, not 3"),
        ({"floor_ms": 99.0}, "vad: floor_ms must be between 100 and 600000, not 99"),
        ({"max_segments": 0}, "vad: max_segments must be between 1 and 1e+06, not 0"),
    ],
)
def test_option_out_of_range_is_refused_in_one_sentence(options, message):
    with pytest.raises(SinkError) as error:
        VadSink(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(("voice", "gain_db"), [("caller", 0), ("agent", -25)])
def test_what_is_said_near_the_telephone_is_found_sentence_by_sentence(voice, gain_db):
    line = Line(sink=VadSink())
    said = PCMU.table[load_voice(voice)].astype(float)
    said = said[: len(said) // 160 * 160].reshape(-1, 160)
    loud = np.sqrt((said**2).mean(1)) > 330
    line.hear(np.round(said * 10 ** (gain_db / 20)).astype(np.int16).ravel())
    line.hear(silence(1000))
    found = np.zeros(len(said) + 50, bool)
    for start_s, end_s in line.spans():
        found[round(start_s * 50) : round(end_s * 50)] = True
    loud = np.append(loud, np.zeros(50, bool))
    assert found[loud].all()
    # no more beside it than the sounds that are soft, and the padding
    near = np.convolve(loud, np.ones(31), "same") > 0
    assert not found[~near].any()


def hum(milliseconds):
    time_s = np.arange(milliseconds * 8) / RATE_HZ
    waves = [a * np.sin(2 * np.pi * 50 * k * time_s) for k, a in ((1, 900), (2, 300), (3, 200))]
    return np.round(np.sum(waves, axis=0)).astype(np.int16)


@pytest.mark.parametrize(
    "sound",
    [
        silence(5000),
        noise(5000, -70),
        noise(5000, -55),
        noise(5000, -40),
        hum(5000),
        hum(5000) + noise(5000, -60),
        np.full(40_000, 1000, np.int16),
    ],
    ids=["silence", "soft noise", "noise", "loud noise", "hum", "hum and noise", "offset"],
)
def test_what_a_line_sounds_like_without_anybody_is_no_speech(sound):
    line = Line(sink=VadSink())
    line.hear(sound)
    line.hear(sound, gap_ms=300)
    assert line.spans() == []


def test_key_press_of_100_ms_is_no_speech():
    line = Line(sink=VadSink())
    time_s = np.arange(800) / RATE_HZ
    key = 4000 * (np.sin(2 * np.pi * 770 * time_s) + np.sin(2 * np.pi * 1336 * time_s))
    press = np.concatenate([key.astype(np.int16), silence(200)])
    line.hear(np.concatenate([silence(1010), *[press] * 4, silence(990)]))
    assert line.spans() == []


def test_lasting_tone_becomes_part_of_the_line():
    line = Line(sink=VadSink())
    line.hear(np.concatenate([silence(1000), tone(10_000)]))
    ((start_s, end_s),) = line.spans()
    assert start_s == 0.9
    assert 3 < end_s < 6


def test_filler_is_silence():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    block = make_block([0], [line.position], [0], tone(400))
    block.origin = "concealed"
    line.sink.write(block)
    line.position += 3200
    line.hear(silence(100))
    assert line.spans() == [(1.0, 1.2)]
    assert line.kinds() == [("speech_started", 8000), ("speech_stopped", 9600)]


def test_speech_stops_by_the_clock_where_nothing_comes():
    line = Line(pad_ms=0)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    row = np.array([0])
    line.sink.silence(row, np.array([9600 + 3900]))
    assert line.kinds() == [("speech_started", 8000)]
    line.sink.silence(row, np.array([9600 + 4000]))
    assert line.kinds() == [("speech_started", 8000), ("speech_stopped", 9600)]
    # what comes late by jitter stands where it was said
    line.hear(tone(200), gap_ms=480)
    line.sink.silence(row, np.array([line.position + 4000]))
    assert line.kinds()[2:] == [("speech_started", 13440), ("speech_stopped", 15040)]


def test_silence_is_not_counted_twice_by_the_clock_and_by_the_gap():
    line = Line(pad_ms=0, stop_ms=500)
    line.hear(np.concatenate([silence(1000), tone(200)]))
    line.sink.silence(np.array([0]), np.array([9600 + 2400]))
    line.hear(tone(200), gap_ms=400)
    assert line.spans() == [(1.0, 1.8)]


def test_silence_on_a_track_that_does_not_speak_is_nothing():
    line = Line()
    line.hear(silence(1000))
    line.sink.silence(np.array([0]), np.array([80_000]))
    assert line.events == []


class Linear:
    """Audio of another rate, as samples."""

    name = "L16"
    table = None

    def __init__(self, sample_rate_hz):
        self.sample_rate_hz = sample_rate_hz

    def samples(self, size):
        return size // 2

    def decode(self, payload, out):
        out[:] = payload.view(np.int16)


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 48_000])
def test_other_rates_are_brought_to_8_khz(rate_hz, monkeypatch):
    sink = VadSink(pad_ms=0, start_ms=60, stop_ms=500)
    sink.open(make_track(0))
    monkeypatch.setattr(AudioBlock, "pcm", property(lambda block: block.payload.view(np.int16)))
    time_s = np.arange(3 * rate_hz) / rate_hz
    sound = 4000 * np.sin(2 * np.pi * 1020 * time_s) * ((time_s >= 1) & (time_s < 2))
    samples = rate_hz // 50
    for number, frame in enumerate(np.round(sound).astype(np.int16).reshape(-1, samples)):
        block = make_block([0], [number * samples], [0], silence(20))
        sink.write(
            AudioBlock(
                codec=Linear(rate_hz),
                rows=block.rows,
                position=block.position,
                gap_samples=block.gap_samples,
                lost=block.lost,
                arrival_ns=block.arrival_ns,
                payload=frame.view(np.uint8)[None],
            )
        )
    summary = replace(make_summary(3 * rate_hz), sample_rate_hz=rate_hz)
    (segment,) = sink.close(make_track(0), summary)["speech"]
    assert (segment["start_s"], segment["end_s"]) == (1.0, 2.0)
    assert segment["level_dbfs"] == pytest.approx(-21.3, abs=0.8)


@pytest.mark.parametrize("samples", [4, 5, 19, 34, 35, 80, 160, 480])
def test_power_is_exact_for_the_loudest_samples(samples, monkeypatch):
    random = np.random.default_rng(samples)
    pcm = random.choice(np.int16([-32768, 32767, 0, 1]), (3, samples))
    pcm[0], pcm[1, ::2] = -32768, -32768
    monkeypatch.setattr(AudioBlock, "pcm", property(lambda _: pcm))
    sink = VadSink(start_ms=100, minimum_dbfs=-100)
    for row in range(3):
        sink.open(make_track(row))
    sink._floor.lowest[:] = np.inf
    sink.write(make_block([0, 1, 2], [0, 0, 0], [0, 0, 0], pcm))
    wide = pcm.astype(object)
    band = (wide[:, 3:] - wide[:, 2:-1] - wide[:, 1:-2] + wide[:, :-3]) ** 2
    assert sink._floor.lowest_before.tolist()[:3] == [  # the first frame ends a half window
        total * band_scale(samples) for total in band.sum(axis=1)
    ]
    heard = sink._activity.energy[:3] > 0
    assert sink._activity.energy[:3][heard].tolist() == (wide**2).sum(axis=1)[heard].tolist()


class ScalarVad:
    """The sink's algorithm for one track, one frame at a time, in plain Python."""

    def __init__(
        self, *, start_ms, stop_ms, pad_ms, threshold_db, voiced_db, minimum_dbfs, floor_ms
    ):
        self.start, self.stop, self.pad, self.half_window = (
            round(duration_ms * 8)
            for duration_ms in (start_ms * 0.98, stop_ms * 0.98, pad_ms, floor_ms / 2)
        )
        self.margin = 10 ** (threshold_db / 10)
        self.left = 10 ** ((voiced_db - threshold_db) / 10)
        self.minimum = 10 ** (minimum_dbfs / 10)
        self.lowest = self.lowest_before = 10**-5.0
        self.renewal = 0
        self.state = "quiet"
        self.begin = self.end = self.heard = 0
        self.segment_start = self.segment_end = 0
        self.events = []

    def hear(self, frame, position, gap):
        if gap > 0 and position > self.heard:
            self.weigh(self.heard - position, position, position)
        end = position + len(frame)
        self.weigh(self.evidence_of(frame, end) * len(frame), position, end, frame)

    def evidence_of(self, frame, end):
        band = [
            d - c - b + a
            for a, b, c, d in zip(frame, frame[1:], frame[2:], frame[3:], strict=False)
        ]
        power = sum(x * x for x in band) / len(band) / (256 / 27) / 32768**2
        self.lowest = min(self.lowest, power)
        floor = min(self.lowest, self.lowest_before)
        if end >= self.renewal:
            self.lowest, self.lowest_before = math.inf, self.lowest
            self.renewal = end + self.half_window
        threshold = max(floor * self.margin, self.minimum)
        if threshold * self.left < power < threshold * 10:
            threshold *= 1 - (1 - self.left) * min(1, 1.5 * self.voicing_of(frame))
        return (power - threshold) / (power + threshold)

    def voicing_of(self, frame):
        sums = [sum(frame[at : at + 4]) for at in range(0, len(frame), 4)][:120]
        steps = [after - before for before, after in pairwise(sums)]
        found = [0.0]
        for lag in range(5, min(20, len(steps) // 2) + 1):
            pairs = list(zip(steps, steps[lag:], strict=False))
            power = sum(a * a + b * b for a, b in pairs) / 2
            found.append(sum(a * b for a, b in pairs) / (power + 144 * len(sums)))
        return max(found)

    def weigh(self, evidence, position, end, frame=()):
        self.heard = end
        if self.state == "quiet":
            if evidence <= 0:
                return
            self.state = "starting"
            self.begin = position
            self.sum = self.again = 0
            self.sound = []
        if evidence > 0:
            self.sound += frame
        if self.state == "starting":
            self.sum = max(0, self.sum + evidence)
            if self.sum == 0:
                self.state = "quiet"
            elif self.sum >= self.start:
                self.speak(end)
                self.segment_start = max(self.begin - self.pad, self.segment_end)
                self.events.append(("speech_started", self.segment_start))
            return
        self.state = "stopping"
        self.sum = max(0, self.sum - evidence)
        self.again = max(0, self.again + evidence)
        if self.sum == 0 or self.again >= max(self.start, 1e-9):
            self.speak(max(self.end, end))
        elif self.sum >= self.stop:
            self.finish(self.end + self.pad)

    def speak(self, end):
        self.state = "speaking"
        self.end = end
        self.sum = self.again = 0

    def finish(self, end):
        self.segment_end = max(end, self.segment_start)
        power = sum(sample * sample for sample in self.sound) / len(self.sound) / 32768**2
        level_dbfs = 10 * math.log10(power)
        self.events.append(("speech_stopped", self.segment_end, pytest.approx(level_dbfs, abs=0.1)))
        self.state = "quiet"

    def close(self, duration):
        if self.state in {"speaking", "stopping"}:
            self.finish(duration)


TRACKS = 4
# far enough apart, and from every threshold, for rounding not to matter
AMPLITUDES = (0, 8, 64, 200, 1000, 8000)


def wave(amplitude, samples):
    """Return a square wave at a quarter of the sample rate, as the codec renders it."""
    pcm = np.resize(np.int16([amplitude, amplitude, -amplitude, -amplitude]), samples)
    return np.frombuffer(audioop.ulaw2lin(audioop.lin2ulaw(pcm.tobytes(), 2), 2), np.int16)


steps = st.lists(
    st.tuples(
        st.sampled_from([10, 20, 30, 60]),
        st.integers(1, 6),  # times
        st.lists(
            st.tuples(
                st.integers(0, TRACKS - 1),
                st.sampled_from(AMPLITUDES),
                st.sampled_from([0, 0, 0, 40, 480, 4000, -40, -800]),
            ),
            min_size=1,
            unique_by=lambda frame: frame[0],
        ),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=25)
@given(steps)
def test_all_tracks_at_once_equal_the_scalar_model_of_each(steps):
    options = {
        "start_ms": 40,
        "stop_ms": 130,
        "pad_ms": 25,
        "threshold_db": 12,
        "voiced_db": 3,
        "minimum_dbfs": -64,
        "floor_ms": 600,
    }
    sink = VadSink(**options)
    found = {row: [] for row in range(TRACKS)}

    def note(event):
        entry = (event.kind, event.position_samples)
        if event.kind == "speech_stopped":
            entry += (event.data["level_dbfs"],)
        found[event.track.row].append(entry)

    sink.emit = note
    tracks = [make_track(row) for row in range(TRACKS)]
    models = [ScalarVad(**options) for _ in tracks]
    ends = [0] * TRACKS
    for track in tracks:
        sink.open(track)
    for frame_ms, times, frames in steps:
        for time in range(times):
            rows, position, gaps, pcm = [], [], [], []
            for row, amplitude, gap_samples in frames:
                gap = max(gap_samples, -ends[row]) if time == 0 else 0
                frame = wave(amplitude, frame_ms * 8)
                models[row].hear(frame.tolist(), ends[row] + gap, gap)
                rows.append(row)
                position.append(ends[row] + gap)
                gaps.append(gap)
                pcm.append(frame)
                ends[row] += gap + len(frame)
            sink.write(make_block(rows, position, gaps, np.concatenate(pcm)))
    for track, model, end in zip(tracks, models, ends, strict=True):
        results = sink.close(track, make_summary(end))
        model.close(end)
        assert found[track.row] == model.events
        stops = [entry[1] / RATE_HZ for entry in model.events if entry[0] == "speech_stopped"]
        assert [one["end_s"] for one in results["speech"]] == stops
