"""Sinks that misbehave, for a daemon that is to live with them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, ClassVar

from pipeline.sinks.base import Sink

if TYPE_CHECKING:
    from pipeline.block import AudioBlock

_LEAK_BYTES = 1 << 20
_LEAKS = 256


class Sleeps(Sink):
    """Takes a second for each block."""

    threaded: ClassVar[bool] = True

    def write(self, block: AudioBlock) -> None:
        """Sleep."""
        del block
        time.sleep(1.0)


class Raises(Sink):
    """Fails at each block."""

    threaded: ClassVar[bool] = True

    def write(self, block: AudioBlock) -> None:
        """Raise."""
        raise RuntimeError(f"a sink of the tests, at {block.samples} samples")


class Leaks(Sink):
    """Keeps a megabyte for each block, up to 256."""

    threaded: ClassVar[bool] = True

    def __init__(self) -> None:
        self._kept: list[bytearray] = []

    def write(self, block: AudioBlock) -> None:
        """Keep memory."""
        del block
        if len(self._kept) < _LEAKS:
            self._kept.append(bytearray(_LEAK_BYTES))


class Exits(Sink):
    """Ends its process at the first block: only for a process of its own."""

    threaded: ClassVar[bool] = True

    def write(self, block: AudioBlock) -> None:
        """End the process, without a word."""
        del block
        os._exit(3)
