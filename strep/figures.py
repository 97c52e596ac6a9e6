"""What workers count, in a form that can be sent as JSON and summed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

State = Literal["up", "silent", "down"]
"""`silent` runs but did not answer in time, `down` has no process that receives."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The counters and gauges of a worker, or the sum of several."""

    datagrams_read: int = 0
    datagrams_merged: int = 0
    """Of those, read together with others as one."""
    datagrams: Mapping[str, int] = field(default_factory=dict)
    """Datagrams by what became of them; those on probation are in `waiting`."""
    packets: Mapping[str, int] = field(default_factory=dict)
    """The pipeline's counters by name."""
    tracks_opened: int = 0
    tracks_closed: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    sink_frames: Mapping[str, int] = field(default_factory=dict)
    """By sink, like all that follow."""
    sink_dropped_frames: Mapping[str, int] = field(default_factory=dict)
    sink_errors: Mapping[str, int] = field(default_factory=dict)
    sink_restarts: Mapping[str, int] = field(default_factory=dict)
    tracks_distributed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """How the figures of closed tracks are distributed, see `Distributions.counts`."""
    sink_counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What sinks counted themselves, see `Sink.counters`."""
    rtcp: Mapping[str, int] = field(default_factory=dict)
    """Datagrams of RTCP by what became of them."""
    news_dropped: int = 0
    """Openings and closings of tracks that nobody will hear of."""
    manifests_failed: int = 0
    """How often the manifest of a recording could not be written."""
    pair_kernel_drops: int = 0
    """Datagrams that the kernel dropped on pairs of ports."""
    cpu_s: float = 0.0
    """Processor time, of the user and the system."""

    tracks_open: int = 0
    """A gauge, like all that follow."""
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Packets that wait: `held`, `on_probation` and `pending`."""
    legs_pending: int = 0
    """Call legs that are not known, and whose packets wait for that."""
    sink_queue_bytes: Mapping[str, int] = field(default_factory=dict)
    sink_off: Mapping[str, int] = field(default_factory=dict)
    """In how many workers a sink is switched off."""
    sink_gauges: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """See `Sink.gauges`."""

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            **{
                each.name: _sum(getattr(self, each.name), getattr(other, each.name))
                for each in fields(self)
            }
        )

    def of_the_dead(self) -> Figures:
        """Return what stays of these figures when their worker is no more.

        The gauges are gone; tracks that were open count as closed, `worker_died`.
        """
        closed = dict(self.tracks_closed)
        if self.tracks_open:
            closed["worker_died"] = closed.get("worker_died", 0) + self.tracks_open
        return replace(
            self,
            tracks_closed=closed,
            tracks_open=0,
            waiting={},
            legs_pending=0,
            sink_queue_bytes={},
            sink_off={},
            sink_gauges={},
        )


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, int | float):
        return one + other
    return {
        key: _sum(one[key], other[key]) if key in one and key in other else (one | other)[key]
        for key in (*one, *other)
    }


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as its parent sees it."""

    number: int
    pid: int | None
    state: State
    figures: Figures
    """Its own and those of its predecessors: they never go back."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All workers at one moment."""

    workers: Sequence[WorkerView]
    restarts: int = 0
    """How often a worker was replaced."""

    @property
    def total(self) -> Figures:
        """The sum of all workers."""
        return sum((worker.figures for worker in self.workers), Figures())
