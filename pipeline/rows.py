"""Columns with one entry per track that grow with the highest row in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST_ROWS = 64


class RowState:
    """Base of what keeps per-track state in columns.

    A subclass declares its columns as annotated attributes and names them with their value for a
    fresh row in `fresh`: `{"next_sequence": (np.int64, 0), "ring": ((np.int32, 64), -1)}`.
    `ensure(rows)` makes room, doubling; `renew(row)` sets a row to the fresh values; `trim(rows)`
    gives memory back. Arrays move when their size changes: hold no reference to them across these,
    or look whether `moves` is the same.
    """

    fresh: dict[str, tuple[Any, Any]]

    def __init__(self) -> None:
        self.rows = 0
        """Rows there is room for."""
        self.moves = 0
        """How often the columns have moved."""
        self.ensure(_FIRST_ROWS)

    def ensure(self, rows: int) -> None:
        """Make room for so many rows."""
        if rows > self.rows:
            self._resize(rows)

    def trim(self, rows: int) -> None:
        """Give memory back when only so many rows, the first ones, are in use."""
        if 4 * max(rows, _FIRST_ROWS) <= self.rows:
            self._resize(rows)

    def _resize(self, rows: int) -> None:
        size = max(_FIRST_ROWS, 1 << (rows - 1).bit_length())
        kept = min(size, self.rows)
        self._with_fresh: list[tuple[NDArray[Any], Any]] = []
        for name, (spec, value) in self.fresh.items():
            dtype, width = spec if isinstance(spec, tuple) else (spec, None)
            shape = size if width is None else (size, width)
            # zeros cost no memory before they are written, and half of the rows may never be
            grown: NDArray[Any] = np.full(shape, value, dtype) if value else np.zeros(shape, dtype)
            if kept:
                grown[:kept] = getattr(self, name)[:kept]
            setattr(self, name, grown)
            self._with_fresh.append((grown, value))
        self.rows = size
        self.moves += 1

    def renew(self, row: int) -> None:
        """Set one row to the fresh values."""
        for column, value in self._with_fresh:
            column[row] = value
