"""Which call legs are known, and the datagrams of others, which wait until theirs is told.

Packets may overtake the webhook, or the answer to the command, that tells of their call. So they
wait for a while, in a table that is bounded in call legs, in datagrams of each and in bytes: what
has no room, and what nobody told of in time, is for the receiver to drop and count.

Pure: time is an argument, in nanoseconds on the readers' clock.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from strep.wire import PacketBatch

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

Key: TypeAlias = tuple[int, int]
"""The words of a call_leg_id, as `PacketBatch.call_leg_id` has them."""

MAX_LEGS = 1024
MAX_DATAGRAMS = 2000
"""Of each call leg: ten seconds of both directions at 10 ms."""
MAX_BYTES = 64 * 2**20
"""Of memory, whatever the size of the datagrams."""
_FACTS = np.dtype(
    [("length", np.int32), ("arrival", np.int64), ("source", "24u1"), ("destination", "24u1")]
)
"""What is kept of a datagram beside its bytes."""
PART_BYTES = 400
"""What it takes to keep datagrams of one call leg that came together, but for themselves."""


class Admission:
    """The call legs that are known, and what waits; see the module."""

    def __init__(
        self,
        *,
        wait_s: float,
        max_legs: int = MAX_LEGS,
        max_datagrams: int = MAX_DATAGRAMS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._wait_ns = round(wait_s * 1e9)
        self._max_legs = max_legs
        self._max_datagrams = max_datagrams
        self._max_bytes = max_bytes
        self._known: set[Key] = set()
        self._waiting: OrderedDict[Key, _Leg] = OrderedDict()
        """Who began to wait first comes first."""
        self.datagrams = 0
        """How many wait."""
        self._bytes = 0

    @property
    def legs(self) -> int:
        """Of how many call legs datagrams wait."""
        return len(self._waiting)

    def knows(self, leg_id: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell which of the call legs, (2, n) as in a batch, are known: (n,) bool."""
        known = self._known
        return np.array([key in known for key in zip(*leg_id.tolist(), strict=True)], np.bool_)

    def admit(self, call_leg_id: UUID) -> PacketBatch | None:
        """Let a call leg be known; return what has waited for that, with the times of arrival."""
        key = key_of(call_leg_id)
        self._known.add(key)
        leg = self._take(key)
        return None if leg is None else leg.batch()

    def forget(self, call_leg_id: UUID) -> None:
        """Let a call leg be known no more."""
        self._known.discard(key_of(call_leg_id))

    def keep(
        self, batch: PacketBatch, slots: NDArray[np.intp], leg_id: NDArray[np.uint64]
    ) -> NDArray[np.intp]:
        """Let datagrams of unknown call legs wait; return the slots of those without room.

        `leg_id` is (2, n), one for each slot.
        """
        groups: dict[Key, list[int]] = {}
        for i, key in enumerate(zip(*leg_id.tolist(), strict=True)):
            groups.setdefault(key, []).append(i)
        refused = [slots[:0]]
        for key, indices in groups.items():
            own = slots[indices]
            width = int(batch.length_bytes[own].max())
            room = self._room(key, width + _FACTS.itemsize)
            refused.append(own[room:])
            if room > 0:
                self._put(key, _Waiting.of(batch, own[:room], width), batch.slot_bytes)
        return np.concatenate(refused)

    def expire(self, now_ns: int) -> int:
        """Give up what has waited too long; return how many datagrams that were."""
        before = self.datagrams
        while self._waiting:
            key, oldest = next(iter(self._waiting.items()))
            if now_ns - oldest.since_ns < self._wait_ns:
                break
            self._take(key)
        return before - self.datagrams

    def release(self) -> list[PacketBatch]:
        """Return all that waits, by call leg, as batches that were just read."""
        return [leg.batch() for leg in map(self._take, list(self._waiting)) if leg is not None]

    def clear(self) -> int:
        """Give up all that waits; return how many datagrams that were."""
        given_up = self.datagrams
        self._waiting.clear()
        self.datagrams = self._bytes = 0
        return given_up

    def _room(self, key: Key, size: int) -> int:
        """Return how many more datagrams of a call leg may wait that take so many bytes each."""
        leg = self._waiting.get(key)
        if leg is None and len(self._waiting) >= self._max_legs:
            return 0
        of_leg = self._max_datagrams - (0 if leg is None else leg.datagrams)
        return min(of_leg, (self._max_bytes - self._bytes - PART_BYTES) // size)

    def _put(self, key: Key, datagrams: _Waiting, slot_bytes: int) -> None:
        leg = self._waiting.get(key)
        if leg is None:
            since_ns = int(datagrams.facts["arrival"][0])
            leg = self._waiting[key] = _Leg(since_ns, slot_bytes)
        leg.parts.append(datagrams)
        leg.datagrams += len(datagrams.facts)
        self.datagrams += len(datagrams.facts)
        self._bytes += datagrams.size

    def _take(self, key: Key) -> _Leg | None:
        leg = self._waiting.pop(key, None)
        if leg is not None:
            self.datagrams -= leg.datagrams
            self._bytes -= sum(part.size for part in leg.parts)
        return leg


class _Waiting(NamedTuple):
    """Datagrams of one call leg that came together, copied out of their batch."""

    content: NDArray[np.uint8]
    """(n, bytes of the longest)."""
    facts: NDArray[np.void]
    """(n,) of `_FACTS`, in one array: an array of each would take more than most datagrams."""

    @classmethod
    def of(cls, batch: PacketBatch, slots: NDArray[np.intp], width: int) -> _Waiting:
        facts = np.empty(len(slots), _FACTS)
        facts["length"] = batch.length_bytes[slots]
        facts["arrival"] = batch.arrival_ns[slots]
        facts["source"] = batch.source[slots]
        facts["destination"] = batch.destination[slots]
        return cls(batch.buffer[slots, :width], facts)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return self.content.nbytes + self.facts.nbytes + PART_BYTES


class _Leg:
    """What waits of one call leg, in order of arrival."""

    def __init__(self, since_ns: int, slot_bytes: int) -> None:
        self.since_ns = since_ns
        self.parts: list[_Waiting] = []
        self.datagrams = 0
        self._slot_bytes = slot_bytes

    def batch(self) -> PacketBatch:
        """Return all of it as a batch that was just read."""
        batch = PacketBatch(self.datagrams, self._slot_bytes)
        start = 0
        for part in self.parts:
            rows = slice(start, start + len(part.facts))
            batch.buffer[rows, : part.content.shape[1]] = part.content
            batch.length_bytes[rows] = part.facts["length"]
            batch.arrival_ns[rows] = part.facts["arrival"]
            batch.source[rows] = part.facts["source"]
            batch.destination[rows] = part.facts["destination"]
            start = rows.stop
        batch.count = start
        return batch


def key_of(call_leg_id: UUID) -> Key:
    """Return the words of a call_leg_id."""
    word0, word1 = np.frombuffer(call_leg_id.bytes, np.uint64).tolist()
    return word0, word1
