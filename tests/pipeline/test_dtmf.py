"""DTMF in the audio: every key that is pressed and none that is not."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keytones import KEYS, a_law, amplitude, mu_law, noisy, silence, tone
from trackmaker import track

import strep_kernel
from pipeline.block import AudioBlock, TrackSummary
from pipeline.codecs import PCMA, PCMU, Codec
from pipeline.sinks import SinkError
from pipeline.sinks.dtmf import DtmfSink
from pipeline.sinks.load import load
from strep.voices import load_voice

pytestmark = pytest.mark.usefixtures("kernel")

SUMMARY = TrackSummary(**{field.name: 0 for field in fields(TrackSummary)})


def write(sink, codes, *, row=0, position=0, lost=0, codec=PCMU):
    """Send one frame, or one for each of several rows."""
    rows = np.atleast_1d(row)
    codes = np.atleast_2d(codes)
    sink.write(
        AudioBlock(
            codec=codec,
            rows=rows.astype(np.intp),
            position=np.full(len(rows), position, np.int64),
            gap_samples=np.zeros(len(rows), np.int64),
            lost=np.full(len(rows), lost, np.int64),
            arrival_ns=np.zeros(len(rows), np.int64),
            payload=np.ascontiguousarray(codes),
        )
    )


class Line:
    """One track on a sink of its own."""

    def __init__(self, **options):
        self.sink = DtmfSink(**options)
        self.events = []
        self.sink.emit = self.events.append
        self.track = track(0)
        self.sink.open(self.track)
        self.position = 0

    def hear(self, samples, *, frame=160, codec=PCMU):
        encode = a_law if codec.name == "PCMA" else mu_law
        codes = encode(samples)
        for start in range(0, len(codes), frame):
            write(self.sink, codes[start : start + frame], position=self.position, codec=codec)
            self.position += len(codes[start : start + frame])
        return self

    def miss(self, samples):
        self.position += samples
        return self

    def close(self):
        return self.sink.close(self.track, SUMMARY)

    def digits(self):
        return "".join(press["digit"] for press in self.close()["dtmf"])

    def spans(self):
        return [
            (press["digit"], round(1000 * press["start_s"]), press["duration_ms"])
            for press in self.close()["dtmf"]
        ]


def dial(keys=KEYS, *, on_ms=50.0, off_ms=50.0, lead_ms=100.0, **kind):
    parts = [silence(lead_ms)]
    for key in keys:
        parts += [tone(key, on_ms, **kind), silence(off_ms)]
    return np.concatenate([*parts, silence(100)])


def test_key_is_told_with_beginning_and_duration_when_it_is_over():
    line = Line().hear(np.concatenate([silence(100), tone("5", 100)]))
    assert line.events == []
    line.hear(silence(60))
    (event,) = line.events
    assert (event.kind, event.position_samples, event.sample_rate_hz) == ("dtmf", 800, 8000)
    assert dict(event.data) == {
        "digit": "5",
        "start_s": 0.1,
        "duration_ms": 100.0,
        "kind": "in-band",
    }
    assert line.close() == {"dtmf": [event.data], "dtmf_dropped": 0}


@pytest.mark.parametrize("codec", [PCMU, PCMA], ids=lambda codec: codec.name)
def test_all_keys(codec):
    assert Line().hear(dial(), codec=codec).digits() == KEYS


@pytest.mark.parametrize("level_dbm0", [-3, -10, -25])
@pytest.mark.parametrize("twist_db", [-6, 0, 6])
@pytest.mark.parametrize("off", [(0, 0), (0.015, 0.015), (-0.015, -0.015), (0.015, -0.015)])
def test_all_keys_of_any_level_twist_and_frequency_in_noise(level_dbm0, twist_db, off):
    """The extremes all at once, with noise 20 dB below the weaker tone."""
    heard = dial(level_dbm0=level_dbm0, twist_db=twist_db, low_off=off[0], high_off=off[1])
    power = amplitude(level_dbm0 - abs(twist_db)) ** 2 / 2
    assert Line().hear(noisy(heard, 20, power)).digits() == KEYS


@pytest.mark.parametrize("shift", range(0, 80, 13))
def test_shortest_press_and_pause_wherever_they_lie_in_the_frames(shift):
    keys = "1155D00#9"
    heard = np.concatenate([np.zeros(shift), dial(keys, on_ms=40, off_ms=40)])
    assert Line().hear(noisy(heard, 20, amplitude(-10) ** 2 / 2)).digits() == keys


@pytest.mark.parametrize("shift", range(0, 160, 23))
@pytest.mark.parametrize("on_ms", [40, 65, 120, 1000])
def test_beginning_and_duration_are_right_within_10_ms(shift, on_ms):
    heard = np.concatenate([np.zeros(shift), dial("7", on_ms=on_ms)])
    ((key, start_ms, duration_ms),) = Line().hear(heard).spans()
    assert key == "7"
    assert start_ms == pytest.approx(100 + shift / 8, abs=10)
    assert duration_ms == pytest.approx(on_ms, abs=10)


@pytest.mark.parametrize("frame", [13, 40, 80, 160, 200, 240, 320, 480, 4000])
def test_length_of_frames_does_not_matter(frame):
    assert Line().hear(dial("159D"), frame=frame).spans() == [
        ("1", 100, 50.0),
        ("5", 200, 50.0),
        ("9", 300, 50.0),
        ("D", 400, 50.0),
    ]


@pytest.mark.parametrize("on_ms", [10, 15, 20, 23])
@pytest.mark.parametrize("shift", [0, 31, 60])
def test_burst_is_no_press(on_ms, shift):
    heard = np.concatenate([np.zeros(shift), dial("5", on_ms=on_ms)])
    assert Line().hear(heard).digits() == ""


@pytest.mark.parametrize("off", [-0.04, 0.04, -0.035, 0.035])
def test_tone_of_another_frequency_is_no_press(off):
    for kind in ({"low_off": off}, {"high_off": off}):
        assert Line().hear(dial(**kind)).digits() == ""


def test_twist_beyond_that_of_lines_is_no_press():
    assert Line().hear(dial(twist_db=12)).digits() == ""
    assert Line().hear(dial(twist_db=-12)).digits() == ""
    assert Line(twist_db=14).hear(dial(twist_db=12)).digits() == KEYS


def test_one_tone_alone_is_no_press():
    time_s = np.arange(8000) / 8000
    for frequency_hz in (697, 941, 1209, 1633):
        heard = amplitude(-6) * np.sin(2 * np.pi * frequency_hz * time_s)
        assert Line().hear(heard).digits() == ""


@pytest.mark.parametrize("pair", [(350, 440), (440, 480), (480, 620), (425, 425), (1100, 2100)])
def test_tones_of_the_exchange_are_no_presses(pair):
    time_s = np.arange(16_000) / 8000
    heard = sum(amplitude(-13) * np.sin(2 * np.pi * hz * time_s) for hz in pair)
    assert Line().hear(heard).digits() == ""


def test_third_tone_makes_it_no_press():
    heard = dial("5", on_ms=200)
    heard += amplitude(-8) * np.sin(2 * np.pi * 2500 * np.arange(len(heard)) / 8000)
    assert Line().hear(heard).digits() == ""


def test_interruption_of_10_ms_does_not_end_a_press():
    heard = np.concatenate([silence(100), tone("5", 60), silence(10), tone("5", 60), silence(100)])
    ((key, start_ms, duration_ms),) = Line().hear(heard).spans()
    assert (key, start_ms) == ("5", 100)
    assert duration_ms == pytest.approx(130, abs=10)


def test_next_key_without_a_pause_is_another_press():
    heard = np.concatenate([silence(100), tone("5", 60), tone("6", 60), silence(100)])
    assert Line().hear(heard).digits() == "56"


@pytest.mark.parametrize(("lost", "presses"), [(1, 1), (3, 1), (4, 2)])
def test_what_is_lost_in_the_midst_of_a_tone_belongs_to_it(lost, presses):
    line = Line()
    codes = mu_law(np.concatenate([silence(100), tone("5", 300), silence(100)]))
    frames = codes.reshape(-1, 160)
    for i, frame in enumerate(frames):
        if not 10 <= i < 10 + lost:
            write(line.sink, frame, position=160 * i, lost=lost if i == 10 + lost else 0)
    assert len(spans := line.spans()) == presses
    assert (spans[0][1], spans[-1][1] + spans[-1][2]) == (100, 400)


def test_gap_without_loss_is_a_pause():
    line = Line().hear(np.concatenate([silence(100), tone("5", 60)]))
    line.miss(400).hear(np.concatenate([tone("5", 60), silence(100)]))
    assert line.spans() == [("5", 100, 60.0), ("5", 210, 60.0)]


def test_step_back_ends_a_press():
    line = Line().hear(np.concatenate([silence(100), tone("5", 100)]))
    line.miss(-400).hear(np.concatenate([tone("5", 60), silence(100)]))
    assert [(key, duration_ms) for key, _, duration_ms in line.spans()] == [("5", 100.0), ("5", 60)]


def test_press_is_over_when_its_track_ends():
    line = Line().hear(np.concatenate([silence(100), tone("5", 100)]))
    assert line.spans() == [("5", 100, 100.0)]
    assert len(line.events) == 1


def test_press_is_over_when_nothing_comes_by_the_clock():
    line = Line().hear(np.concatenate([silence(100), tone("5", 100)]))
    line.sink.silence(np.array([0]), np.array([1600 + 1599]))
    assert line.events == []
    line.sink.silence(np.array([0]), np.array([1600 + 1600]))
    assert len(line.events) == 1


def test_presses_beyond_the_limit_are_counted():
    line = Line(max_presses=2).hear(dial("12345"))
    assert len(line.events) == 2
    assert line.close()["dtmf_dropped"] == 3


def test_row_is_used_again_without_a_trace():
    line = Line().hear(np.concatenate([silence(100), tone("5", 100)]))
    line.close()
    line.sink.open(replace(line.track, generation=1))
    line.position = 0
    assert line.hear(silence(100)).digits() == ""


def test_tracks_do_not_hear_each_other():
    sink = DtmfSink()
    events = []
    sink.emit = events.append
    rows = np.array([3, 200, 0, 77])
    keys = ["12", "34", "56", "78"]
    for row in rows.tolist():
        sink.open(track(row))
    codes = np.array([mu_law(dial(each)) for each in keys])
    for start in range(0, codes.shape[1], 160):
        # not always in the same order, and not always all
        order = np.roll(np.arange(4), start // 160)
        which = order if start % 320 else order[:]
        write(sink, codes[which, start : start + 160], row=rows[which], position=start)
    heard = dict.fromkeys(rows.tolist(), "")
    for event in events:
        heard[event.track.row] += event.data["digit"]
    assert [heard[row] for row in rows.tolist()] == keys


def write_linear(sink, pcm, rate_hz, position):
    block = AudioBlock(
        codec=Codec(name="L16", sample_rate_hz=rate_hz),
        rows=np.zeros(1, np.intp),
        position=np.array([position]),
        gap_samples=np.zeros(1, np.int64),
        lost=np.zeros(1, np.int64),
        arrival_ns=np.zeros(1, np.int64),
        payload=np.ascontiguousarray(pcm[None], "<i2").view(np.uint8),
    )
    sink.write(block)


@pytest.mark.parametrize("rate_hz", [16_000, 32_000, 44_100, 48_000])
def test_other_sample_rates(rate_hz):
    line = Line()
    parts = [silence(100, rate_hz)]
    for key in KEYS:
        parts += [tone(key, 50, rate_hz=rate_hz, level_dbm0=-25), silence(50, rate_hz)]
    heard = np.concatenate([*parts, silence(100, rate_hz)]).astype(np.int16)
    frame = rate_hz // 50
    for start in range(0, len(heard), frame):
        write_linear(line.sink, heard[start : start + frame], rate_hz, start)
    spans = line.spans()
    assert "".join(key for key, *_ in spans) == KEYS
    assert [start for _, start, _ in spans] == [100 + 100 * i for i in range(16)]


@pytest.mark.parametrize("rate_hz", [7350, 11_025, 96_000])
def test_sample_rates_without_whole_hops_are_not_heard(rate_hz):
    line = Line()
    write_linear(line.sink, tone("5", 200, rate_hz=rate_hz).astype(np.int16), rate_hz, 0)
    assert line.digits() == ""


@pytest.mark.parametrize("amplitude_of", [32767, -32768])
def test_greatest_samples_are_summed_without_a_wrap(amplitude_of):
    line = Line()
    square = np.where(np.arange(8000) // 5 % 2, amplitude_of, -amplitude_of - 1).astype(np.int16)
    for rate_hz in (8000, 16_000, 48_000):
        write_linear(line.sink, square, rate_hz, 0)
    write_linear(line.sink, np.full(8000, -32768, np.int16), 8000, 0)
    assert line.digits() == ""


@pytest.mark.parametrize("voice", ["caller", "agent"])
def test_voices_press_no_keys(voice):
    line = Line()
    codes = load_voice(voice)
    for start in range(0, len(codes), 1600):
        write(line.sink, codes[start : start + 1600], position=start)
    assert line.digits() == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_ms": 5}, "dtmf: minimum_ms must be between 20 and 10000, not 5"),
        ({"twist_db": -1}, "dtmf: twist_db must be between 0 and 30, not -1"),
        ({"purity": 2}, "dtmf: purity must be between 0.1 and 0.99, not 2"),
        ({"max_presses": 0}, "dtmf: max_presses must be between 1 and 1e+06, not 0"),
    ],
)
def test_wrong_option_is_told_in_one_sentence(options, message):
    with pytest.raises(SinkError) as raised:
        DtmfSink(**options)
    assert str(raised.value) == message


@pytest.mark.skipif(strep_kernel.load() is None, reason="needs the compiled kernel")
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.lists(
        st.tuples(
            st.sampled_from([40, 80, 150, 160, 160, 240, 480]),
            st.sampled_from([0] * 6 + [160, 320, -80]),
            st.integers(0, 1),
            st.sampled_from(["tones"] * 6 + ["noise", "quiet"]),
        ),
        max_size=30,
    ),
)
def test_compiled_kernel_and_numpy_hear_the_same(seed, frames):
    def outcome(compiled):
        with pytest.MonkeyPatch.context() as patch:
            if not compiled:
                patch.setattr(strep_kernel, "_compiled", None)
            sink = DtmfSink(minimum_ms=20)
        random = np.random.default_rng(seed)
        for row in range(3):
            sink.open(track(row))
        position = 0
        for samples, gap, lost, kind in frames:
            position = max(0, position + gap)
            pcm = [
                random.normal(0, {"noise": 900, "quiet": 20}.get(kind, 9), samples) for _ in "abc"
            ]
            if kind == "tones":
                times = (position + np.arange(samples)) / 8000
                for row in range(3):
                    for hz in (941 + 4 * row, 1336):
                        pcm[row] += 5000 * np.sin(2 * np.pi * hz * times)
            codes = np.array([mu_law(each) for each in pcm])
            write(sink, codes, row=np.array([2, 0, 1]), position=position, lost=lost)
            position += samples
        columns = sink._columns
        state = {name: getattr(columns, name)[:3].tolist() for name in columns.fresh}
        return state, [sink.close(track(row), SUMMARY) for row in range(3)]

    if strep_kernel.load() is not None:
        assert outcome(compiled=True) == outcome(compiled=False)


def test_sink_is_found_by_name():
    assert isinstance(load("dtmf", {"minimum_ms": "50"}), DtmfSink)
