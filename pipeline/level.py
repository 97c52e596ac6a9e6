"""How loud frames are, and how loud the noise beneath them is, for all tracks at once.

Powers are relative to full scale: 1.0 (0 dBFS) is a square wave between the extremes, so a
full-scale sine has -3 dBFS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL_SCALE_POWER = 32768.0**2

_FIRST_FLOOR_DBFS = -45.0
"""What a line's noise is taken to be at most until half a window of it has been heard: speech
that a track begins with stands out from it at once, the noise of most lines does not."""

_SCRATCH_SAMPLES = 2**18
"""Samples converted at a time: 1 MiB stays in the cache, and no UDP payload is longer."""


class LevelMeter:
    """Measures frames; keeps nothing but scratch memory from one call to the next."""

    def __init__(self) -> None:
        self._scratch = np.empty(_SCRATCH_SAMPLES, np.float32)

    def measure(self, pcm: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (power, emphasised power) of frames `pcm` (n, samples), both (n,) float32.

        `samples` is at least 2. The emphasised power is that of the frame's first difference,
        scaled to unit gain at a quarter of the sample rate: it rises by 6 dB per octave below,
        so hum, rumble and an offset count for little. It is exact to -60 dB of the power.
        """
        frames, samples = pcm.shape
        energy = np.empty((frames, 1, 1), np.float32)
        lagged = np.empty((frames, 1, 1), np.float32)
        ends = np.empty(frames, np.float32)
        at_once = _SCRATCH_SAMPLES // samples
        for start in range(0, frames, at_once):
            part = slice(start, min(start + at_once, frames))
            count = part.stop - start
            x = self._scratch[: count * samples].reshape(count, samples)
            np.copyto(x, pcm[part])
            # one short dot product per frame: faster than einsum, and BLAS wakes no threads for it
            np.matmul(x[:, None, :], x[:, :, None], out=energy[part])
            np.matmul(x[:, None, 1:], x[:, :-1, None], out=lagged[part])
            np.add(x[:, 0] ** 2, x[:, -1] ** 2, out=ends[part])
        # the sum of (x[i+1] - x[i])**2, without forming the differences
        emphasised = 2 * (energy - lagged)[:, 0, 0] - ends
        emphasised *= np.float32(1 / (2 * (samples - 1) * FULL_SCALE_POWER))
        energy *= np.float32(1 / (samples * FULL_SCALE_POWER))
        return energy[:, 0, 0], emphasised


class NoiseFloor(RowState):
    """Follows the least power of each track over the last `window_ms / 2` to `window_ms`.

    Two minima are kept per row: of the half window that is running and of the one before. A
    pause between two words shows the noise itself, so the floor is right through speech of any
    length, and catches up with noise that grows within one window.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "lowest": (np.float32, 10 ** (_FIRST_FLOOR_DBFS / 10)),
        "lowest_before": (np.float32, 10 ** (_FIRST_FLOOR_DBFS / 10)),
        "renewal": (np.int64, 0),
    }
    lowest: NDArray[np.float32]
    lowest_before: NDArray[np.float32]
    renewal: NDArray[np.int64]
    """Position at which the running half window ends."""

    def __init__(self, window_ms: float) -> None:
        super().__init__()
        self.half_ms = window_ms / 2

    def update(
        self,
        rows: NDArray[np.intp],
        power: NDArray[np.float32],
        end: NDArray[np.int64],
        sample_rate_hz: int,
    ) -> NDArray[np.float32]:
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
