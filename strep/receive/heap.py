"""Memory: what was freed goes back to the system, and looking for garbage stops no packet."""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 4 * 2**20
_YOUNG_OBJECTS = 10_000

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


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
    if _trim is not None:
        _trim(0)


def settle_collector() -> None:
    """Have Python look for garbage in cycles a tenth as often as it does by itself.

    What the packet path and the sinks make is freed without that: nothing of theirs forms cycles.
    To look through the objects of ten thousand tracks takes a twentieth of a second, in which no
    packet is read.
    """
    gc.collect()
    gc.freeze()  # what is there by now stays for good
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
