"""The track table: (call_leg_id, leg, direction) to a dense row, for a whole batch at once.

A hash table without collisions, so that a look-up is the same few operations for every packet. A
key is mixed to 64 bits; some of these name a *bucket*, and the mix times the bucket's multiplier
gives the key's place. A new key whose place is taken gives its bucket another multiplier, one that
finds free places for all of the bucket's keys, few as they are.

Mixing multiplies with odd numbers drawn at random at start, so that nobody who sends packets can
choose call legs that fall together. It takes in all of the call_leg_id: a part of it would spread
badly, since the last words of a version-1 UUID are the same for all of one node's calls.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from strep_kernel import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_ROW = -1
BUCKETS = 1 << 14
MAX_TRIES = 200
_BUCKET_SHIFT = 24
_MAX64 = (1 << 64) - 1
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
        place_bits = max(8, (8 * max_tracks - 1).bit_length())
        self._shift = np.uint64(64 - place_bits)
        self._keys = np.array([_odd(), _odd()], np.uint64)
        # added, so that no key, not even one of all zeros, is mixed to a number that is known
        self._side_keys = np.array([_odd() for _ in range(4)], np.uint64)
        self._multiplier = np.ones(BUCKETS, np.uint64)
        self._members: dict[int, list[int]] = {}  # rows by bucket
        # places without a row point to one more row, which no key equals
        self._places = np.full(1 << place_bits, max_tracks, np.int32)
        self._word0 = np.zeros(max_tracks + 1, np.uint64)
        self._word1 = np.zeros(max_tracks + 1, np.uint64)
        self._side = np.full(max_tracks + 1, _NOBODY, np.uint8)
        self._rows_used = 0
        self._lowest_free = 0  # no row below is free
        self._kernel = kernel = load()
        if kernel is not None:
            self._columns = kernel.Columns(
                self._multiplier, self._places, self._word0, self._word1, self._side, self._keys,
                self._side_keys,
            )  # fmt: skip

    def __len__(self) -> int:
        return self._rows_used

    @property
    def is_full(self) -> bool:
        """Whether no row is left."""
        return self._rows_used == self.max_tracks

    def lookup(
        self, word0: NDArray[np.uint64], word1: NDArray[np.uint64], side: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], int]:
        """Return the row of each key, (n,) intp, and how many have none but `NO_ROW`.

        The arrays (n,) are contiguous.
        """
        n = len(side)
        if self._kernel is not None:
            rows = np.empty(n, np.intp)
            missing = self._kernel.lookup(
                self._columns,
                self._kernel.Columns(word0, word1, side, rows),
                n, int(self._shift), _BUCKET_SHIFT, BUCKETS,
            )  # fmt: skip
            return rows, missing
        rows = self._places.take(self._place(word0, word1, side)).astype(np.intp)
        found = self._side.take(rows) == side
        found &= self._word0.take(rows) == word0
        found &= self._word1.take(rows) == word1
        rows[~found] = NO_ROW
        return rows, n - int(np.count_nonzero(found))

    def add(self, word0: int, word1: int, side: int) -> int:
        """Give a row to a key that has none; `NO_ROW` when the table has no room for it."""
        if self.is_full:
            return NO_ROW
        is_free = self._side[self._lowest_free : self.max_tracks] == _NOBODY
        row = self._lowest_free = self._lowest_free + int(is_free.argmax())
        self._word0[row], self._word1[row], self._side[row] = word0, word1, side
        mixed = self._mixed(row)
        bucket = mixed >> _BUCKET_SHIFT & BUCKETS - 1
        members = self._members.setdefault(bucket, [])
        place = self._place_of(mixed, int(self._multiplier[bucket]))
        if self._places[place] == self.max_tracks:
            self._places[place] = row
        elif not self._rearrange(bucket, [*members, row]):
            self._side[row] = _NOBODY
            return NO_ROW
        members.append(row)
        self._rows_used += 1
        self.generation[row] += 1
        return row

    def remove(self, row: int) -> None:
        """Take a row back. Raises KeyError for a row that is nobody's."""
        if not 0 <= row < self.max_tracks or self._side[row] == _NOBODY:
            raise KeyError(row)
        mixed = self._mixed(row)
        bucket = mixed >> _BUCKET_SHIFT & BUCKETS - 1
        self._places[self._place_of(mixed, int(self._multiplier[bucket]))] = self.max_tracks
        members = self._members[bucket]
        members.remove(row)
        if not members:
            del self._members[bucket]
        self._side[row] = _NOBODY
        self._rows_used -= 1
        self._lowest_free = min(self._lowest_free, row)

    def _rearrange(self, bucket: int, rows: list[int]) -> bool:
        """Give a bucket another multiplier; the last of its rows has no place yet.

        Seven places in eight are free, so that a few tries do. Only keys that are mixed to the
        very same 64 bits never come apart: False for these, as good as impossible as they are.
        """
        nobody = self.max_tracks
        mixed = [self._mixed(row) for row in rows]
        old = int(self._multiplier[bucket])
        before = [self._place_of(each, old) for each in mixed[:-1]]
        self._places[before] = nobody
        for _ in range(MAX_TRIES):
            new = _odd()
            places = [self._place_of(each, new) for each in mixed]
            if len(set(places)) == len(places) and (self._places[places] == nobody).all():
                self._places[places] = rows
                self._multiplier[bucket] = new
                return True
        self._places[before] = rows[:-1]
        return False

    def _place(
        self, word0: NDArray[np.uint64], word1: NDArray[np.uint64], side: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Return where each key stands, if it stands anywhere."""
        mixed = self._mix(word0, word1, side)
        bucket = (mixed >> np.uint64(_BUCKET_SHIFT)).view(np.int64) & BUCKETS - 1
        mixed *= self._multiplier.take(bucket)
        mixed >>= self._shift
        return mixed.view(np.int64)

    def _mix(
        self, word0: NDArray[np.uint64], word1: NDArray[np.uint64], side: NDArray[np.uint8]
    ) -> NDArray[np.uint64]:
        a, b = self._keys
        mixed: NDArray[np.uint64] = (word0 ^ (word0 >> np.uint64(32))) * a
        mixed += (word1 ^ (word1 >> np.uint64(32))) * b
        mixed += self._side_keys.take(side)
        return mixed

    def _mixed(self, row: int) -> int:
        """Mix one row's key: `_mix` in Python's numbers, at a fifth of its time."""
        word0, word1 = int(self._word0[row]), int(self._word1[row])
        a, b = self._keys.tolist()
        mixed: int = (word0 ^ word0 >> 32) * a + (word1 ^ word1 >> 32) * b
        mixed += int(self._side_keys[self._side[row]])
        return mixed & _MAX64

    def _place_of(self, mixed: int, multiplier: int) -> int:
        return (mixed * multiplier & _MAX64) >> int(self._shift)


def _odd() -> int:
    return secrets.randbits(64) | 1
