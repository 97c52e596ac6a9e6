"""Comfort noise of RFC 3389: noise of the level and colour that a sender describes.

A packet of payload type 13 holds the level in -dBov (section 3.1: 0 dBov is a square wave at the
overload point of G.711, 32124 in 16-bit samples) and, where the sender wants, quantised reflection
coefficients of an all-pole model (section 3.2):

     0                1               2
    |0|   level      |     N1        |     N2        | ...      k_i = 258 (N_i - 127) / 32768

The noise is made once for each description, as a second that leads back into itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMFORT_NOISE = 13
"""The payload type (RFC 3551 table 4)."""
PERIOD_SAMPLES = 8192
MAX_ORDER = 12
"""Reflection coefficients beyond are taken for 0, as section 3 allows."""
_FULL_SCALE = 32124


@lru_cache(maxsize=64)
def noise(description: bytes) -> NDArray[np.int16]:
    """Return (8192,) int16 of noise, read-only, whose end leads back to its beginning.

    `description` is the payload of a packet of comfort noise; an empty one is silence.
    """
    samples = np.zeros(PERIOD_SAMPLES, np.int16)
    if description:
        spectrum = np.fft.rfft(np.random.default_rng(3389).standard_normal(PERIOD_SAMPLES))
        spectrum /= np.fft.rfft(_predictor(description[1 : MAX_ORDER + 1]), PERIOD_SAMPLES)
        coloured = np.fft.irfft(spectrum)
        level = _FULL_SCALE * 10 ** (-(description[0] & 0x7F) / 20)
        coloured *= level / np.sqrt(np.mean(coloured**2))
        samples = np.clip(np.rint(coloured), -32768, 32767).astype(np.int16)
    samples.flags.writeable = False
    return samples


def stretch(description: bytes, position: int, samples: int) -> NDArray[np.int16]:
    """Return so many samples of noise from a position of a track on, (samples,) int16."""
    return noise(description).take(np.arange(position, position + samples), mode="wrap")


def _predictor(coefficients: bytes) -> NDArray[np.float64]:
    """Return the polynomial A(z), ascending, of the all-pole model 1 / A(z)."""
    polynomial = np.ones(1)
    for number in coefficients:
        # 255 is not used; were it, the filter would not be stable
        k = 258 * (min(number, 254) - 127) / 32768
        longer = np.append(polynomial, 0)
        polynomial = longer + k * longer[::-1]
    return polynomial
