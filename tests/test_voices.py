from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pytest
import soundfile

from pipeline.codecs import PCMU
from strep.voices import SAMPLE_RATE_HZ, load_voice

VOICES = ("caller", "agent")


def level_dbfs(samples):
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples))))


def read(name):
    with as_file(files("strep.voices") / f"{name}.wav") as path:
        return soundfile.read(path)


def speaking(samples):
    """Tell for each 100 ms whether somebody speaks."""
    frames = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    return np.sqrt(np.mean(frames**2, axis=1)) > 0.01


@pytest.mark.parametrize("name", VOICES)
def test_voice_is_a_mono_mu_law_file_at_8_khz(name):
    with as_file(files("strep.voices") / f"{name}.wav") as path:
        info = soundfile.info(path)
    assert (info.format, info.subtype) == ("WAV", "ULAW")
    assert (info.samplerate, info.channels) == (8000, 1) == (SAMPLE_RATE_HZ, 1)
    assert 15 < info.duration < 25


@pytest.mark.parametrize("name", VOICES)
def test_codes_decode_to_what_the_file_holds(name):
    codes = load_voice(name)
    samples, _ = read(name)
    assert codes.dtype == np.uint8
    assert np.array_equal(PCMU.table[codes], samples * 32768)


@pytest.mark.parametrize("name", VOICES)
def test_voice_speaks_at_about_minus_20_dbfs(name):
    samples, _ = read(name)
    frames = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    assert -23 < level_dbfs(frames[speaking(samples)]) < -18
    assert np.abs(samples).max() < 0.99


def test_both_sides_have_one_length_and_take_turns_with_one_overlap():
    caller, agent = (speaking(read(name)[0]) for name in VOICES)
    assert len(caller) == len(agent)
    assert caller.mean() > 0.3
    assert agent.mean() > 0.3
    overlap = np.flatnonzero(caller & agent)
    assert len(overlap) >= 2
    assert overlap[-1] - overlap[0] < 10
