"""The plug-in contract.

A `Sink` is columnar: one call hands it the frames of all tracks that are due. An `Analyzer` is
the easy way in: one object per track that is fed plain arrays. Both are found by name through the
entry-point group `strep.sinks`, or as `package.module:Class`; their options are the keyword
arguments of the constructor, converted and checked by their annotations.

Order of calls: `open(track)`, any number of `write(block)`, `silence(rows, until)`, `event(event)`,
`pause` and `resume`,
`close(track, summary)`, and at the very end one `stop()`. All calls of one sink come from one
thread: the receive loop where `threaded` is false, else a thread of the sink's own behind a bounded
queue; the option `run`, which every sink has, overrules it and knows a process of its own, too. A
full queue drops blocks (counted, never delaying a packet), but no `open`, `close`, `pause` or
`resume`.

A `write` that raises is repeated row by row; a row that raises again, while another does not, is
left out until its track is closed. Where all raise, the block is lost, and after ten such in a row
the sink is switched off; only the track, where all ten were of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future
    from uuid import UUID

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Event, Track, TrackSummary


Place = Literal["inline", "thread", "process"]
"""Where a sink runs: on the receive loop, in a thread or in a process of its own."""


class SinkError(ValueError):
    """A sink cannot be had as asked for: no such sink, wrong options, an unusable folder."""


def check_range(option: str, value: float, least: float, most: float) -> None:
    """Raise `SinkError` for an option (`SINK: NAME`) beyond its range."""
    if not least <= value <= most:
        raise SinkError(f"{option} must be between {least:g} and {most:g}, not {value:g}")


class Sink(ABC):
    """Receives the audio of all tracks; see the module for the order of calls.

    Implement `write`; the rest does nothing until overridden.
    """

    threaded: ClassVar[bool] = True
    """False only for sinks so cheap that they run on the receive loop (microseconds a block)."""
    runs_in: Place | None = None
    """Where this one was told to run; None is as `threaded` says."""
    own_process: ClassVar[bool] = True
    """False for sinks that cannot run in a process of their own."""
    blames_rows: ClassVar[bool] = True
    """False for sinks that cannot be told a block again, row by row, when `write` has raised."""
    is_awaited: ClassVar[bool] = False
    """True for sinks whose thread the end waits for as long as it takes; see `Dispatcher.stop`."""
    wake_ms: ClassVar[float] = 0
    """How long a threaded sink lets audio gather before it runs; 0 for at every tick. A sink that
    only writes to disk saves itself and the receive loop most of the waking."""

    def emit(self, event: Event) -> None:
        """Send an event to all sinks. Replaced by the dispatcher; a no-op before that."""

    def facts(self, call_leg_id: UUID, /) -> Mapping[str, Any] | None:  # noqa: ARG002 -- replaced
        """Return what is known of a call leg's call by now, as in manifests (`from`, `to`...).

        None where nobody has told anything. Replaced by the dispatcher; to be called from any
        thread.
        """
        return None

    def start(self) -> None:
        """Check and prepare what is needed. Raises `SinkError` in words for the operator."""

    def open(self, track: Track) -> None:
        """Begin a track. Its row may have belonged to another track before."""

    @abstractmethod
    def write(self, block: AudioBlock) -> None:
        """Take frames; the block and its arrays are valid during this call only."""

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """Hear that nothing came on these tracks up to these positions, by the clock.

        `rows` (n,) intp names none twice, `until` (n,) int64 are positions in samples of the
        track's rate. A few times a second at most, and for one track ever further on until audio
        comes again; that stands at its own position, which by jitter may lie before `until`.
        """

    def event(self, event: Event) -> None:
        """Hear of an event, the sink's own included; it may be of a track that is closed by now."""

    def tick(self, now_ns: int) -> None:
        """Do what is due by time; called a few times a second on the receiver's clock."""

    def pause(self, call_leg_id: UUID, at_ns: int) -> None:
        """Keep no sound of a call leg whose packets arrive from then on, on the receiver's clock.

        Tracks that are opened later are paused as well. Whatever keeps sound is to heed this.
        """

    def resume(self, call_leg_id: UUID, at_ns: int) -> None:
        """Keep the sound again whose packets arrive from then on."""

    def counters(self) -> Mapping[str, int]:
        """Return what was counted so far by name; from any thread, quickly."""
        return {}

    def gauges(self) -> Mapping[str, int]:
        """Return what there is now by name, as `counters` does; summed over workers."""
        return {}

    def close(
        self, track: Track, summary: TrackSummary
    ) -> Mapping[str, Any] | Future[Mapping[str, Any] | None] | None:
        """End a track; return results for its manifest, ready for JSON.

        A future, where they take long: other tracks do not wait for it. It is to be done when
        `stop` returns.
        """

    def stop(self) -> None:
        """Release everything; nothing is called afterwards."""


class Analyzer(ABC):
    """Analyses one track; made anew for each as `Class(track, **options)`.

    An analyser that raises is switched off for that track, logged once and counted.
    """

    def __init__(self, track: Track) -> None:
        self.track = track

    def emit(self, event: Event) -> None:
        """Send an event to all sinks. Replaced by the dispatcher; a no-op before that."""

    @abstractmethod
    def feed(self, pcm: NDArray[np.int16], position: int) -> None:
        """Take the next frame.

        `pcm` is int16 (samples,), valid during this call only. `position` is its first sample
        since the track's first one: a value past the end of the frame before means silence or
        loss in between.
        """

    def event(self, event: Event) -> None:
        """Hear of an event of this track, such as `dtmf`; the analyser's own are among them."""

    def silence(self, position: int) -> None:
        """Hear that nothing came up to this position, by the clock; see `Sink.silence`."""

    def finish(self) -> Mapping[str, Any] | None:
        """End the track; return results for its manifest, ready for JSON."""
        return None
