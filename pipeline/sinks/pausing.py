"""Which frames are of a pause, and are not to be kept.

A pause is a time on the receiver's clock, and a frame is of it when its packet arrived then. So it
holds for packets that waited behind a hole, and for those that were queued for a sink, whatever
the order in which they are released.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

    from pipeline.block import AudioBlock

REMEMBERED_NS = 10_000_000_000
"""How long a pause that is over is remembered, for packets of it that are released late."""
KEPT_NS = 24 * 3600 * 1_000_000_000
"""How long a call leg without tracks stays paused that nobody resumes."""
LOOK_NS = 5_000_000_000
"""How often it is looked at what can be forgotten."""
MARGIN_NS = 500_000_000
"""How near to a pause a key press counts as one of it: where it is known by its place in the media,
which drifts against arrivals."""
_EVER = 1 << 62


@dataclass(slots=True)
class _Leg:
    """The pauses of a call leg."""

    spans: list[tuple[int, int]] = field(default_factory=list)
    """(first, one past the last) nanosecond of each; the last one may have no end yet."""
    rows: set[int] = field(default_factory=set)
    """The open tracks."""
    alone_since_ns: int | None = None
    """When it was first seen to be paused without an open track."""

    @property
    def is_paused(self) -> bool:
        return bool(self.spans) and self.spans[-1][1] == _EVER

    def holds(self, arrival_ns: int) -> bool:
        return any(start <= arrival_ns < stop for start, stop in self.spans)


class Pauses:
    """The paused call legs of a sink, and the tracks that these concern.

    Audio that is made up for what is missing is of a pause as well where the last frame that came
    before it was: it is made of that one's sound.
    """

    def __init__(self) -> None:
        self._legs: dict[UUID, _Leg] = {}
        self._by_row: dict[int, _Leg] = {}
        self._is_concerned = np.zeros(0, np.bool_)
        """By row."""
        self._was_cut: set[int] = set()
        """Rows whose last received frame was of a pause."""
        self._next_look_ns = 0

    def __bool__(self) -> bool:
        """Whether any frame can be of a pause."""
        return bool(self._by_row)

    def is_paused(self, call_leg_id: UUID) -> bool:
        """Tell whether a call leg is paused."""
        leg = self._legs.get(call_leg_id)
        return leg is not None and leg.is_paused

    def holds(self, call_leg_id: UUID, first_ns: int, last_ns: int) -> bool:
        """Tell whether a call leg was paused at any moment from the first to the last."""
        leg = self._legs.get(call_leg_id)
        return leg is not None and any(
            start <= last_ns and first_ns < stop for start, stop in leg.spans
        )

    def begin(self, call_leg_id: UUID, at_ns: int, rows: set[int]) -> bool:
        """Pause a call leg, `rows` being its open tracks; False where it is paused already."""
        leg = self._legs.setdefault(call_leg_id, _Leg())
        if leg.is_paused:
            return False
        leg.spans.append((at_ns, _EVER))
        for row in rows - leg.rows:
            self._concern(row, leg)
        return True

    def end(self, call_leg_id: UUID, at_ns: int) -> bool:
        """End a call leg's pause; False where it is not paused."""
        leg = self._legs.get(call_leg_id)
        if leg is None or not leg.is_paused:
            return False
        leg.spans[-1] = (leg.spans[-1][0], at_ns)
        return True

    def open(self, call_leg_id: UUID, row: int) -> None:
        """Take in that a track was opened."""
        leg = self._legs.get(call_leg_id)
        if leg is not None:
            self._concern(row, leg)

    def close(self, row: int) -> None:
        """Take in that a track was closed."""
        leg = self._by_row.pop(row, None)
        if leg is not None:
            leg.rows.discard(row)
            self._is_concerned[row] = False
            self._was_cut.discard(row)

    def forget(self, now_ns: int) -> None:
        """Let go of what was over long ago."""
        if now_ns < self._next_look_ns:
            return
        self._next_look_ns = now_ns + LOOK_NS
        for call_leg_id, leg in list(self._legs.items()):
            leg.spans = [span for span in leg.spans if span[1] + REMEMBERED_NS > now_ns]
            if leg.rows or not leg.is_paused:
                leg.alone_since_ns = None
            elif leg.alone_since_ns is None:
                leg.alone_since_ns = now_ns
            is_old = leg.alone_since_ns is not None and now_ns - leg.alone_since_ns > KEPT_NS
            if is_old or not leg.spans:
                for row in list(leg.rows):
                    self.close(row)
                del self._legs[call_leg_id]

    def cut(self, block: AudioBlock) -> NDArray[np.bool_] | None:
        """Return which frames of a block are of a pause, (n,) bool; None where none is."""
        known = block.rows < len(self._is_concerned)
        concerned = np.flatnonzero(known)
        concerned = concerned[self._is_concerned[block.rows[concerned]]]
        if not len(concerned):
            return None
        is_received = getattr(block, "is_received", True)
        is_cut = np.zeros(len(block), np.bool_)
        for i in concerned.tolist():
            row = int(block.rows[i])
            is_cut[i] = self._by_row[row].holds(int(block.arrival_ns[i]))
            if not is_received:
                is_cut[i] |= row in self._was_cut
            elif is_cut[i]:
                self._was_cut.add(row)
            else:
                self._was_cut.discard(row)
        return is_cut if is_cut.any() else None

    def _concern(self, row: int, leg: _Leg) -> None:
        leg.rows.add(row)
        self._by_row[row] = leg
        if row >= len(self._is_concerned):
            grown = np.zeros(max(64, 2 * row + 1), np.bool_)
            grown[: len(self._is_concerned)] = self._is_concerned
            self._is_concerned = grown
        self._is_concerned[row] = True
