"""Filler for lost packets and described pauses: where it stands, and how it sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from packetmaker import P, columns
from trackmaker import track

import strep
from pipeline import conceal
from pipeline.codecs import PCMA, PCMU
from pipeline.comfort import noise
from pipeline.dispatch import Dispatcher
from pipeline.encode import encode
from pipeline.pipeline import Pipeline
from pipeline.sinks.base import Sink
from pipeline.sinks.vad import VadSink
from pipeline.sinks.wav import WavSink

pytestmark = pytest.mark.usefixtures("kernel")

FRAME = 160
VOICES = Path(strep.__file__).parent / "voices"


class Listener(Sink):
    """Keeps (origin, position, gap, lost, samples) of each frame by row, and all audio."""

    threaded = False

    def __init__(self):
        self.frames = {}
        self.audio = {}

    def write(self, block):
        for i, row in enumerate(block.rows.tolist()):
            start, stop = int(block.position[i]), int(block.position[i]) + block.samples
            told = (block.origin, start, int(block.gap_samples[i]), int(block.lost[i]))
            self.frames.setdefault(row, []).append((*told, block.samples))
            heard = self.audio.setdefault(row, np.zeros(0, np.int16))
            heard = np.pad(heard, (0, max(0, stop - len(heard))))
            heard[start:stop] = block.pcm[i]
            self.audio[row] = heard

    def filler(self, row=0):
        return [frame for frame in self.frames[row] if frame[0] != "received"]


def heard(packets, *, rows=(0,), sinks=None, **options):
    """Return a listener that heard packets, each row's beginning with sequence number 0."""
    listener = Listener()
    dispatcher = Dispatcher({"listener": listener, **(sinks or {})})
    dispatcher.start()
    pipeline = Pipeline(dispatcher, **options)
    for row in rows:
        pipeline.open(track(row), sequence=0)
    pipeline.push(columns(packets))
    summaries = {}
    for row in rows:
        summaries[row] = pipeline.summary(row, "end")
        pipeline.close(row, "end")
    dispatcher.stop()
    listener.summaries = summaries
    return listener


