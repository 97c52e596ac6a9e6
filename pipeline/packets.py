"""Packets as columns, on their way into the jitter bank and out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True)
class Packets:
    """RTP packets in order of arrival, one entry per packet in every column.

    The payloads stay where they were received: packet i's is
    `store[slot[i], offset[i] : offset[i] + length[i]]`, valid as long as the owner of `store`
    says (a batch: until the next read).
    """

    rows: NDArray[np.intp]
    """The row of each packet's track."""
    ssrc: NDArray[np.int64]
    sequence: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    payload_type: NDArray[np.int64]
    arrival_ns: NDArray[np.int64]
    store: NDArray[np.uint8]
    """(slots, slot_bytes) uint8."""
    slot: NDArray[np.intp]
    offset: NDArray[np.int64]
    """In bytes."""
    length: NDArray[np.int64]
    """In bytes."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[np.intp]) -> Packets:
        """Return the packets at these indices; the payloads are not copied."""
        return Packets(
            rows=self.rows.take(which),
            ssrc=self.ssrc.take(which),
            sequence=self.sequence.take(which),
            timestamp=self.timestamp.take(which),
            payload_type=self.payload_type.take(which),
            arrival_ns=self.arrival_ns.take(which),
            store=self.store,
            slot=self.slot.take(which),
            offset=self.offset.take(which),
            length=self.length.take(which),
        )

    def copy(self) -> Packets:
        """Return packets that own their payloads, and may be kept."""
        return Packets(
            rows=self.rows.copy(),
            ssrc=self.ssrc.copy(),
            sequence=self.sequence.copy(),
            timestamp=self.timestamp.copy(),
            payload_type=self.payload_type.copy(),
            arrival_ns=self.arrival_ns.copy(),
            store=self.store.take(self.slot, axis=0),
            slot=np.arange(len(self.rows)),
            offset=self.offset.copy(),
            length=self.length.copy(),
        )

    def rounds(self, scratch: NDArray[np.intp]) -> list[Packets]:
        """Split into rounds in which no row comes twice, the first packet of each row first.

        Within a row the order of arrival is kept. `scratch` is any array with an entry per row;
        its values before and after are of no meaning.
        """
        rows = self.rows
        n = len(rows)
        index = np.arange(n)
        scratch[rows] = index
        if (scratch.take(rows) == index).all():
            return [self]
        order = rows.argsort(kind="stable")
        rows = rows.take(order)
        is_first = np.empty(n, np.bool_)
        is_first[0] = True
        np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
        # the how-manieth packet of its row each one is
        occurrence = index - np.maximum.accumulate(np.where(is_first, index, 0))
        by_round = occurrence.argsort(kind="stable")
        ends = np.bincount(occurrence).cumsum()
        which = order.take(by_round)
        return [self.take(part) for part in np.split(which, ends[:-1])]


@dataclass(slots=True)
class Released:
    """Packets of different tracks that left the jitter bank in order, none of a row twice.

    Valid until the next call of the bank that released them.
    """

    packets: Packets
    lost: NDArray[np.int64] | None = None
    """Packets given up immediately before each; None for none."""
    restarted: bool = False
    """True where these begin a new sequence, whose timestamps have nothing to do with the old."""

    def take(self, which: NDArray[np.intp]) -> Released:
        """Return the packets at these indices; the payloads are not copied."""
        lost = None if self.lost is None else self.lost.take(which)
        return Released(self.packets.take(which), lost, self.restarted)
