"""Samples that wait to be written, one byte each: a contiguous run per row.

Frames of thousands of rows are put in place at once; only what does not continue its run needs
the caller's decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.rows import RowState
from strep_kernel import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGE_SAMPLES = 6720
"""Room for a run: a little less than a second at 8 kHz, and whole frames of all usual lengths."""

_NO_RUN = -(1 << 62)
"""A start so far back that no frame fits behind it."""


class Stages(RowState):
    """The runs of all rows. A fresh row has none and takes frames after `begin`."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "start": (np.int64, _NO_RUN),
        "room": (np.int64, STAGE_SAMPLES),
        "fill": (np.int64, 0),
        "law": (np.int8, 0),
        "since_ns": (np.int64, 0),
    }

    start: NDArray[np.int64]
    """Position of the run's first sample on its track."""
    room: NDArray[np.int64]
    """Samples that the run may grow to, at most STAGE_SAMPLES."""
    fill: NDArray[np.int64]
    """Samples in the run."""
    law: NDArray[np.int8]
    """The caller's number for the meaning of the run's codes."""
    since_ns: NDArray[np.int64]
    """Arrival of the frame that the run began with."""

    def __init__(self) -> None:
        self._codes = np.empty(0, np.uint8)
        self._kernel = load()
        self._bound = 0
        self._columns: Any = None
        super().__init__()

    def ensure(self, rows: int) -> None:
        """Make room for so many rows. Memory is taken by the rows that are used, not by room."""
        super().ensure(rows)
        if len(self._codes) < self.rows * STAGE_SAMPLES:
            codes = np.empty(self.rows * STAGE_SAMPLES, np.uint8)
            codes[: len(self._codes)] = self._codes
            self._codes = codes

    def put(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        codes: NDArray[np.uint8],
        law: int | None = None,
    ) -> NDArray[np.intp]:
        """Put in place the frames that continue their run or lie within it, and have room there.

        `rows` names none twice; `codes` is (n, samples), C-contiguous. With `law`, the codes of the
        run must have the same meaning as the frame's. Returns the indices of the other frames.
        """
        if self._kernel is None:
            fits = self._fits(rows, position, codes.shape[1], law)
            if fits.all():
                self._put(rows, position, arrival_ns, codes)
                return np.zeros(0, np.intp)
            self._put(rows[fits], position[fits], arrival_ns[fits], codes[fits])
            return np.flatnonzero(~fits)
        if self._bound != self.moves:  # the columns have moved
            self._bound = self.moves
            self._columns = self._kernel.Columns(
                self.start, self.room, self.fill, self.law, self.since_ns, self._codes
            )
        misfit = np.empty(len(rows), np.intp)
        misfits = self._kernel.stage(
            self._columns,
            self._kernel.Columns(rows, position, arrival_ns, codes, misfit),
            *(len(rows), codes.shape[1], STAGE_SAMPLES, -1 if law is None else law),
        )
        return misfit[:misfits]

    def begin(self, row: int, position: int, law: int, room: int = STAGE_SAMPLES) -> None:
        """Begin an empty run."""
        self.start[row] = position
        self.fill[row] = 0
        self.room[row] = room
        self.law[row] = law

    def pad(self, row: int, position: int, code: int) -> None:
        """Continue a run up to `position` with the same code."""
        first = row * STAGE_SAMPLES
        fill = position - int(self.start[row])
        self._codes[first + int(self.fill[row]) : first + fill] = code
        self.fill[row] = fill

    def take(self, row: int) -> NDArray[np.uint8]:
        """Return the run, valid until the next `put`; what follows continues an empty one."""
        first, fill = row * STAGE_SAMPLES, int(self.fill[row])
        self.start[row] += fill
        self.fill[row] = 0
        self.room[row] = STAGE_SAMPLES
        return self._codes[first : first + fill]

    def begun_until(self, arrival_ns: int) -> list[int]:
        """Return the rows with a run that began then or earlier."""
        return np.flatnonzero((self.fill > 0) & (self.since_ns <= arrival_ns)).tolist()

    def _fits(
        self, rows: NDArray[np.intp], position: NDArray[np.int64], samples: int, law: int | None
    ) -> NDArray[np.bool_]:
        """Tell which frames `put` takes."""
        column = position - self.start.take(rows)
        fits = (column >= 0) & (column <= self.fill.take(rows))
        fits &= column <= self.room.take(rows) - samples
        if law is not None:
            fits &= self.law.take(rows) == law
        return fits

    def _put(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        codes: NDArray[np.uint8],
    ) -> None:
        """Put frames that fit in place."""
        samples = codes.shape[1]
        column = position - self.start.take(rows)
        fill = self.fill.take(rows)
        if not fill.all():
            empty = np.flatnonzero(fill == 0)
            self.since_ns[rows[empty]] = arrival_ns[empty]
        self.fill[rows] = np.maximum(fill, column + samples)
        # A frame is one item, and items may begin at any byte: one copy each.
        frame = np.dtype((np.void, samples))
        places = np.ndarray((len(self._codes) - samples + 1,), frame, self._codes, strides=(1,))
        places[rows * STAGE_SAMPLES + column] = codes.view(frame)[:, 0]