def call(codes, *, row=0, without=(), payload_type=0, samples=FRAME):
    """Return packets of audio, 20 ms each, without some of them."""
    return [
        P(
            row=row,
            sequence=k,
            timestamp=k * samples,
            arrival_ms=k * samples / 8,
            payload_type=payload_type,
            payload=codes[k * samples : (k + 1) * samples].tobytes(),
        )
        for k in range(len(codes) // samples)
        if k not in without
    ]


def sine(hz=200.0, seconds=1.0, amplitude=8000):
    return np.rint(amplitude * np.sin(2 * np.pi * hz * np.arange(8000 * seconds) / 8000)).astype(
        np.int16
    )


def speech(name):
    samples, rate_hz = soundfile.read(VOICES / f"{name}.wav", dtype="int16")
    assert rate_hz == 8000
    return samples[: 8 * 8000]


@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_codes_are_encoded_to_what_they_were(codec):
    codes = np.arange(256, dtype=np.uint8)[None, :]
    again = encode(codec, codec.table[codes])
    assert codec.table[again].tolist() == codec.table[codes].tolist()
    assert again.flags.c_contiguous


@pytest.mark.parametrize("concealment", ["repeat", "g711"])
def test_filler_stands_where_the_lost_packets_would(concealment):
    codes = encode(PCMU, sine())
    packets = call(codes, without=(10, 20, 21, *range(30, 36)))
    listener = heard(packets, concealment=concealment)
    assert listener.filler() == [
        ("concealed", 1600, 0, 0, 160),
        ("concealed", 3200, 0, 0, 320),
        ("concealed", 4800, 0, 0, 480),
    ]
    behind = [frame for frame in listener.frames[0] if frame[3]]
    assert behind == [
        ("received", 1760, 0, 1, 160),
        ("received", 3520, 0, 2, 160),
        # 60 ms of six packets are filled, the rest is silence
        ("received", 5760, 480, 6, 160),
    ]
    summary = listener.summaries[0]
    assert (summary.lost, summary.silence_samples) == (9, 1440)
    assert (summary.concealed_samples, summary.comfort_noise_samples) == (960, 0)
    assert summary.concealed == ((1600, 160), (3200, 320), (4800, 480))


def test_nothing_is_filled_unless_asked_for():
    codes = encode(PCMU, sine())
    packets = call(codes, without=(10,))
    packets.insert(20, P(sequence=20, payload_type=13, payload=b"\x20", arrival_ms=400))
    listener = heard(packets)
    assert listener.filler() == []


@pytest.mark.parametrize("concealment", ["repeat", "g711"])
def test_pauses_are_not_taken_for_losses(concealment):
    codes = encode(PCMU, sine())
    packets = call(codes)
    late = [P(sequence=50, timestamp=16_000, arrival_ms=2000, payload=codes[:160].tobytes())]
    # the packet before the pause is lost, too
    late += [P(sequence=52, timestamp=32_000, arrival_ms=4000, payload=codes[:160].tobytes())]
    listener = heard(packets + late, concealment=concealment)
    assert listener.filler() == [("concealed", 16_160, 0, 0, 160)]
    assert listener.frames[0][-1] == ("received", 32_000, 15_680, 1, 160)


def test_received_samples_stay_as_they_are():
    codes = np.random.default_rng(5).integers(0, 256, 8000).astype(np.uint8)
    without = (3, 4, 17, 30, 31, 32, 33)
    plain = heard(call(codes, without=without)).audio[0]
    filled = heard(call(codes, without=without), concealment="g711").audio[0]
    for k in set(range(50)) - set(without):
        part = slice(k * FRAME, (k + 1) * FRAME)
        assert (filled[part] == plain[part]).all()
        assert (plain[part] == PCMU.table[codes[part]]).all()


def error(heard, wanted, without):
    holes = np.concatenate([np.arange(k * FRAME, (k + 1) * FRAME) for k in without])
    return float(np.mean((heard[holes].astype(float) - wanted[holes]) ** 2))


@pytest.mark.parametrize("hz", [70, 100, 133, 200, 310])
def test_concealed_tone_goes_on(hz):
    wanted = sine(hz)
    without = (10, 20, 30, 40)
    packets = call(encode(PCMU, wanted), without=without)
    power = error(np.zeros_like(wanted), wanted, without)
    made = heard(packets, concealment="g711").audio[0]
    # the period is known to a sample: a small part of what silence leaves out
    assert error(made, wanted, without) < 0.12 * power


@pytest.mark.parametrize("voice", ["caller", "agent"])
def test_concealed_speech_sounds_nearer_to_what_was_said_than_silence(voice):
    wanted = speech(voice)
    frames = wanted[: len(wanted) // FRAME * FRAME].reshape(-1, FRAME).astype(float)
    loud = np.flatnonzero(np.abs(frames).mean(axis=1) > 500)
    without = loud[loud > 2][::7]
    packets = call(encode(PCMU, wanted), without=set(without.tolist()))

    def spectra(frames):
        return 20 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(FRAME), axis=1)) + 30)

    distance_db = {}
    for way in ("silence", "repeat", "g711"):
        made = heard(packets, concealment=way).audio[0].reshape(-1, FRAME)
        apart = spectra(made[without]) - spectra(frames[without])
        distance_db[way] = np.sqrt((apart**2).mean(axis=1)).mean()
    assert distance_db["silence"] > 35
    assert distance_db["repeat"] < 14
    assert distance_db["g711"] < 12


def test_concealment_begins_and_ends_without_a_step():
    wanted = sine(131)
    made = heard(call(encode(PCMU, wanted), without=(10,)), concealment="g711").audio[0]
    steepest = np.abs(np.diff(wanted.astype(int))).max()
    assert np.abs(np.diff(made[1500:1900].astype(int))).max() < 1.6 * steepest


