"""Statistics of all tracks: what arrived, and interarrival jitter by RFC 3550.

Section 6.4.1: with S the RTP timestamp and R the arrival in timestamp units,

    D(i-1, i) = (R_i - R_i-1) - (S_i - S_i-1)
    J(i) = J(i-1) + (|D(i-1, i)| - J(i-1)) / 16

over all packets in order of arrival, duplicates and late ones included, whose payload type has a
known clock. The mean is taken over the values of J, one for each packet but the first. Where |D| is
beyond a second the sender's timestamps stood still or jumped (a hold, another source), which says
nothing of the network: such a packet is compared with none, as a first one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.codecs import CLOCK_RATES_HZ, PAYLOAD_TYPES
from pipeline.rows import RowState
from pipeline.sequence import distance32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.packets import Packets

DEFAULT_CLOCK_HZ = 8000
"""What is taken for the RTP clock where no packet tells it."""
BREAK_NS = 1_000_000_000
"""Beyond it a difference is no jitter."""


class Statistics(RowState):
    """Figures per row, updated for packets of which no row comes twice.

    `clocks_hz` are the RTP clocks by payload type, of all tracks.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "payload_types": ((np.uint32, PAYLOAD_TYPES), 0),
        "payload_bytes": (np.int64, 0),
        "first_arrival_ns": (np.int64, -1),
        "last_arrival_ns": (np.int64, -1),
        "first_timestamp": (np.int64, -1),
        "jitter_ns": (np.float64, 0.0),
        "jitter_max_ns": (np.float64, 0.0),
        "jitter_sum_ns": (np.float64, 0.0),
        "clocked_ns": (np.int64, -1),
        "clocked_timestamp": (np.int64, 0),
        "uncompared": (np.int64, 0),
    }
    payload_types: NDArray[np.uint32]
    """(rows, 128): packets by payload type."""
    payload_bytes: NDArray[np.int64]
    first_arrival_ns: NDArray[np.int64]
    """-1 before the first packet, like the last."""
    last_arrival_ns: NDArray[np.int64]
    first_timestamp: NDArray[np.int64]
    """RTP timestamp of the track's first packet; -1 where nobody said it."""
    jitter_ns: NDArray[np.float64]
    """Interarrival jitter after the last packet."""
    jitter_max_ns: NDArray[np.float64]
    jitter_sum_ns: NDArray[np.float64]
    clocked_ns: NDArray[np.int64]
    """Arrival and timestamp of the last packet of a known clock; -1 for none to compare with."""
    clocked_timestamp: NDArray[np.int64]
    uncompared: NDArray[np.int64]
    """Packets of a known clock that had none to compare with, or were too far from it."""

    def __init__(self, clocks_hz: Mapping[int, int] = CLOCK_RATES_HZ) -> None:
        super().__init__()
        self.packets_total = 0
        self._ns_per_unit = np.zeros(PAYLOAD_TYPES)
        """Nanoseconds in a timestamp unit by payload type; 0 for an unknown clock."""
        for payload_type, clock_hz in clocks_hz.items():
            self._ns_per_unit[payload_type] = 1e9 / clock_hz
        self._learnt: dict[int, tuple[int, float]] = {}
        """By row: a payload type whose clock is known for this track alone, and its unit."""
        self._unseen: set[int] = set()
        """Renewed rows without a packet yet."""

    def renew(self, row: int) -> None:
        """Set one row to the fresh values, before its first packet."""
        super().renew(row)
        self._unseen.add(row)
        self._learnt.pop(row, None)

    def update(self, packets: Packets) -> None:
        """Count packets in order of arrival."""
        rows = packets.rows
        if not len(rows):
            return
        self.packets_total += len(rows)
        cell = rows * PAYLOAD_TYPES + packets.payload_type
        counts = self.payload_types.reshape(-1)
        counts[cell] = counts.take(cell) + np.uint32(1)
        self.payload_bytes[rows] = self.payload_bytes.take(rows) + packets.length
        self.last_arrival_ns[rows] = packets.arrival_ns
        if self._unseen:
            first = self.first_arrival_ns.take(rows)
            self.first_arrival_ns[rows] = np.where(first < 0, packets.arrival_ns, first)
            self._unseen.difference_update(rows.tolist())
        self._update_jitter(packets)

    def counted(self, packets: int) -> None:
        """Note that the columns were updated by someone else, for so many packets."""
        self.packets_total += packets
        if self._unseen:
            self._unseen = {row for row in self._unseen if self.first_arrival_ns[row] < 0}

    def uncount(self, packet: Packets, *, last_arrival_ns: int) -> bool:
        """Take one packet back, for it to be counted elsewhere; False where it was not here.

        The arrival is that of the packet before.
        """
        row = int(packet.rows[0])
        if not self.payload_types[row, int(packet.payload_type[0])]:
            return False
        self.packets_total -= 1
        self.payload_types[row, int(packet.payload_type[0])] -= np.uint32(1)
        self.payload_bytes[row] -= int(packet.length[0])
        self.last_arrival_ns[row] = last_arrival_ns
        return True

    def note_arrival(self, row: int, arrival_ns: int) -> None:
        """Take in when a row's first packet came, which is counted elsewhere."""
        self.first_arrival_ns[row] = self.last_arrival_ns[row] = arrival_ns
        self._unseen.discard(row)

    def restart(self, rows: NDArray[np.intp]) -> None:
        """Forget what the next packet would be compared with: its clock is another one."""
        self.clocked_ns[rows] = -1

    def learn_clock(self, row: int, payload_type: int, clock_hz: int) -> None:
        """Know the clock of a payload type on one track, from its next packet on."""
        self._learnt[row] = (payload_type, 1e9 / clock_hz)
        self.uncompared[row] += int(self.payload_types[row, payload_type])
        self.clocked_ns[row] = -1

    def _update_jitter(self, packets: Packets) -> None:
        ns_per_unit = self._ns_per_unit.take(packets.payload_type)
        if not ns_per_unit.all():
            if self._learnt:
                self._fill_in_learnt(packets, ns_per_unit)
            clocked = np.flatnonzero(ns_per_unit)
            if not len(clocked):
                return
            packets, ns_per_unit = packets.take(clocked), ns_per_unit[clocked]
        rows = packets.rows
        before_ns = self.clocked_ns.take(rows)
        elapsed = distance32(packets.timestamp, self.clocked_timestamp.take(rows))
        self.clocked_ns[rows] = packets.arrival_ns
        self.clocked_timestamp[rows] = packets.timestamp
        difference_ns = elapsed * ns_per_unit
        difference_ns -= packets.arrival_ns - before_ns
        np.abs(difference_ns, out=difference_ns)
        is_first = before_ns < 0
        is_first |= difference_ns > BREAK_NS
        before = self.jitter_ns.take(rows)
        jitter_ns = difference_ns
        jitter_ns -= before
        jitter_ns *= 1 / 16
        jitter_ns += before
        added_ns = jitter_ns
        if is_first.any():
            jitter_ns[is_first] = before[is_first]
            added_ns = np.where(is_first, 0, jitter_ns)
            self.uncompared[rows[is_first]] += 1
        self.jitter_ns[rows] = jitter_ns
        self.jitter_max_ns[rows] = np.maximum(self.jitter_max_ns.take(rows), jitter_ns)
        self.jitter_sum_ns[rows] = self.jitter_sum_ns.take(rows) + added_ns

    def _fill_in_learnt(self, packets: Packets, ns_per_unit: NDArray[np.float64]) -> None:
        for i in np.flatnonzero(ns_per_unit == 0).tolist():
            payload_type, unit_ns = self._learnt.get(int(packets.rows[i]), (-1, 0.0))
            if payload_type == packets.payload_type[i]:
                ns_per_unit[i] = unit_ns

    def jitter_packets(self, row: int) -> int:
        """Return how many values `jitter_sum_ns` adds up for one track."""
        clocked = int(self.payload_types[row, self._ns_per_unit > 0].sum())
        if row in self._learnt:
            clocked += int(self.payload_types[row, self._learnt[row][0]])
        return clocked - int(self.uncompared[row])

    def jitter_mean_ns(self, row: int) -> float:
        """Return the mean of the jitter over one track's packets."""
        return float(self.jitter_sum_ns[row]) / max(1, self.jitter_packets(row))

    def clock_rate_hz(self, row: int) -> int:
        """Return the rate of a track's RTP clock, by the payload type of most packets; or 8000."""
        counts = self.by_payload_type(row)
        if not counts:
            return DEFAULT_CLOCK_HZ
        payload_type = max(counts, key=lambda t: counts[t])
        learnt, unit_ns = self._learnt.get(row, (-1, 0.0))
        if payload_type != learnt:
            unit_ns = float(self._ns_per_unit[payload_type])
        return round(1e9 / unit_ns) if unit_ns else DEFAULT_CLOCK_HZ

    def by_payload_type(self, row: int) -> dict[int, int]:
        """Return one track's packets by payload type."""
        counts = self.payload_types[row]
        return {int(t): int(counts[t]) for t in np.flatnonzero(counts)}
