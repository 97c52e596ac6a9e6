"""Power of frames, and the noise floor beneath it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.level import LevelMeter, NoiseFloor


def decibels(ratio):
    return 10 * np.log10(ratio)


def sine(frequency_hz, amplitude=32767, samples=800):
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / 8000)
    return np.round(wave).astype(np.int16)[None]


def measure(pcm):
    power, emphasised = LevelMeter().measure(pcm)
    return decibels(power[0]), decibels(emphasised[0])


def test_full_scale_square_wave_has_0_dbfs():
    wave = np.tile(np.int16([32767, -32767]), 80)[None]
    assert measure(wave)[0] == pytest.approx(0, abs=0.001)


def test_full_scale_sine_has_minus_3_dbfs():
    assert measure(sine(1000))[0] == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize(
    ("frequency_hz", "gain_db"), [(50, -31.1), (500, -11.2), (1000, -5.3), (2000, 0.0)]
)
def test_emphasis_rises_by_6_db_per_octave_to_unit_gain_at_a_quarter_of_the_rate(
    frequency_hz, gain_db
):
    power, emphasised = measure(sine(frequency_hz))
    assert emphasised - power == pytest.approx(gain_db, abs=0.1)


def test_silence_has_no_power():
    power, emphasised = LevelMeter().measure(np.zeros((2, 160), np.int16))
    assert power.tolist() == [0, 0]
    assert emphasised.tolist() == [0, 0]


def test_an_offset_has_no_emphasised_power():
    _, emphasised = LevelMeter().measure(np.full((1, 160), 1000, np.int16))
    assert abs(emphasised[0]) < 1e-9


@given(arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(2, 480))))
def test_powers_are_those_of_samples_and_of_their_differences(pcm):
    power, emphasised = LevelMeter().measure(pcm)
    x = pcm.astype(np.float64) / 32768
    expected = (x**2).mean(axis=1)
    assert power == pytest.approx(expected, rel=1e-5)
    error = emphasised - (np.diff(x) ** 2).mean(axis=1) / 2
    assert np.all(np.abs(error) <= 10**-6.0 * expected)


def test_many_frames_are_measured_like_single_ones():
    pcm = np.random.default_rng(7).integers(-32768, 32767, (2000, 160)).astype(np.int16)
    meter = LevelMeter()
    power, emphasised = meter.measure(pcm)
    single = [meter.measure(frame[None]) for frame in pcm]
    assert power.tolist() == [one[0][0] for one in single]
    assert emphasised.tolist() == [one[1][0] for one in single]


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
                np.array([self.row]), np.float32([power]), np.array([self.end]), 8000
            ).tolist()
        return floors


def test_first_frame_is_the_floor():
    assert Line().hear(2**-20) == [2**-20]


def test_floor_of_a_track_that_begins_loud_is_minus_45_dbfs():
    assert decibels(Line().hear(0.5)) == pytest.approx([-45])


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
