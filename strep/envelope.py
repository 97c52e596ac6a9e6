"""The outline of a recording: the extremes and the power of each column of its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CHUNK_SAMPLES = 2**20
"""Read at once, at most."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A recording in columns of equal length (but for the last one)."""

    low: NDArray[np.float32]
    """(columns, channels) lowest sample, -1 to 1."""
    high: NDArray[np.float32]
    """(columns, channels) highest sample."""
    rms: NDArray[np.float32]
    """(columns, channels) root mean square of the samples."""
    column_s: float
    """Seconds of a column."""
    duration_s: float


def envelope(path: Path, columns: int, *, least_s: float = 0.0) -> Envelope:
    """Return the outline of a recording in at most so many columns, none shorter than `least_s`.

    It is read piece by piece, never held as a whole. Raises OSError and
    `soundfile.LibsndfileError`.
    """
    with soundfile.SoundFile(path) as recording:
        rate_hz, frames = recording.samplerate, len(recording)
        samples = max(1, -(-frames // columns), round(least_s * rate_hz))
        pieces = [
            _outline(chunk, samples)
            for chunk in recording.blocks(
                max(1, CHUNK_SAMPLES // samples) * samples, dtype="float32", always_2d=True
            )
        ]
        empty: NDArray[Any] = np.zeros((3, 0, recording.channels), np.float32)
        low, high, power = np.concatenate([empty, *pieces], axis=1)
    return Envelope(low, high, np.sqrt(power), samples / rate_hz, frames / rate_hz)


def _outline(chunk: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Return lowest, highest and mean power of each column, (3, columns, channels)."""
    whole = len(chunk) // samples
    parts = [chunk[: whole * samples].reshape(whole, samples, -1)]
    if len(chunk) % samples:
        parts.append(chunk[whole * samples :][np.newaxis])
    # (columns, channels, samples): a column's samples side by side are gone through much faster
    parts = [np.ascontiguousarray(part.swapaxes(1, 2)) for part in parts]
    return np.concatenate(
        [np.stack([each.min(axis=2), each.max(axis=2), (each**2).mean(axis=2)]) for each in parts],
        axis=1,
    )
