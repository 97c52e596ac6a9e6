"""Codecs of blocks, and G.711 by table.

The static payload types and their clocks are those of RFC 3551 section 6. G.711 is decoded for
all due frames at once through tables that are made at import from the standard library's audioop
(audioop-lts from Python 3.13 on): of 256 samples for the compiled kernel, which computes them where
the processor does that faster, of 65,536 pairs of them for NumPy, which takes two codes at a time.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

_FIRST = np.zeros(1, np.int64)

PAYLOAD_TYPES = 128
"""Number of RTP payload types (7 bits)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Codec:
    """What the bytes of a frame are: linear samples that were decoded before, unless it is G.711.

    They are int16 and little-endian.
    """

    name: str
    sample_rate_hz: int
    samples_per_unit: int = 1
    """Samples in a unit of the RTP timestamp: 2 for G.722, whose clock says 8,000 Hz."""
    silence: int = 0
    """The byte that silence is made of."""
    table: NDArray[np.int16] | None = None
    """Code to sample; None for linear samples."""

    def samples(self, payload_bytes: int) -> int:
        """Return the number of samples in so many bytes of payload."""
        return payload_bytes // 2

    def decode(self, payload: NDArray[np.uint8], out: NDArray[np.int16]) -> None:
        """Decode `payload` (n, bytes) into `out` (n, samples), which is C-contiguous.

        The rows of `payload` may lie apart; each is contiguous.
        """
        out[...] = payload.view("<i2")


@dataclass(frozen=True, eq=False, kw_only=True)
class G711(Codec):
    """One byte per sample, decoded by a table: PCMU and PCMA.

    `table` maps a code to its int16 sample; `silence` is the code of a zero sample.
    """

    table: NDArray[np.int16]
    law: int
    """As the compiled kernel knows it: 0 is mu-law, 1 A-law."""
    pairs: NDArray[np.uint32]
    """(65536,) two neighbouring codes, as they lie in memory, to two neighbouring samples."""

    def samples(self, payload_bytes: int) -> int:
        """Return the number of samples in so many bytes of payload."""
        return payload_bytes

    def decode(self, payload: NDArray[np.uint8], out: NDArray[np.int16]) -> None:
        """Decode `payload` (n, bytes) into `out` (n, samples), which is C-contiguous.

        The rows of `payload` may lie apart; each is contiguous.
        """
        kernel = load()
        if kernel is not None and payload.flags.c_contiguous:
            columns = kernel.Columns(payload, _FIRST, _FIRST, self.table, out)
            kernel.decode(columns, 1, 0, payload.size, self.law)
        elif payload.shape[-1] % 2 == 0:
            # mode="wrap" skips the bounds check that a 16-bit index cannot fail
            np.take(self.pairs, payload.view(np.uint16), out=out.view(np.uint32), mode="wrap")
        else:
            np.take(self.table, payload, out=out, mode="wrap")

    def weave(self, codes: NDArray[np.uint8], frames: NDArray[np.int16], at: int) -> None:
        """Decode `codes` (n,), contiguous, into one channel of `frames`.

        `frames` (frames, channels) is C-contiguous; `at` is the place of the first sample in it,
        counted through all channels.
        """
        kernel, channels = load(), frames.shape[1]
        if kernel is not None:
            columns = kernel.Columns(codes, self.table, frames)
            kernel.weave(columns, len(codes), at, channels, self.law)
        else:
            end = at + len(codes) * channels
            frames.reshape(-1)[at:end:channels] = self.table.take(codes)


def _g711(name: str, table: NDArray[np.int16], silence: int, law: int) -> G711:
    pair = np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return G711(
        name=name,
        sample_rate_hz=8000,
        silence=silence,
        table=table,
        law=law,
        pairs=np.ascontiguousarray(table[pair]).view(np.uint32).reshape(-1),
    )


_ALL_CODES = bytes(range(256))
PCMU = _g711("PCMU", np.frombuffer(audioop.ulaw2lin(_ALL_CODES, 2), np.int16), silence=0xFF, law=0)
PCMA = _g711("PCMA", np.frombuffer(audioop.alaw2lin(_ALL_CODES, 2), np.int16), silence=0xD5, law=1)

CODECS: Mapping[int, G711] = {0: PCMU, 8: PCMA}
"""Those that are decoded in columns, by RTP payload type; for the others see
`pipeline.decoders`."""

CLOCK_RATES_HZ: Mapping[int, int] = {
    **dict.fromkeys((0, 3, 4, 5, 7, 8, 9, 12, 13, 15, 18), 8000),
    6: 16000,
    10: 44100,
    11: 44100,
    14: 90000,
    16: 11025,
    17: 22050,
    **dict.fromkeys((25, 26, 28, 31, 32, 33, 34), 90000),
}
"""RTP clock by static payload type (RFC 3551 tables 4 and 5); G.722's is 8000 by erratum."""
