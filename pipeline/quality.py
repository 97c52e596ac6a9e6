"""Statistics of all tracks: what arrived, and interarrival jitter by RFC 3550.

Section 6.4.1: with S the RTP timestamp and R the arrival in timestamp units,

    D(i-1, i) = (R_i - R_i-1) - (S_i - S_i-1)
    J(i) = J(i-1) + (|D(i-1, i)| - J(i-1)) / 16

over all packets in order of arrival, duplicates and late ones included, whose payload type has a
known clock. The mean is taken over the values of J, one for each packet but the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.codecs import CLOCK_RATES_HZ, CODECS, PAYLOAD_TYPES
from pipeline.rows import RowState
from pipeline.sequence import distance32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.packets import Packets

# Timestamp units per nanosecond by payload type; 0 for an unknown clock.
_CLOCK_PER_NS = np.zeros(PAYLOAD_TYPES)
for _payload_type, _rate_hz in CLOCK_RATES_HZ.items():
    _CLOCK_PER_NS[_payload_type] = _rate_hz / 1e9


class Statistics(RowState):
    """Figures per row, updated for packets of which no row comes twice."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "payload_types": ((np.uint32, PAYLOAD_TYPES), 0),
        "payload_bytes": (np.int64, 0),
        "first_arrival_ns": (np.int64, -1),
        "last_arrival_ns": (np.int64, -1),
        "jitter_ns": (np.float64, 0.0),
        "jitter_max_ns": (np.float64, 0.0),
        "jitter_sum_ns": (np.float64, 0.0),
        "jitter_packets": (np.int64, 0),
        "_clocked_ns": (np.int64, -1),
        "_clocked_timestamp": (np.int64, 0),
    }
    payload_types: NDArray[np.uint32]
    """(rows, 128): packets by payload type."""
    payload_bytes: NDArray[np.int64]
    first_arrival_ns: NDArray[np.int64]
    """-1 before the first packet, like the last."""
    last_arrival_ns: NDArray[np.int64]
    jitter_ns: NDArray[np.float64]
    """Interarrival jitter after the last packet."""
    jitter_max_ns: NDArray[np.float64]
    jitter_sum_ns: NDArray[np.float64]
    jitter_packets: NDArray[np.int64]
    """Values that the sum adds up: sum / packets is the mean."""
    _clocked_ns: NDArray[np.int64]
    """Arrival and timestamp of the last packet of a known clock; -1 for none to compare with."""
    _clocked_timestamp: NDArray[np.int64]

    def __init__(self) -> None:
        super().__init__()
        self.packets_total = 0

    def update(self, packets: Packets) -> None:
        """Count packets in order of arrival."""
        rows, arrival_ns = packets.rows, packets.arrival_ns
        self.packets_total += len(rows)
        cell = rows * PAYLOAD_TYPES + packets.payload_type
        counts = self.payload_types.reshape(-1)
        counts[cell] = counts.take(cell) + np.uint32(1)
        self.payload_bytes[rows] = self.payload_bytes.take(rows) + packets.length
        self.last_arrival_ns[rows] = arrival_ns
        first = self.first_arrival_ns.take(rows)
        if (first < 0).any():
            self.first_arrival_ns[rows] = np.where(first < 0, arrival_ns, first)
        self._update_jitter(packets)

    def restart(self, rows: NDArray[np.intp]) -> None:
        """Forget what the next packet would be compared with: its clock is another one."""
        self._clocked_ns[rows] = -1

    def _update_jitter(self, packets: Packets) -> None:
        per_ns = _CLOCK_PER_NS.take(packets.payload_type)
        if not per_ns.all():
            clocked = np.flatnonzero(per_ns)
            if not len(clocked):
                return
            packets, per_ns = packets.take(clocked), per_ns[clocked]
        rows = packets.rows
        before_ns = self._clocked_ns.take(rows)
        elapsed = distance32(packets.timestamp, self._clocked_timestamp.take(rows))
        difference_ns = np.abs(packets.arrival_ns - before_ns - elapsed / per_ns)
        jitter_ns = self.jitter_ns.take(rows)
        is_compared = before_ns >= 0
        jitter_ns += np.where(is_compared, difference_ns - jitter_ns, 0.0) / 16
        self.jitter_ns[rows] = jitter_ns
        self.jitter_max_ns[rows] = np.maximum(self.jitter_max_ns.take(rows), jitter_ns)
        self.jitter_sum_ns[rows] = self.jitter_sum_ns.take(rows) + jitter_ns * is_compared
        self.jitter_packets[rows] = self.jitter_packets.take(rows) + is_compared
        self._clocked_ns[rows] = packets.arrival_ns
        self._clocked_timestamp[rows] = packets.timestamp

    def jitter_mean_ns(self, row: int) -> float:
        """Return the mean of the jitter over one track's packets."""
        return float(self.jitter_sum_ns[row] / max(1, self.jitter_packets[row]))

    def by_payload_type(self, row: int) -> dict[int, int]:
        """Return one track's packets by payload type."""
        counts = self.payload_types[row]
        return {int(t): int(counts[t]) for t in np.flatnonzero(counts)}


def codec_name(payload_type: int) -> str:
    """Return the name of a payload type's codec, `unknown` where none is registered."""
    codec = CODECS.get(payload_type)
    return codec.name if codec else "unknown"
