"""How the figures of closed tracks are distributed, in buckets, for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from pipeline import emodel
from pipeline.verdict import mean_burst_packets, ratings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.block import TrackSummary

_RATIOS = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
_SCORES = (1.5, 2.0, 2.5, 3.0, 3.25, 3.5, 3.75, 4.0, 4.1, 4.2, 4.3, 4.4)
BUCKETS: Mapping[str, tuple[float, ...]] = {
    "mos": _SCORES,
    "mos_concealed": _SCORES,
    "loss_ratio": _RATIOS,
    "discard_ratio": _RATIOS,
    "loss_burst_packets": (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0),
    "jitter_seconds": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    "drift_ppm": (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0),
}
"""The upper bounds of each figure's buckets, but for the last, which has none. Of the drift it is
the size that is counted."""
REST = "+Inf"
SUM = "sum"


class Distributions:
    """Counts of closed tracks.

    `counts[figure]` has a count for each bucket, by its upper bound as a text (`0.01`, `+Inf`; not
    cumulative), and the `sum` of the values.
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, float]] = {
            name: {**{repr(bound): 0 for bound in bounds}, REST: 0, SUM: 0.0}
            for name, bounds in BUCKETS.items()
        }

    def add(self, summary: TrackSummary) -> None:
        """Count a track; a figure that it does not have is not counted."""
        rating, concealed = ratings(summary)
        values = {
            "mos": None if rating is None else emodel.mos(rating),
            "mos_concealed": None if concealed is None else emodel.mos(concealed),
            "loss_ratio": summary.loss_ratio,
            "discard_ratio": summary.late / max(1, summary.expected),
            "loss_burst_packets": mean_burst_packets(summary) or None,
            "jitter_seconds": summary.jitter_mean_ms / 1000,
            "drift_ppm": None if summary.drift_ppm is None else abs(summary.drift_ppm),
        }
        for name, value in values.items():
            if value is not None:
                bounds = BUCKETS[name]
                at = bisect_left(bounds, value)
                counts = self.counts[name]
                counts[repr(bounds[at]) if at < len(bounds) else REST] += 1
                counts[SUM] += value

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Return a copy of the counts."""
        return {name: dict(counts) for name, counts in self.counts.items()}
