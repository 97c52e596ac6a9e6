"""Memory that was freed, and that the C library keeps for later, back to the system."""

from __future__ import annotations

import ctypes


def trim_heap() -> None:
    """Give back what can be, where the C library has a function for it (glibc's malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
