"""What came of each track over time: packets, losses and jitter, in a bounded number of points.

A track's points begin with its opening and are a second long; when there are more than `POINTS`,
two become one, again and again, so that a call of any length is told by 128 to 256 of them.

All tracks whose second is over are sampled together. Their seconds end in eight *phases*, at
multiples of 125 ms of the clock, by when they were opened: so no sample takes all tracks at once
where they did not begin at once. Where many did, their points are folded some at a time, from
three quarters of `POINTS` on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import Timeline
from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.jitter import JitterBank
    from pipeline.quality import Statistics

POINTS = 256
"""Of a track at most; 1.5 KiB."""
PHASES = 8
_SECOND_NS = 1_000_000_000
_PHASE_NS = _SECOND_NS // PHASES
_NEVER = np.iinfo(np.int64).max
_NOBODY = 255
_EARLY = POINTS * 3 // 4
_EARLY_SAMPLES = (POINTS - _EARLY) * 3 // 4
"""Samples in which all tracks that began at once are folded."""
_PACKETS, _LOST, _JITTER = range(3)
_MOST = 0xFFFF
_LOW = np.uint64(0xFFFF_FFFF)
_TENTH_OF_A_MS_NS = 100_000


class Timelines(RowState):
    """The points of all tracks by row, taken from the figures of others.

    `due_ns` is when the next sample is to be taken, the far future while there is no track.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "points": ((np.uint16, 3 * POINTS), 0),
        "origin_ns": (np.int64, 0),
        "interval_s": (np.int64, 1),
        "phase": (np.uint8, _NOBODY),
        "packets": (np.int64, 0),
        "lost": (np.int64, 0),
    }
    points: NDArray[np.uint16]
    """(rows, 3 * 256): packets, losses and tenths of a millisecond of jitter of each point, the
    three together."""
    origin_ns: NDArray[np.int64]
    """When the first point begins."""
    interval_s: NDArray[np.int64]
    """Length of a point, a power of two."""
    phase: NDArray[np.uint8]
    """When in a second the row is sampled; `_NOBODY` for one without an open track."""
    packets: NDArray[np.int64]
    """What was counted up to the last sample, as `lost`."""
    lost: NDArray[np.int64]

    def __init__(self, statistics: Statistics, bank: JitterBank) -> None:
        super().__init__()
        self._statistics = statistics
        self._bank = bank
        self._due_ns = np.full(PHASES, _NEVER)
        self._tracks = [0] * PHASES
        self.due_ns = _NEVER

    def open(self, row: int, opened_ns: int) -> None:
        """Begin a track's points."""
        self.ensure(row + 1)
        self.renew(row)
        origin_ns = opened_ns // _PHASE_NS * _PHASE_NS
        phase = origin_ns // _PHASE_NS % PHASES
        self.origin_ns[row] = origin_ns
        self.phase[row] = phase
        self._tracks[phase] += 1
        if self._tracks[phase] == 1:
            self._due_ns[phase] = origin_ns + _SECOND_NS
            self.due_ns = int(self._due_ns.min())

    def sample(self, now_ns: int) -> None:
        """Take the samples that are due; all that arrived before `due_ns` was counted."""
        while (due_ns := self.due_ns) <= now_ns:
            phase = due_ns // _PHASE_NS % PHASES
            self._sample(np.flatnonzero(self.phase == phase), due_ns - _SECOND_NS)
            # where nobody asked for long there is nothing to say of what lies between
            missed = (now_ns - due_ns) // _SECOND_NS
            self._due_ns[phase] = due_ns + (1 + missed) * _SECOND_NS
            self.due_ns = int(self._due_ns.min())

    def close(self, row: int) -> Timeline:
        """End a track's points, the last of them with its last packet, and return them."""
        phase = int(self.phase[row])
        last_ns = int(self._statistics.last_arrival_ns[row])
        self._sample(np.array([row]), last_ns)
        self.phase[row] = _NOBODY
        self._tracks[phase] -= 1
        if not self._tracks[phase]:
            self._due_ns[phase] = _NEVER
            self.due_ns = int(self._due_ns.min())
        interval_s = int(self.interval_s[row])
        points = self.points[row].reshape(POINTS, 3)
        # what is lost may have been given up after the last packet
        used = np.flatnonzero(points.any(axis=1))
        points = points[: int(used[-1]) + 1 if len(used) else 0]
        return Timeline(
            interval_s=float(interval_s),
            packets=tuple(points[:, _PACKETS].tolist()),
            lost=tuple(points[:, _LOST].tolist()),
            jitter_ms=tuple((points[:, _JITTER] / 10).tolist()),
        )

    def _sample(self, rows: NDArray[np.intp], began_ns: int) -> None:
        """Add what was counted since the last sample to the points that hold `began_ns`."""
        counted, lost = self._packets(rows), self._bank.lost.take(rows)
        packets, losses = counted - self.packets.take(rows), lost - self.lost.take(rows)
        new = np.flatnonzero(packets | losses)
        if len(new) < len(rows):
            if not len(new):
                return
            rows, counted, lost = rows[new], counted[new], lost[new]
            packets, losses = packets[new], losses[new]
        elapsed_s = np.maximum(began_ns - self.origin_ns.take(rows), 0) // _SECOND_NS
        while len(long := np.flatnonzero(elapsed_s >= POINTS * self.interval_s.take(rows))):
            self._fold(rows[long])
        if some := len(rows) // _EARLY_SAMPLES:
            long = np.flatnonzero(elapsed_s >= _EARLY * self.interval_s.take(rows))
            self._fold(rows[long[:some]])
        at = elapsed_s // self.interval_s.take(rows)
        jitter = self._statistics.jitter_ns.take(rows) / _TENTH_OF_A_MS_NS
        cell = rows * (3 * POINTS) + 3 * at
        points = self.points.reshape(-1)
        for column, value in ((_PACKETS, packets), (_LOST, losses)):
            points[cell + column] = np.minimum(points.take(cell + column) + value, _MOST)
        tenths = np.minimum(np.where(packets > 0, jitter, 0), _MOST).round()
        points[cell + _JITTER] = np.maximum(points.take(cell + _JITTER), tenths)
        self.packets[rows] = counted
        self.lost[rows] = lost

    def _packets(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return how many packets of each row came so far."""
        # two counts of 32 bits in a word are added up at once
        words = self._statistics.payload_types.view(np.uint64)
        sums = np.add.reduce(words.take(rows, axis=0), axis=1)
        packets: NDArray[np.int64] = ((sums >> np.uint64(32)) + (sums & _LOW)).astype(np.int64)
        return packets

    def _fold(self, rows: NDArray[np.intp]) -> None:
        """Make one point of two."""
        pairs = self.points.take(rows, axis=0).reshape(-1, POINTS // 2, 2, 3)
        one, other = pairs[:, :, 0], pairs[:, :, 1]
        folded = np.zeros((len(rows), POINTS, 3), np.uint16)
        half = folded[:, : POINTS // 2]
        half[:] = np.minimum(one.astype(np.uint32) + other, _MOST)
        half[:, :, _JITTER] = np.maximum(one[:, :, _JITTER], other[:, :, _JITTER])
        self.points[rows] = folded.reshape(-1, 3 * POINTS)
        self.interval_s[rows] *= 2
