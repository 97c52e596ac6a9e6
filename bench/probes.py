"""Sinks that measure, for the daemon under test: `--sink bench.probes:LatencySink:path=FILE`."""

from __future__ import annotations

import json
import time
from pathlib import Path  # noqa: TC003 -- looked up when the option is converted
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.sinks.base import Sink

if TYPE_CHECKING:
    from pipeline.block import AudioBlock

BIN_US = 10
BINS = 200_000
"""Up to two seconds; what is later counts as that."""


class LatencySink(Sink):
    """Measures the time from a packet's arrival in the kernel to this sink.

    Options:
    `path`: where the figures are written as JSON at the end.
    `skip_frames`: frames that are not measured, at the beginning.
    """

    threaded: ClassVar[bool] = False

    def __init__(self, *, path: Path, skip_frames: int = 0) -> None:
        self._path = path
        self._skip = skip_frames
        self._counts = np.zeros(BINS, np.int64)
        self._most_ns = 0

    def write(self, block: AudioBlock) -> None:
        """Measure the frames of a block."""
        if self._skip > 0:
            self._skip -= len(block)
            return
        late_ns = time.monotonic_ns() - block.arrival_ns
        bins, frames = np.unique(late_ns // (BIN_US * 1000), return_counts=True)
        np.add.at(self._counts, bins.clip(max=BINS - 1), frames)
        self._most_ns = max(self._most_ns, int(late_ns.max()))

    def stop(self) -> None:
        """Write the figures."""
        self._path.write_text(json.dumps(self.figures()))

    def figures(self) -> dict[str, float]:
        """Return `frames`, and p50, p99 and the most in milliseconds, to 10 microseconds."""
        frames = int(self._counts.sum())
        below = self._counts.cumsum()
        p50, p99 = (
            (int(below.searchsorted(share * frames)) + 1) * BIN_US / 1000 for share in (0.5, 0.99)
        )
        return {"frames": frames, "p50_ms": p50, "p99_ms": p99, "max_ms": self._most_ns / 1e6}
