"""What the control plane counts, for metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strep.control.calls import CallCounts
    from strep.control.forks import Ask, Outcome, State, Why


@dataclass(frozen=True, slots=True)
class PlaneFigures:
    """The counters and gauges of a control plane."""

    webhooks: Mapping[str, int]
    """Events by type; types that are not known as `other`."""
    fork_changes: Mapping[tuple[State, Why], int]
    commands: Mapping[tuple[Ask, Outcome], int]
    refused: Mapping[str, int]
    """Forks that were asked for and could not be had, by the error's `kind`."""
    foreign_forks: int
    """Webhooks of forks that were not started here."""
    calls: CallCounts

    forks: Mapping[State, int]
    """Forks that are open; gauges, like all that follow."""
    forks_in_doubt: int
    calls_known: int
    legs_pending: int
    port_pairs: int
    port_pairs_held: int
    port_pairs_resting: int


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """The counters and gauges of a `Memory`."""

    errors: int
    """How often the database could not be written."""
    dropped_tracks: int
    """Openings and closings of tracks that are not in it, because too many waited for it."""
    waiting: int
    """Records that wait to be written; a gauge."""
