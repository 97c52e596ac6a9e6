"""What a frame's sound is like: its power, the power of its telephone band, whether it is voiced.

All of it for all tracks at once, and exact: sums of products of samples are whole numbers below
2**53, so they come out the same in whatever order they are added, here and in the compiled kernel.
Powers are relative to full scale: 1.0 (0 dBFS) is a square wave between the extremes, so a
full-scale sine has -3 dBFS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.rows import RowState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FULL_SCALE_POWER = 32768.0**2
RATE_HZ = 8000
"""What frames of other rates are brought to, or near, before they are measured."""
LEAST_SAMPLES = 4
"""A frame of fewer has no band power."""

_BAND_GAIN = 256 / 27
"""Greatest power gain of the band's filter, at 2.43 kHz."""
_FIRST_FLOOR_DBFS = -50.0
"""What a line's noise is taken to be at most until half a window of it has been heard: speech
that a track begins with stands out from it at once, the noise of most lines does not."""

_THINNED = 4
"""Pitch is looked for in every fourth sum of four samples, at 2 kHz."""
_LEAST_LAG, _MOST_LAG = 5, 20
"""Its periods at that rate: 400 to 100 Hz."""
_MOST_THINNED = 120
"""No more than so much of a frame (60 ms) is searched."""
_VOICING_NOISE = 144.0
"""Of a sum of four samples: what has less power than this is not voiced, however regular."""

_ROWS_AT_ONCE = 256
"""Frames measured at a time: their samples stay in the cache."""


def measure(pcm: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (energy, band power) of frames `pcm` (n, samples) at 8 kHz, both (n,) float64.

    `samples` is at least 4. The energy is the sum of the squares of the samples. The band power is
    that in the middle of the telephone band: of x[i] - x[i-1] - x[i-2] + x[i-3], scaled to unit
    gain at 2.4 kHz. It rises by 12 dB per octave below 1 kHz and falls towards 4 kHz, so hum,
    rumble, an offset and the noise of a codec count for little.
    """
    energy, power = np.empty((2, len(pcm)))
    for part, x in _parts(pcm):
        energy[part] = np.einsum("ij,ij->i", x, x)
        band = x[:, 3:] - x[:, 2:-1] - x[:, 1:-2] + x[:, :-3]
        power[part] = np.einsum("ij,ij->i", band, band)
    power *= band_scale(pcm.shape[1])
    return energy, power


def band_scale(samples: int) -> float:
    """Return what makes a band power of the sum over a frame of so many samples."""
    return 1 / ((samples - 3) * _BAND_GAIN * FULL_SCALE_POWER)


def voicing(pcm: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return how periodic frames (n, samples) at 8 kHz are at the pitch of voices, 0 to 1: (n,).

    That is the greatest normalised autocorrelation, of at most the first 60 ms of a frame; 0 where
    a frame is shorter than two periods of the highest pitch.
    """
    best = np.zeros(len(pcm))
    count = min(pcm.shape[1] // _THINNED, _MOST_THINNED)
    length = count - 1
    for part, x in _parts(pcm[:, : count * _THINNED]):
        thinned = x.reshape(len(x), count, _THINNED).sum(axis=2)
        # differences: beside hum, which they weaken, a pitch is still found
        steps = np.diff(thinned, axis=1)
        squares = np.cumsum(steps * steps, axis=1)
        for lag in range(_LEAST_LAG, min(_MOST_LAG, length // 2) + 1):
            together = np.einsum("ij,ij->i", steps[:, lag:], steps[:, :-lag])
            power = 0.5 * (squares[:, -1] - squares[:, lag - 1] + squares[:, length - 1 - lag])
            alike = together / (power + _VOICING_NOISE * count)
            best[part] = np.maximum(best[part], alike)
    return best


def _parts(pcm: NDArray[np.int16]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for start in range(0, len(pcm), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield part, pcm[part].astype(np.float64)


def narrow(pcm: NDArray[np.int16], sample_rate_hz: int) -> NDArray[np.int16]:
    """Bring frames (n, samples) to about 8 kHz, by means of as many samples as that takes."""
    if sample_rate_hz < 1.5 * RATE_HZ:
        return pcm
    times = round(sample_rate_hz / RATE_HZ)
    count = pcm.shape[1] // times
    sums = pcm[:, : count * times].reshape(len(pcm), count, times).sum(axis=2, dtype=np.int32)
    narrowed: NDArray[np.int16] = (sums // times).astype(np.int16)
    return narrowed


class NoiseFloor(RowState):
    """Follows the least power of each track over the last `window_ms / 2` to `window_ms`.

    Two minima are kept per row: of the half window that is running and of the one before. A
    pause between two words shows the noise itself, so the floor is right through speech of any
    length, and catches up with noise that grows within one window.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "lowest": (np.float64, 10 ** (_FIRST_FLOOR_DBFS / 10)),
        "lowest_before": (np.float64, 10 ** (_FIRST_FLOOR_DBFS / 10)),
        "renewal": (np.int64, 0),
    }
    lowest: NDArray[np.float64]
    lowest_before: NDArray[np.float64]
    renewal: NDArray[np.int64]
    """Position at which the running half window ends."""

    def __init__(self, window_ms: float) -> None:
        super().__init__()
        self.half_ms = window_ms / 2

    def update(
        self,
        rows: NDArray[np.intp],
        power: NDArray[np.float64],
        end: NDArray[np.int64],
        sample_rate_hz: int,
    ) -> NDArray[np.float64]:
        """Take one frame's power per row, ending at position `end`; return the floors (n,)."""
        lowest = np.minimum(self.lowest.take(rows), power)
        floor = np.minimum(lowest, self.lowest_before.take(rows))
        self.lowest[rows] = lowest
        over = (self.renewal.take(rows) <= end).nonzero()[0]
        if len(over):
            row = rows[over]
            self.lowest_before[row] = lowest[over]
            self.lowest[row] = np.inf
            self.renewal[row] = end[over] + round(self.half_ms * sample_rate_hz / 1000)
        return floor
