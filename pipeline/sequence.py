"""Counters that wrap: 16-bit sequence numbers and 32-bit timestamps (RFC 3550 section 5.1).

The distance between two values is the shorter way around, as a signed number: between -32768 and
32767 for 16 bits. The same functions serve scalars and arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@overload
def distance16(newer: int, older: int) -> int: ...
@overload
def distance16(newer: NDArray[np.int64], older: NDArray[np.int64]) -> NDArray[np.int64]: ...
def distance16(
    newer: int | NDArray[np.int64], older: int | NDArray[np.int64]
) -> int | NDArray[np.int64]:
    """Return newer - older modulo 2**16, as a signed 16-bit number (int64 for arrays)."""
    return ((newer - older + 0x8000) & 0xFFFF) - 0x8000


@overload
def distance32(newer: int, older: int) -> int: ...
@overload
def distance32(newer: NDArray[np.int64], older: NDArray[np.int64]) -> NDArray[np.int64]: ...
def distance32(
    newer: int | NDArray[np.int64], older: int | NDArray[np.int64]
) -> int | NDArray[np.int64]:
    """Return newer - older modulo 2**32, as a signed 32-bit number (int64 for arrays)."""
    return ((newer - older + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