@pytest.mark.parametrize("concealment", ["repeat", "g711"])
def test_filler_fades_to_silence_by_60_ms(concealment):
    wanted = sine(200)
    made = heard(call(encode(PCMU, wanted), without=range(10, 20)), concealment=concealment)
    loudness = [
        float(np.abs(made.audio[0][1600 + 80 * k : 1680 + 80 * k]).mean()) for k in range(7)
    ]
    assert loudness[0] > 4000
    assert sorted(loudness, reverse=True) == loudness
    assert loudness[5] < 0.15 * loudness[0]
    assert loudness[6] == 0


def test_second_loss_is_concealed_from_what_was_heard_between():
    wanted = np.concatenate((sine(200, 0.2), sine(160, 0.8)))
    without = (8, 9, 11, 12, 14)
    packets = call(encode(PCMU, wanted), without=without)
    made = heard(packets, concealment="g711").audio[0]
    assert error(made, wanted, (14,)) < 0.3 * error(0 * wanted, wanted, (14,))


def test_tracks_with_holes_of_any_length_are_filled_at_once_as_one_by_one():
    wanted = [sine(hz) for hz in (90, 120, 150, 180, 210)]
    without = [(10,), (10, 11), (10,), (9, 10), range(5, 11)]
    packets = [
        call(encode(PCMA, samples), row=row, without=holes, payload_type=8)
        for row, (samples, holes) in enumerate(zip(wanted, without, strict=True))
    ]
    together = heard(
        sorted((p for each in packets for p in each), key=lambda p: p.arrival_ms),
        rows=range(5),
        concealment="g711",
    )
    for row in range(5):
        alone = heard(packets[row], rows=[row], concealment="g711")
        assert alone.filler(row) == together.filler(row)
        assert alone.audio[row].tolist() == together.audio[row].tolist()


@pytest.mark.parametrize("samples", [80, 160, 240, 480])
@pytest.mark.parametrize("concealment", ["repeat", "g711"])
def test_frames_of_any_length_are_replaced(concealment, samples):
    codes = encode(PCMU, sine(200))
    without = (5, 9)
    listener = heard(call(codes, without=without, samples=samples), concealment=concealment)
    expected = [("concealed", k * samples, 0, 0, samples) for k in without]
    assert listener.filler() == expected


def test_loss_before_anything_was_heard_is_replaced_by_silence():
    listener = heard(
        [P(sequence=0, payload=b""), *call(encode(PCMU, sine()), without=(0, 1))],
        concealment="g711",
    )
    assert listener.frames[0][0] == ("received", 0, 0, 1, 160)


def test_pitch_is_found():
    at = np.arange(conceal.HISTORY_SAMPLES)
    tones = np.array([8000 * np.sin(2 * np.pi * at / lag) for lag in (42, 65, 80, 119)])
    filler = conceal.g711_appendix_i(tones.astype(np.int16), None, 80)
    for lag, made in zip((42, 65, 80, 119), filler, strict=True):
        wanted = 8000 * np.sin(2 * np.pi * (conceal.HISTORY_SAMPLES + np.arange(80)) / lag)
        assert np.abs(made - wanted).max() < 500


# -- comfort noise


def pause(*descriptions, pause_frames=100):
    """Ten frames of a tone, comfort noise described by (frame, payload), and ten frames more."""
    codes = encode(PCMU, sine(200, 0.4))
    before = call(codes[:1600])
    described = [
        P(sequence=10 + i, timestamp=k * 160, arrival_ms=20 * k, payload_type=13, payload=payload)
        for i, (k, payload) in enumerate(descriptions)
    ]
    behind = [
        P(
            sequence=10 + len(descriptions) + i,
            timestamp=(10 + pause_frames + i) * 160,
            arrival_ms=20 * (10 + pause_frames + i),
            payload=codes[1600 + 160 * i : 1760 + 160 * i].tobytes(),
        )
        for i in range(10)
    ]
    return before + described + behind


