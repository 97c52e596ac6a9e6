"""The field tables of the STREP and RTP headers: written once, read by both parsers.

A field is a run of bits in one big-endian 32-bit word of its header. The scalar parsers read it
from bytes (`read`, `write`), the columnar parser from a column of words (`column`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Field:
    """`bits` bits from bit `first_bit` (0 is the most significant) of 32-bit word `word`."""

    name: str
    word: int
    first_bit: int
    bits: int

    @property
    def shift(self) -> int:
        """How far the field stands from the word's least significant bit."""
        return 32 - self.first_bit - self.bits

    @property
    def mask(self) -> int:
        """The field's bits, shifted down to bit 0."""
        return (1 << self.bits) - 1

    def read(self, header: bytes | bytearray | memoryview) -> int:
        """Return the field of one header, which holds the field's whole word."""
        start = 4 * self.word
        return int.from_bytes(header[start : start + 4], "big") >> self.shift & self.mask

    def write(self, header: bytearray, value: int) -> None:
        """Set the field in one header. Raises ValueError where the value has too many bits."""
        if not 0 <= value <= self.mask:
            raise ValueError(f"{self.name} is {value}, expected 0 to {self.mask}")
        word = slice(4 * self.word, 4 * self.word + 4)
        rest = int.from_bytes(header[word], "big") & ~(self.mask << self.shift)
        header[word] = (rest | value << self.shift).to_bytes(4, "big")

    def column(self, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return the field of all headers; `words` is (words, n), in native byte order."""
        column: NDArray[np.uint32] = words[self.word]
        if self.shift:
            column = column >> np.uint32(self.shift)
        if self.first_bit:
            column = column & np.uint32(self.mask)
        return column


STREP_BYTES = 24
RTP_BYTES = 12
STREP_WORDS = STREP_BYTES // 4
RTP_WORDS = RTP_BYTES // 4

STREP_FIELDS = (
    Field("magic", 0, 0, 2),
    Field("version", 0, 2, 4),
    Field("leg", 0, 6, 1),
    Field("direction", 0, 7, 1),
    Field("header_length", 0, 8, 8),
)
"""The fields of the STREP header that are numbers; the call_leg_id is words 2 to 5."""

RTP_FIELDS = (
    Field("version", 0, 0, 2),
    Field("padding", 0, 2, 1),
    Field("extension", 0, 3, 1),
    Field("csrc_count", 0, 4, 4),
    Field("marker", 0, 8, 1),
    Field("payload_type", 0, 9, 7),
    Field("sequence", 0, 16, 16),
    Field("timestamp", 1, 0, 32),
    Field("ssrc", 2, 0, 32),
)
"""The fixed RTP header (RFC 3550 section 5.1)."""

STREP = {field.name: field for field in STREP_FIELDS}
RTP = {field.name: field for field in RTP_FIELDS}
