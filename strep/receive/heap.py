"""Memory that was freed, and that the C library keeps for later, back to the system."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 * 2**20


def settle_heap() -> None:
    """Let large arrays be given back when they are freed, whatever was freed before (glibc).

    By itself, the C library takes the freeing of a large array for a habit, and keeps the next
    ones up to that size among all others, which pins them.
    """
    configure = getattr(ctypes.CDLL(None), "mallopt", None)
    if configure is not None:
        configure(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def trim_heap() -> None:
    """Give back what can be, where the C library has a function for it (glibc's malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
