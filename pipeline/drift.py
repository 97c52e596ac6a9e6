"""How fast the senders' clocks run: media time against arrivals, for all tracks at once.

Five times a second, of each track that a frame has come of, two numbers are taken: when that
frame's end arrived, and how far media time had come beyond that. A line through these points, by
least squares, rises with the difference of the two clocks. Where the relation of timestamps to
arrivals is broken (another source, timestamps that jump, a gap between clocks), the points before
and behind belong to lines of one slope, but of their own height: their sums are taken about their
own means and pooled.

Nothing is resampled by what comes of it: it is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.playout import Playout

INTERVAL_NS = 200_000_000
MIN_SPAN_S = 10.0
"""Shorter tracks say nothing of their clock."""
MAX_ERROR_PPM = 15.0
"""Standard error of the slope beyond which it is not told: jitter hides it."""
JUMP_S = 0.2
"""Points that far apart in height are not of one line: no clock drifts so in a moment."""


class Drift(RowState):
    """Sums over the points of all tracks by row; heights and times in seconds."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "first_ns": (np.int64, -1),
        "seen_ns": (np.int64, 0),
        "realignments": (np.int64, 0),
        "points": (np.int64, 0),
        "lines": (np.int64, 0),
        "in_line": (np.int64, 0),
        "last_height": (np.float64, 0.0),
        "mean_time": (np.float64, 0.0),
        "mean_height": (np.float64, 0.0),
        "time_squares": (np.float64, 0.0),
        "products": (np.float64, 0.0),
        "height_squares": (np.float64, 0.0),
    }
    first_ns: NDArray[np.int64]
    """Arrival of the first point, -1 before it."""
    seen_ns: NDArray[np.int64]
    """The playout's `next_arrival_ns` at the last point."""
    realignments: NDArray[np.int64]
    """The playout's at the last point."""
    points: NDArray[np.int64]
    lines: NDArray[np.int64]
    in_line: NDArray[np.int64]
    """Points on the present line."""
    last_height: NDArray[np.float64]
    mean_time: NDArray[np.float64]
    """Of the present line, as the height's."""
    mean_height: NDArray[np.float64]
    time_squares: NDArray[np.float64]
    """Sums about the means, over all lines."""
    products: NDArray[np.float64]
    height_squares: NDArray[np.float64]

    def sample(self, playout: Playout) -> None:
        """Take a point of each track that a frame has come of since the last time."""
        n = min(self.rows, playout.rows)
        rows = np.flatnonzero(
            (playout.next_arrival_ns[:n] != self.seen_ns[:n]) & (playout.end[:n] > 0)
        )
        if not len(rows):
            return
        arrival_ns = playout.next_arrival_ns.take(rows)
        self.seen_ns[rows] = arrival_ns
        first_ns = self.first_ns.take(rows)
        first_ns = np.where(first_ns < 0, arrival_ns, first_ns)
        self.first_ns[rows] = first_ns
        time = (arrival_ns - first_ns) / 1e9
        height = playout.end.take(rows) / playout.rate_hz.take(rows) - time
        realignments = playout.realignments.take(rows)
        broken = realignments != self.realignments.take(rows)
        broken |= np.abs(height - self.last_height.take(rows)) > JUMP_S
        self.realignments[rows] = realignments
        self.last_height[rows] = height
        in_line = np.where(broken, 0, self.in_line.take(rows)) + 1
        self.in_line[rows] = in_line
        self.lines[rows] += in_line == 1
        self.points[rows] += 1
        # Welford's way: no difference of large numbers
        from_time = time - self.mean_time.take(rows)
        from_height = height - self.mean_height.take(rows)
        self.mean_time[rows] += from_time / in_line
        self.mean_height[rows] += from_height / in_line
        weight = (in_line - 1) / in_line
        self.time_squares[rows] += from_time * from_time * weight
        self.products[rows] += from_time * from_height * weight
        self.height_squares[rows] += from_height * from_height * weight

    def ppm(self, row: int) -> float | None:
        """Return how much faster than the receiver's the sender's clock runs, in ppm.

        None for a track that is too short, or whose jitter hides it.
        """
        squares, freedom = (
            float(self.time_squares[row]),
            int(self.points[row] - self.lines[row]) - 1,
        )
        # of points that stand evenly in a span, the squares are span**2 / 12 each
        if freedom < 1 or 12 * squares < MIN_SPAN_S**2 * int(self.points[row]):
            return None
        slope = float(self.products[row]) / squares
        rest = max(0.0, float(self.height_squares[row]) - slope * float(self.products[row]))
        error = (rest / freedom / squares) ** 0.5
        return slope * 1e6 if error * 1e6 <= MAX_ERROR_PPM else None
