"""Linear samples to a codec's own payload: for audio that is made here, or put into another law."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.codecs import Codec

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

_ENCODERS = {"PCMU": audioop.lin2ulaw, "PCMA": audioop.lin2alaw}


def encode(codec: Codec, pcm: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return samples (..., samples) as payloads of a codec, (..., bytes) uint8, C-contiguous.

    G.711 codes (ITU-T G.711) where the codec has them, else the samples as little-endian int16.
    """
    if codec.name not in _ENCODERS:
        return np.ascontiguousarray(pcm, "<i2").view(np.uint8)
    return _codes(codec.name).take(pcm.view(np.uint16))


@lru_cache
def _codes(name: str) -> NDArray[np.uint8]:
    """Return the code of every sample, by the sample as uint16."""
    samples = np.arange(65_536, dtype=np.uint16).view(np.int16)
    return np.frombuffer(_ENCODERS[name](samples.tobytes(), 2), np.uint8)
