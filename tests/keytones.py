"""Key presses as tones, for tests."""

from __future__ import annotations

import numpy as np

from pipeline.codecs import audioop

RATE_HZ = 8000
ROWS = ("123A", "456B", "789C", "*0#D")
TONES_HZ = {
    key: (low, high)
    for keys, low in zip(ROWS, (697, 770, 852, 941), strict=True)
    for key, high in zip(keys, (1209, 1336, 1477, 1633), strict=True)
}
KEYS = "".join(ROWS)


def amplitude(level_dbm0):
    """Of a sine: one of the greatest code of mu-law has 3.17 dBm0."""
    return 32124 * 10 ** ((level_dbm0 - 3.17) / 20)


def tone(
    key,
    milliseconds=50.0,
    *,
    level_dbm0=-10.0,
    twist_db=0.0,
    low_off=0.0,
    high_off=0.0,
    rate_hz=RATE_HZ,
    phase=(0.3, 1.1),
):
    """Return the two tones of a key as float samples.

    `level_dbm0` is that of the stronger one; a positive twist is that of the high one. `low_off`
    and `high_off` are what the frequencies are off by, as a part of them.
    """
    time_s = np.arange(round(milliseconds * rate_hz / 1000)) / rate_hz
    low, high = TONES_HZ[key]
    return amplitude(level_dbm0 - max(twist_db, 0)) * np.sin(
        2 * np.pi * low * (1 + low_off) * time_s + phase[0]
    ) + amplitude(level_dbm0 + min(twist_db, 0)) * np.sin(
        2 * np.pi * high * (1 + high_off) * time_s + phase[1]
    )


def silence(milliseconds, rate_hz=RATE_HZ):
    return np.zeros(round(milliseconds * rate_hz / 1000))


def noisy(samples, snr_db, power, seed=1):
    """Add white noise so far below a power."""
    sigma = np.sqrt(power / 10 ** (snr_db / 10))
    return samples + np.random.default_rng(seed).normal(0, sigma, len(samples))


def pcm16(samples):
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16)


def mu_law(samples):
    return np.frombuffer(audioop.lin2ulaw(pcm16(samples).tobytes(), 2), np.uint8)


def a_law(samples):
    return np.frombuffer(audioop.lin2alaw(pcm16(samples).tobytes(), 2), np.uint8)
