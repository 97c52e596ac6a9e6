"""Runs analysers, one per track, as a sink."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.sinks.base import Analyzer, Sink

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Event, Track, TrackSummary

logger = logging.getLogger("pipeline.sinks")


class AnalyzerSink(Sink):
    """Makes an analyser per track, as `analyzer(track, **options)`, and feeds it frame by frame.

    An analyser that raises is dropped: its track has no results, the other tracks go on. Analysers
    get read-only views of the frames, since other sinks see the same memory.
    """

    threaded: ClassVar[bool] = True

    def __init__(self, analyzer: type[Analyzer], options: Mapping[str, Any] | None = None) -> None:
        self.errors = 0
        """Analysers that raised and were switched off."""
        self.passes_memory_errors = False
        """Whether a lack of memory is everybody's affair, and not that of one track."""
        self._analyzer = analyzer
        self._options = dict(options or {})
        self._running: dict[int, Analyzer] = {}
        """By row of the track."""

    def open(self, track: Track) -> None:
        """Make the track's analyser."""
        try:
            analyzer = self._analyzer(track, **self._options)
        except Exception as error:  # noqa: BLE001 -- whatever a user's code raises stays with its track
            self._switch_off(track, error)
        else:
            analyzer.emit = self.emit  # type: ignore[method-assign]
            self._running[track.row] = analyzer

    def write(self, block: AudioBlock) -> None:
        """Feed each frame to the analyser of its track."""
        pcm = block.pcm.view()
        pcm.flags.writeable = False
        frames = zip(block.rows.tolist(), block.position.tolist(), pcm, strict=True)
        for row, position, frame in frames:
            analyzer = self._running.get(row)
            if analyzer is not None:
                try:
                    analyzer.feed(frame, position)
                except Exception as error:  # noqa: BLE001 -- see open
                    self._switch_off(analyzer.track, error)

    def event(self, event: Event) -> None:
        """Tell the analyser of the event's track, if that is still open."""
        analyzer = self._running.get(event.track.row)
        if analyzer is not None:
            try:
                if analyzer.track == event.track:
                    analyzer.event(event)
            except Exception as error:  # noqa: BLE001 -- see open
                self._switch_off(event.track, error)

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """Tell each track's analyser that nothing came."""
        for row, position in zip(rows.tolist(), until.tolist(), strict=True):
            analyzer = self._running.get(row)
            if analyzer is not None:
                try:
                    analyzer.silence(position)
                except Exception as error:  # noqa: BLE001 -- see open
                    self._switch_off(analyzer.track, error)

    def close(self, track: Track, summary: TrackSummary) -> Mapping[str, Any] | None:
        """Return what the analyser found."""
        del summary
        analyzer = self._running.pop(track.row, None)
        if analyzer is None:
            return None
        try:
            return analyzer.finish()
        except Exception as error:  # noqa: BLE001 -- see open
            self._switch_off(track, error)
            return None

    def _switch_off(self, track: Track, error: Exception) -> None:
        if self.passes_memory_errors and isinstance(error, MemoryError):
            raise error
        self.errors += 1
        self._running.pop(track.row, None)
        logger.error(
            "%s raised and is switched off for call leg %s, leg %s, %s",
            self._analyzer.__name__,
            track.call_leg_id,
            track.leg,
            track.direction,
            exc_info=error,
        )