def level_dbov(samples):
    return 20 * np.log10(np.sqrt(np.mean(samples.astype(float) ** 2)) / 32124)


@pytest.mark.parametrize("level", [20, 35, 50])
def test_noise_has_the_level_that_was_signalled(level):
    listener = heard(pause((10, bytes([level]))), comfort_noise="noise")
    made = listener.audio[0][1600 : 1600 + 16_000]
    assert level_dbov(made) == pytest.approx(-level, abs=0.7)
    assert len(set(made.tolist())) > 5
    assert listener.filler()[0][:2] == ("comfort_noise", 1600)
    assert sum(frame[4] for frame in listener.filler()) == 16_000
    assert [f for f in listener.frames[0] if f[0] == "received"][10] == (
        "received", 17_600, 0, 0, 160,
    )  # fmt: skip
    summary = listener.summaries[0]
    assert (summary.comfort_noise_samples, summary.silence_samples) == (16_000, 16_000)
    assert (summary.lost, summary.unknown_payload, summary.timestamp_gaps) == (0, 0, 1)


def test_later_packets_change_the_noise():
    packets = pause((10, b"\x20"), (40, b"\x32"), (70, b"\x7f"), (75, b""))
    made = heard(packets, comfort_noise="noise").audio[0]
    assert level_dbov(made[1600:6400]) == pytest.approx(-32, abs=0.7)
    assert level_dbov(made[6400:11_200]) == pytest.approx(-50, abs=1)
    assert np.abs(made[11_200:17_600]).max() <= 8


def test_pause_before_the_description_and_losses_stay_what_they_are():
    listener = heard(pause((60, b"\x28")), comfort_noise="noise", concealment="g711")
    assert not listener.audio[0][1600:9600].any()
    assert listener.filler()[0][:2] == ("comfort_noise", 9600)
    packets = [p for p in pause((10, b"\x28"), (11, b"\x28")) if p.sequence != 10]
    listener = heard(packets, comfort_noise="noise", concealment="g711")
    assert [frame[:2] for frame in listener.filler()[:2]] == [
        ("concealed", 1600),
        ("comfort_noise", 1760),
    ]


def test_noise_has_the_colour_that_was_signalled():
    # one reflection coefficient of -0.9 makes a low-pass: 1 / (1 - 0.9 / z)
    dark = noise(bytes([30, 127 - 114]))
    bright = noise(bytes([30, 127 + 114]))
    assert level_dbov(dark) == pytest.approx(-30, abs=0.1)
    for samples, sign in ((dark, 1), (bright, -1)):
        x = samples.astype(float)
        assert np.mean(x[1:] * x[:-1]) / np.mean(x**2) == pytest.approx(0.9 * sign, abs=0.03)
    # whatever the octets: a stable filter, and no overflow
    for first in (0, 255):
        assert np.abs(noise(bytes([0, *[first] * 40])).astype(int)).max() > 1000


def test_described_noise_before_any_audio_and_without_an_end_does_no_harm():
    cn = P(sequence=0, payload_type=13, payload=b"\x28")
    listener = heard([cn, *call(encode(PCMU, sine()))[1:]], comfort_noise="noise")
    assert listener.filler() == []
    assert heard(pause((10, b"\x28"))[:11], comfort_noise="noise").filler() == []


def test_filler_is_recorded_and_nobody_speaks_in_it(tmp_path):
    vad = VadSink(stop_ms=200)
    sinks = {"vad": vad, "wav": WavSink(directory=tmp_path)}
    listener = heard(pause((10, b"\x0a")), sinks=sinks, comfort_noise="noise", concealment="g711")
    (path,) = tmp_path.glob("*.wav")
    recorded, _ = soundfile.read(path, dtype="int16")
    assert recorded[:, 0].tolist() == listener.audio[0].tolist()
    assert level_dbov(recorded[1600:17_600, 0]) == pytest.approx(-10, abs=1)
