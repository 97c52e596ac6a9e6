"""Power of frames, and the noise floor beneath it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.level import NoiseFloor, measure, narrow, voicing


def decibels(ratio):
    return 10 * np.log10(ratio)


def sine(frequency_hz, amplitude=32767, samples=800, rate_hz=8000):
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / rate_hz)
    return np.round(wave).astype(np.int16)[None]


def test_energy_is_the_sum_of_squares():
    assert measure(np.int16([[1, -2, 3, -4], [-32768] * 4]))[0].tolist() == [30.0, 4 * 2.0**30]


@pytest.mark.parametrize(
    ("frequency_hz", "gain_db"),
    [(50, -60.2), (250, -32.3), (500, -20.4), (1000, -9.2), (2432, 0.0), (3500, -6.2)],
)
def test_band_is_the_middle_of_what_a_telephone_carries(frequency_hz, gain_db):
    _, power = measure(sine(frequency_hz))
    assert decibels(power[0]) + 3.01 == pytest.approx(gain_db, abs=0.3)


def test_silence_and_an_offset_have_no_band_power():
    pcm = np.stack([np.zeros(160, np.int16), np.full(160, 1000, np.int16)])
    assert measure(pcm)[1].tolist() == [0, 0]


@given(arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(4, 480))))
def test_powers_are_exact(pcm):
    energy, power = measure(pcm)
    x = pcm.astype(object)
    band = x[:, 3:] - x[:, 2:-1] - x[:, 1:-2] + x[:, :-3]
    assert energy.tolist() == (x * x).sum(axis=1).tolist()
    samples = (band * band).sum(axis=1).astype(float) / band.shape[1]
    assert power == pytest.approx(samples / (256 / 27) / 32768**2, rel=1e-12)


def test_many_frames_are_measured_like_single_ones():
    pcm = np.random.default_rng(7).integers(-32768, 32767, (600, 160)).astype(np.int16)
    for what in (lambda some: measure(some)[0], lambda some: measure(some)[1], voicing):
        assert what(pcm).tolist() == [what(frame[None])[0] for frame in pcm]


def pulses(pitch_hz, samples=160):
    """Return what a throat makes: a short decaying sound for each opening."""
    time_s = np.arange(samples) / 8000 % (1 / pitch_hz)
    wave = 8000 * np.exp(-time_s * 400) * np.sin(2 * np.pi * 600 * time_s)
    return np.round(wave).astype(np.int16)[None]


@pytest.mark.parametrize("pitch_hz", [110, 150, 200, 250, 400])
def test_sound_with_the_pitch_of_a_voice_is_voiced(pitch_hz):
    assert voicing(pulses(pitch_hz))[0] > 0.75


def test_noise_and_silence_are_not_voiced():
    noise = np.random.default_rng(3).normal(0, 3000, (200, 160)).astype(np.int16)
    assert np.quantile(voicing(noise), 0.9) < 0.55
    assert voicing(np.zeros((1, 160), np.int16)).tolist() == [0]
    # the codec's least step, however regular
    least = np.int16([np.arange(160) % 40 == 0]) * np.int16(8)
    assert voicing(least)[0] < 0.1


def test_frame_shorter_than_two_periods_is_not_voiced():
    assert voicing(np.full((2, 40), 5000, np.int16)).tolist() == [0, 0]


def test_only_the_beginning_of_a_long_frame_is_searched_for_pitch():
    frame = np.concatenate([pulses(200, 480)[0], np.zeros(4000, np.int16)])[None]
    assert voicing(frame)[0] == voicing(frame[:, :480])[0] > 0.75


@pytest.mark.parametrize(("rate_hz", "times"), [(8000, 1), (16_000, 2), (44_100, 6), (48_000, 6)])
def test_wider_audio_is_narrowed_to_about_8_khz(rate_hz, times):
    pcm = sine(300, samples=rate_hz // 10, rate_hz=rate_hz)
    narrowed = narrow(pcm, rate_hz)
    assert narrowed.shape == (1, rate_hz // 10 // times)
    assert narrowed.dtype == np.int16
    assert np.abs(narrowed).max() == pytest.approx(32767, rel=0.02)
    assert narrow(np.full((1, 12), -32768, np.int16), rate_hz).min() == -32768


class Line:
    """A noise floor with a window of 1 s, fed with one track's powers, 100 ms each."""

    def __init__(self, row=0):
        self.floor = NoiseFloor(1000)
        self.floor.ensure(row + 1)
        self.row = row
        self.end = 0

    def hear(self, *powers):
        floors = []
        for power in powers:
            self.end += 800
            floors += self.floor.update(
                np.array([self.row]), np.array([power]), np.array([self.end]), 8000
            ).tolist()
        return floors


def test_first_frame_is_the_floor():
    assert Line().hear(2**-20) == [2**-20]


def test_floor_of_a_track_that_begins_loud_is_minus_50_dbfs():
    assert decibels(Line().hear(0.5)) == pytest.approx([-50])


def test_floor_falls_at_once_and_holds_through_louder_frames():
    assert Line().hear(2**-20, 2**-22, 2**-15, 2**-10) == [2**-20, 2**-22, 2**-22, 2**-22]


def test_floor_rises_when_a_window_has_passed_without_anything_quieter():
    line = Line()
    line.hear(2**-25)
    floors = line.hear(*[2**-20] * 12)
    assert floors[:5] == [2**-25] * 5
    assert floors[10:] == [2**-20] * 2


def test_a_pause_in_every_half_window_keeps_the_floor():
    line = Line()
    speech = [2**-25, 2**-10, 2**-8, 2**-9, 2**-10]
    assert line.hear(*speech * 20) == [2**-25] * 100


def test_renewed_row_has_forgotten_its_floor():
    line = Line(row=100)
    line.hear(2**-30)
    line.floor.renew(100)
    line.end = 0
    assert line.hear(2**-20) == [2**-20]
