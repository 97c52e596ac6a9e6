"""Two voices that ship with the package: the two sides of one call, as mu-law codes."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8000


def load_voice(name: Literal["caller", "agent"]) -> NDArray[np.uint8]:
    """Return one side of the call: uint8 (samples,), mu-law codes at 8 kHz, read-only.

    Both sides begin at the same moment and have the same length; one is silent while the other
    speaks.
    """
    wav = files(__name__).joinpath(f"{name}.wav").read_bytes()
    # The standard library reads no mu-law WAV, and a decoder would lose the codes: walk the chunks.
    start = len("RIFF____WAVE")
    while True:
        size = int.from_bytes(wav[start + 4 : start + 8], "little")
        if wav[start : start + 4] == b"data":
            return np.frombuffer(wav, np.uint8, count=size, offset=start + 8)
        start += 8 + size + size % 2
