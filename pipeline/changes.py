"""What changes in the midst of a track: its source, its codec, whether its sender's clock runs.

The sound goes on over all of them in one recording; this says where they are in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock

MAX_CHANGES = 100
"""Per track that are remembered."""

ChangeKind = Literal["source", "restart", "codec", "hold"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a track."""

    position: int
    """Where the audio before it ends or the audio behind it begins, in samples."""
    kind: ChangeKind
    """Another source; the same one with a new sequence; another codec; a hold during which the
    timestamps stood still."""
    detail: str | float | None = None
    """Of a source its SSRC, of a codec its name, of a hold its seconds."""

    def as_json(self, sample_rate_hz: int) -> dict[str, Any]:
        """Return it for the manifest."""
        told = {"source": "ssrc", "codec": "codec", "hold": "gap_s"}.get(self.kind)
        detail = {} if told is None else {told: self.detail}
        return {"kind": self.kind, "at_s": round(self.position / sample_rate_hz, 3), **detail}


class Changes(RowState):
    """The changes of all tracks by row."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "codec": (np.int8, 0),
    }
    codec: NDArray[np.int8]
    """Number of the codec of the last frame; 0 before the first."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, int] = {}
        """Of codecs by name, from 1 on."""
        self._changes: dict[int, list[Change]] = {}

    def renew(self, row: int) -> None:
        """Forget what was on a row."""
        super().renew(row)
        self._changes.pop(row, None)

    def number(self, codec: str) -> int:
        """Return what stands for a codec in the column."""
        return self._numbers.setdefault(codec, len(self._numbers) + 1)

    def hear(self, block: AudioBlock) -> None:
        """Take in the codec of received frames."""
        name, rows = block.codec.name, block.rows
        number = self.number(name)
        before = self.codec.take(rows)
        is_other = before != number
        if not is_other.any():
            return
        for i in np.flatnonzero(is_other & (before > 0)).tolist():
            self.note(int(rows[i]), Change(int(block.position[i]), "codec", name))
        self.codec[rows] = number

    def note(self, row: int, change: Change) -> None:
        """Remember a change of a track."""
        changes = self._changes.setdefault(row, [])
        if len(changes) < MAX_CHANGES:
            changes.append(change)

    def of(self, row: int) -> tuple[Change, ...]:
        """Return a track's changes, in the order in which they were noticed."""
        return tuple(self._changes.get(row, ()))
