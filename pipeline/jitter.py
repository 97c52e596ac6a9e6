"""The jitter bank: puts the packets of all tracks in order.

What comes in sequence goes straight through, from the batch that it was received in. Only what
comes behind a hole is kept: its payload moves to a cell of a shared pool, its place is a bit in
the track's `ahead` word, and it waits until the hole is filled or `reorder_ms` have passed since
the first packet behind the hole arrived; then the missing packets are lost.

Each track has two 64-bit words. Counting from `next_sequence`, the packet that is due:

```
 behind:  bit k = packet next-1-k was received     ahead:  bit k = packet next+k is held
                        ... 3 2 1 0  |  0 1 2 3 ...
                     received or not | bit 0 is always clear: that packet is the hole
```

A packet behind is a duplicate where its bit is set and late where it is not. For a packet further
ahead than the 64 of the window as many holes are closed at once as leave room for it. A packet of
another SSRC, or a jump beyond RFC 3550 appendix A.1's MAX_DROPOUT and MAX_MISORDER, is put on
probation, and the sequence restarts with it when the next packet continues it (MIN_SEQUENTIAL 2).

Time is each packet's arrival: how packets were batched changes nothing. `tick` only brings the
passing of time where no packet comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.packets import Packets, Released
from pipeline.pool import Pool
from pipeline.rows import RowState
from pipeline.sequence import distance16

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 64
MAX_DROPOUT = 3000
MAX_MISORDER = 100
PROBATION_NS = 10_000_000_000
"""How long a packet on probation waits for the one that continues it."""

MIN_GAP = 16
"""Packets received between two losses of different bursts: Gmin of RFC 3611 section 4.7.2."""

_NONE = -1
_ONE = np.uint64(1)
_NEVER = np.iinfo(np.int64).max


@dataclass(slots=True)
class _Probation:
    """A packet that may begin a new sequence: with its own payload, since its batch goes on."""

    packet: Packets
    ssrc: int
    next_sequence: int
    arrival_ns: int


class JitterBank(RowState):
    """Sequence state of all tracks by row; see the module for how it works.

    Packets are conserved: all that were pushed are released, late, duplicate, held, on probation
    or stray.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "next_sequence": (np.int64, 0),
        "ssrc": (np.int64, 0),
        "behind": (np.uint64, 0),
        "ahead": (np.uint64, 0),
        "hole_ns": (np.int64, _NEVER),
        "ring": ((np.int32, WINDOW), 0),
        "lost": (np.int64, 0),
        "late": (np.int64, 0),
        "duplicate": (np.int64, 0),
        "reordered": (np.int64, 0),
        "resets": (np.int64, 0),
        "loss_runs": (np.int32, 0),
        "longest_loss": (np.int32, 0),
        "loss_end": (np.int32, _NONE),
        "open_burst_packets": (np.int32, 0),
        "open_burst_lost": (np.int32, 0),
        "bursts": (np.int32, 0),
        "burst_packets": (np.int32, 0),
        "burst_lost": (np.int32, 0),
    }
    next_sequence: NDArray[np.int64]
    """Sequence number that is due, 0 to 65535."""
    ssrc: NDArray[np.int64]
    behind: NDArray[np.uint64]
    ahead: NDArray[np.uint64]
    hole_ns: NDArray[np.int64]
    """Arrival of the first packet behind the present hole; the far future without one."""
    ring: NDArray[np.int32]
    """(rows, 64): pool cell of a held packet, by its sequence number modulo 64."""
    lost: NDArray[np.int64]
    late: NDArray[np.int64]
    duplicate: NDArray[np.int64]
    reordered: NDArray[np.int64]
    resets: NDArray[np.int64]
    loss_runs: NDArray[np.int32]
    """Runs of packets lost one after the other."""
    longest_loss: NDArray[np.int32]
    """Packets in the longest of them."""
    loss_end: NDArray[np.int32]
    """Sequence number behind the last run, -1 without one in this sequence."""
    open_burst_packets: NDArray[np.int32]
    """Packets from the first to the last lost one of what may still grow, as `open_burst_lost`."""
    open_burst_lost: NDArray[np.int32]
    bursts: NDArray[np.int32]
    """Bursts that are over, see `burst_totals`; their packets, and the lost ones of these."""
    burst_packets: NDArray[np.int32]
    burst_lost: NDArray[np.int32]

    def __init__(self, *, reorder_ms: float = 60, max_held: int = 16_384) -> None:
        super().__init__()
        self.reorder_ns = round(reorder_ms * 1e6)
        self.max_held = max_held
        """When more packets than this wait, all holes are closed at once."""
        self.pool = Pool()
        self.released_total = 0
        self.late_total = 0
        self.duplicate_total = 0
        self.lost_total = 0
        self.reordered_total = 0
        self.resets_total = 0
        self.stray_total = 0
        self._probation: dict[int, _Probation] = {}
        self._freed: list[NDArray[np.int32]] = []

    @property
    def held(self) -> int:
        """Packets that wait behind a hole."""
        return self.pool.used - sum(map(len, self._freed))

    @property
    def is_crowded(self) -> bool:
        """Whether so many packets wait that the next push closes all holes."""
        return self.pool.used > self.max_held

    @property
    def on_probation(self) -> int:
        """Packets that may begin a new sequence."""
        return len(self._probation)

    def burst_totals(self, row: int) -> tuple[int, int, int]:
        """Return a track's bursts, the packets in them, and how many of these were lost.

        RFC 3611 section 4.7.2: a burst begins and ends with a lost packet, and fewer than `MIN_GAP`
        packets were received between any two losses in it. A single loss that stands alone is none.
        Late packets count as lost.
        """
        is_burst = int(self.open_burst_lost[row]) > 1
        return (
            int(self.bursts[row]) + is_burst,
            int(self.burst_packets[row]) + is_burst * int(self.open_burst_packets[row]),
            int(self.burst_lost[row]) + is_burst * int(self.open_burst_lost[row]),
        )

    def open(self, row: int, *, ssrc: int, sequence: int) -> None:
        """Begin a track whose first packet is about to be pushed."""
        self.ensure(row + 1)
        self.renew(row)
        self.ssrc[row] = ssrc
        self.next_sequence[row] = sequence

    def recount(self, row: int) -> None:
        """Begin the counts of a row anew, and leave its packets where they are."""
        for counts in (self.lost, self.late, self.duplicate, self.reordered, self.resets):
            counts[row] = 0
        for losses in (
            self.loss_runs, self.longest_loss, self.bursts, self.burst_packets, self.burst_lost,
            self.open_burst_packets, self.open_burst_lost,
        ):  # fmt: skip
            losses[row] = 0
        self.loss_end[row] = _NONE

    def push(self, packets: Packets) -> tuple[NDArray[np.bool_] | None, list[Released]]:
        """Take packets of open tracks of which no row comes twice.

        Returns which of them belong to their track (None for all: the others are stray or on
        probation) and what they release, in the order in which sinks must see it.
        """
        self._free_cells()
        released: list[Released] = []
        if self.is_crowded:
            self._close_holes(np.flatnonzero(self.ahead), released)
        rows = packets.rows
        due = self.next_sequence.take(rows)
        in_sequence = packets.sequence == due
        in_sequence &= packets.ssrc == self.ssrc.take(rows)
        # nothing waits anywhere, or nothing on these tracks: straight through
        if in_sequence.all() and not (self.pool.used and self.ahead.take(rows).any()):
            self._advance(rows, due)
            self.released_total += len(rows)
            released.append(Released(packets))
            return None, released
        overdue = packets.arrival_ns - self.hole_ns.take(rows) >= self.reorder_ns
        if overdue.any():
            self._give_up(rows[overdue], packets.arrival_ns[overdue], released)
            due = self.next_sequence.take(rows)
        return self._push_odd(packets, due, released), released

    def tick(self, now_ns: int) -> list[Released]:
        """Give up what is overdue. All packets that arrived before `now_ns` have been pushed."""
        self._free_cells()
        released: list[Released] = []
        if self.pool.used:
            rows = np.flatnonzero(now_ns - self.hole_ns >= self.reorder_ns)
            if len(rows):
                self._give_up(rows, np.full(len(rows), now_ns), released)
        for row in [r for r, p in self._probation.items() if now_ns - p.arrival_ns > PROBATION_NS]:
            self._disown(row)
        return released

    def close(self, row: int) -> list[Released]:
        """End a track: release what it holds, as if its time were over."""
        self._free_cells()
        released: list[Released] = []
        self._close_holes(np.array([row]), released)
        self._disown(row)
        return released

    def _push_odd(
        self,
        packets: Packets,
        due: NDArray[np.int64],
        released: list[Released],
    ) -> NDArray[np.bool_] | None:
        """Push where not every packet goes straight through; returns as `push`."""
        rows = packets.rows
        ahead = self.ahead.take(rows)
        delta = distance16(packets.sequence, due)
        foreign = packets.ssrc != self.ssrc.take(rows)
        foreign |= (delta >= WINDOW) | (delta < -MAX_MISORDER)
        known = ~foreign

        behind = np.flatnonzero(known & (delta < 0))
        if len(behind):
            back = (-1 - delta[behind]).astype(np.uint64)
            history = self.behind.take(rows[behind])
            is_duplicate = (back < WINDOW) & (history >> np.minimum(back, 63) & _ONE != 0)
            self.duplicate[rows[behind]] += is_duplicate
            self.late[rows[behind]] += ~is_duplicate
            # a late packet's repetition is a duplicate
            mark = np.where(back < WINDOW, _ONE << np.minimum(back, 63), 0).astype(np.uint64)
            self.behind[rows[behind]] = history | mark
            duplicates = int(is_duplicate.sum())
            self.duplicate_total += duplicates
            self.late_total += len(behind) - duplicates

        beyond = np.flatnonzero(known & (delta > 0))
        if len(beyond):
            place = delta[beyond].astype(np.uint64)
            is_duplicate = ahead[beyond] >> place & _ONE != 0
            self.duplicate[rows[beyond]] += is_duplicate
            self.duplicate_total += int(is_duplicate.sum())
            self._hold(packets.take(beyond[~is_duplicate]), place[~is_duplicate])

        now = np.flatnonzero(known & (delta == 0))
        if len(now):
            arrived = packets.take(now)
            self._advance(arrived.rows, arrived.sequence)
            released.append(Released(arrived))
            self.released_total += len(now)
            late_comers = now[ahead[now] != 0]
            self.reordered[rows[late_comers]] += 1
            self.reordered_total += len(late_comers)
            self.ahead[rows[late_comers]] = ahead[late_comers] >> _ONE
            self._fill(rows[late_comers], released)

        for i in np.flatnonzero(foreign):
            known[i] = self._push_foreign(packets.take(np.array([i])), int(delta[i]), released)
        return None if known.all() else known

    def _advance(self, rows: NDArray[np.intp], sequence: NDArray[np.int64]) -> None:
        """Step over the packets that were due, of these sequence numbers: they have arrived."""
        self.next_sequence[rows] = sequence + 1 & 0xFFFF
        self.behind[rows] = self.behind.take(rows) << _ONE | _ONE

    def _hold(self, packets: Packets, place: NDArray[np.uint64]) -> None:
        """Keep packets `place` packets behind a hole, none of which is there yet."""
        rows = packets.rows
        cells = self.pool.put(packets)
        self.ring[rows, packets.sequence % WINDOW] = cells
        ahead = self.ahead.take(rows)
        is_reordered = ahead >> place != 0
        self.reordered[rows] += is_reordered
        self.reordered_total += int(is_reordered.sum())
        self.ahead[rows] = ahead | _ONE << place
        self.hole_ns[rows] = np.minimum(self.hole_ns.take(rows), packets.arrival_ns)

    def _fill(
        self,
        rows: NDArray[np.intp],
        released: list[Released],
        lost: NDArray[np.int64] | None = None,
    ) -> None:
        """Release what follows in sequence from the ring, `lost` standing before the first."""
        touched = rows
        while True:
            is_there = self.ahead.take(rows) & _ONE != 0
            rows = rows[is_there]
            if not len(rows):
                break
            sequence = self.next_sequence.take(rows)
            cells = self.ring[rows, sequence % WINDOW]
            held = self.pool.packets(cells, rows=rows, ssrc=self.ssrc.take(rows), sequence=sequence)
            released.append(Released(held, lost))
            self.released_total += len(rows)
            lost = None
            self._freed.append(cells)
            self._advance(rows, sequence)
            self.ahead[rows] = self.ahead.take(rows) >> _ONE
        self._time_holes(touched)

    def _time_holes(self, rows: NDArray[np.intp]) -> None:
        """Find when the first packet behind each row's present hole arrived."""
        ahead = self.ahead.take(rows)
        self.hole_ns[rows] = _NEVER
        waiting = rows[ahead != 0]
        if not len(waiting):
            return
        places = np.arange(WINDOW)
        is_held = ahead[ahead != 0][:, None] >> places.astype(np.uint64) & _ONE != 0
        slots = (self.next_sequence.take(waiting)[:, None] + places) % WINDOW
        arrival_ns = self.pool.arrival_ns.take(self.ring[waiting[:, None], slots])
        self.hole_ns[waiting] = np.where(is_held, arrival_ns, _NEVER).min(axis=1)

    def _give_up(
        self, rows: NDArray[np.intp], now_ns: NDArray[np.int64], released: list[Released]
    ) -> None:
        """Close holes that are overdue at `now_ns`, the next ones behind them too."""
        while len(rows):
            self._close_hole(rows, released)
            overdue = now_ns - self.hole_ns.take(rows) >= self.reorder_ns
            rows, now_ns = rows[overdue], now_ns[overdue]

    def _close_hole(self, rows: NDArray[np.intp], released: list[Released]) -> None:
        """Close the first hole of each of these tracks, which all have one."""
        ahead = self.ahead.take(rows)
        # trailing zeros: how many packets are missing
        missing = np.bitwise_count(ahead ^ (ahead - _ONE)).astype(np.int64) - 1
        self._lose(rows, missing)
        self.ahead[rows] = ahead >> missing.astype(np.uint64)
        self._fill(rows, released, missing)

    def _lose(self, rows: NDArray[np.intp], missing: NDArray[np.int64]) -> None:
        """Step over packets that are given up; the caller moves `ahead`."""
        self.lost[rows] += missing
        self.lost_total += int(missing.sum())
        self._count_runs(rows, missing)
        self.next_sequence[rows] = (self.next_sequence.take(rows) + missing) & 0xFFFF
        shift = np.minimum(missing, WINDOW - 1).astype(np.uint64)
        self.behind[rows] = np.where(missing < WINDOW, self.behind.take(rows) << shift, 0)

    def _count_runs(self, rows: NDArray[np.intp], missing: NDArray[np.int64]) -> None:
        """Count runs of losses and join them to bursts, before the sequence steps over them."""
        if not missing.all():
            rows, missing = rows[missing > 0], missing[missing > 0]
        lost = missing.astype(np.int32)
        due = self.next_sequence.take(rows).astype(np.int32)
        self.loss_runs[rows] += 1
        self.longest_loss[rows] = np.maximum(self.longest_loss.take(rows), lost)
        end = self.loss_end.take(rows)
        # where a loss follows exactly a turn of the sequence later, it counts as of the same burst
        received = due - end & 0xFFFF
        goes_on = (end != _NONE) & (received < MIN_GAP)
        over = rows[~goes_on]
        is_burst = self.open_burst_lost.take(over) > 1
        self.bursts[over] += is_burst
        self.burst_packets[over] += self.open_burst_packets.take(over) * is_burst
        self.burst_lost[over] += self.open_burst_lost.take(over) * is_burst
        open_packets, open_lost = (
            self.open_burst_packets.take(rows),
            self.open_burst_lost.take(rows),
        )
        self.open_burst_packets[rows] = np.where(goes_on, open_packets + received, 0) + lost
        self.open_burst_lost[rows] = np.where(goes_on, open_lost, 0) + lost
        self.loss_end[rows] = due + lost & 0xFFFF

    def _close_holes(self, rows: NDArray[np.intp], released: list[Released]) -> None:
        """Close all holes of these tracks now."""
        while len(rows := rows[self.ahead.take(rows) != 0]):
            self._close_hole(rows, released)

    def _push_foreign(self, packet: Packets, delta: int, released: list[Released]) -> bool:
        """Push one packet from beyond the window or of another SSRC; True if it belongs."""
        row, ssrc = int(packet.rows[0]), int(packet.ssrc[0])
        sequence = int(packet.sequence[0])
        if ssrc == self.ssrc[row] and WINDOW <= delta < MAX_DROPOUT:
            while delta >= WINDOW and self.ahead[row]:
                self._close_hole(packet.rows, released)
                delta = int(distance16(sequence, int(self.next_sequence[row])))
            if delta >= WINDOW:
                lost = np.array([delta])
                self._lose(packet.rows, lost)
                self._release_alone(packet, released, lost=lost)
            elif delta:
                self._hold(packet, np.array([delta], np.uint64))
            else:
                self._release_alone(packet, released)
            return True
        first = self._probation.get(row)
        if first is None or (first.ssrc, first.next_sequence) != (ssrc, sequence):
            self._disown(row)
            self._probation[row] = _Probation(
                packet.copy(), ssrc, (sequence + 1) & 0xFFFF, int(packet.arrival_ns[0])
            )
            return False
        del self._probation[row]
        self._close_holes(packet.rows, released)
        self.ssrc[row] = ssrc
        self.next_sequence[row] = first.packet.sequence[0]
        self.behind[row] = 0
        self.loss_end[row] = _NONE
        self.resets[row] += 1
        self.resets_total += 1
        self._release_alone(first.packet, released, restarted=True)
        self._release_alone(packet, released)
        return True

    def _release_alone(
        self,
        packet: Packets,
        released: list[Released],
        *,
        lost: NDArray[np.int64] | None = None,
        restarted: bool = False,
    ) -> None:
        """Release one packet that is due, of a track that holds nothing."""
        self._advance(packet.rows, packet.sequence)
        released.append(Released(packet, lost, restarted))
        self.released_total += 1

    def _disown(self, row: int) -> None:
        """End a probation without a restart: the packet was a stray one."""
        if self._probation.pop(row, None) is not None:
            self.stray_total += 1

    def _free_cells(self) -> None:
        """Give back the cells of what was released by the call before."""
        for cells in self._freed:
            self.pool.free(cells)
        self._freed.clear()
