"""Memory for what waits, which goes back to the system when it does not wait any more."""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE_BYTES = 65_536
"""Less than this comes from the heap."""
PIECE_BYTES = 524_288
"""Mappings have this size, so that each can be used again; more than this has one of its own."""
MAX_SPARE = 4
"""Mappings that are kept for the next ones: what waits from tick to tick costs no new pages."""

_spare: deque[mmap.mmap] = deque(maxlen=MAX_SPARE)


def own_pages(size_bytes: int) -> NDArray[np.uint8]:
    """Return an array, (size_bytes,) uint8, contents undefined, in pages of its own when large.

    The C library gives freed memory back only from the end of its heap: one array that is still
    used keeps all those before it. Pages of its own go back with the last view of them; but new
    pages are slow, so that a few are kept. Safe from any thread.
    """
    if size_bytes < LARGE_BYTES:
        return np.empty(size_bytes, np.uint8)
    if size_bytes > PIECE_BYTES:
        return np.frombuffer(_new(size_bytes), np.uint8)
    try:
        mapping = _spare.pop()
    except IndexError:
        mapping = _new(PIECE_BYTES)
    piece = np.frombuffer(mapping, np.uint8, size_bytes)
    weakref.finalize(piece, _spare.append, mapping).atexit = False
    return piece


def _new(size_bytes: int) -> mmap.mmap:
    return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
