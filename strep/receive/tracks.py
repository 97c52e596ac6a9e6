"""The track table: (call_leg_id, leg, direction) to a dense row, for a whole batch at once.

An open-addressing hash table with linear probing, at most an eighth full, so that nearly every
packet is found at the first place looked at; the others are looked up together, place by place.
The hash multiplies with odd numbers drawn at random at start, so that nobody who sends packets
can choose call legs that collide. It takes in all of the call_leg_id: a part of it would spread
badly, since the last words of a version-1 UUID are the same for all of one node's calls.
"""

from __future__ import annotations

import heapq
import secrets
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_ROW = -1
_NOBODY = 0xFF
"""Leg and direction of a row that is nobody's: the wire has only 0 to 3."""


class TrackTable:
    """Keys to rows from 0 up to `max_tracks`; the lowest free row is given out first.

    A key is the two 64-bit words of a call_leg_id (in memory order) with the two bits L and D of
    the STREP header's first byte, leg << 1 | direction.
    """

    def __init__(self, max_tracks: int) -> None:
        if max_tracks < 1:
            raise ValueError(f"max_tracks is {max_tracks}, expected at least 1")
        self.max_tracks = max_tracks
        self.generation = np.zeros(max_tracks, np.int64)
        """(max_tracks,) int64: how often each row was given out."""
        bits = max(8, (8 * max_tracks - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self._multipliers = [np.uint64(secrets.randbits(64) | 1) for _ in range(3)]
        # places without a row point to one more row, which no key equals
        self._places = np.full(1 << bits, max_tracks, np.int32)
        self._word0 = np.zeros(max_tracks + 1, np.uint64)
        self._word1 = np.zeros(max_tracks + 1, np.uint64)
        self._side = np.full(max_tracks + 1, _NOBODY, np.uint8)
        self._free = list(range(max_tracks))  # a heap

    def __len__(self) -> int:
        return self.max_tracks - len(self._free)

    @property
    def is_full(self) -> bool:
        """Whether no row is left."""
        return not self._free

    def lookup(
        self, word0: NDArray[np.uint64], word1: NDArray[np.uint64], side: NDArray[np.uint8]
    ) -> NDArray[np.intp]:
        """Return the row of each key, (n,) intp, `NO_ROW` for those that have none."""
        place = self._place(word0, word1, side)
        rows = self._places.take(place).astype(np.intp)
        found = self._side.take(rows) == side
        found &= self._word0.take(rows) == word0
        found &= self._word1.take(rows) == word1
        if found.all():
            return rows
        pending = np.flatnonzero(~found)
        while len(pending):
            candidates = rows[pending]
            is_end = candidates == self.max_tracks
            rows[pending[is_end]] = NO_ROW
            pending = pending[~is_end]
            place[pending] = place[pending] + 1 & self._mask
            candidates = self._places.take(place[pending])
            rows[pending] = candidates
            found = self._side.take(candidates) == side[pending]
            found &= self._word0.take(candidates) == word0[pending]
            found &= self._word1.take(candidates) == word1[pending]
            pending = pending[~found]
        return rows

    def add(self, word0: np.uint64, word1: np.uint64, side: int) -> int:
        """Give a row to a key that has none; `NO_ROW` when the table is full."""
        if not self._free:
            return NO_ROW
        row = heapq.heappop(self._free)
        self.generation[row] += 1
        self._word0[row], self._word1[row], self._side[row] = word0, word1, side
        place = self._place_of(row)
        while self._places[place] != self.max_tracks:
            place = place + 1 & self._mask
        self._places[place] = row
        return row

    def remove(self, row: int) -> None:
        """Take a row back. Raises KeyError for a row that is nobody's."""
        if not 0 <= row < self.max_tracks or self._side[row] == _NOBODY:
            raise KeyError(row)
        places, nobody = self._places, self.max_tracks
        hole = self._place_of(row)
        while places[hole] != row:
            hole = hole + 1 & self._mask
        # close the gap: whoever probed past this place moves up (Knuth 6.4, algorithm R)
        place = hole
        while True:
            place = place + 1 & self._mask
            other = int(places[place])
            if other == nobody:
                break
            if (place - self._place_of(other)) & self._mask >= (place - hole) & self._mask:
                places[hole] = other
                hole = place
        places[hole] = nobody
        self._side[row] = _NOBODY
        heapq.heappush(self._free, row)

    def _place(
        self, word0: NDArray[np.uint64], word1: NDArray[np.uint64], side: NDArray[np.uint8]
    ) -> NDArray[np.intp]:
        """Return where probing for each key begins."""
        a, b, c = self._multipliers
        mixed = (word0 ^ (word0 >> np.uint64(32))) * a
        mixed += (word1 ^ (word1 >> np.uint64(32))) * b
        mixed += side * c
        return (mixed >> self._shift).astype(np.intp)

    def _place_of(self, row: int) -> int:
        one = slice(row, row + 1)
        return int(self._place(self._word0[one], self._word1[one], self._side[one])[0])
