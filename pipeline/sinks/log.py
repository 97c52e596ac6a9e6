"""Events as lines of JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 -- options are converted by their annotations
from typing import TYPE_CHECKING, ClassVar, TextIO

from pipeline.sinks.base import Sink, SinkError
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from pipeline.block import AudioBlock, Event


class LogSink(Sink):
    """Writes one line per event, to the end of the file `path` or to standard output.

    A line holds `time` (UTC, the moment on the track's own media clock), `event`, `call_leg_id`,
    `leg`, `direction`, `position_s` and `data`, the event's further facts. Lines are flushed a
    few times a second.
    """

    threaded: ClassVar[bool] = True

    def __init__(self, *, path: Path | None = None) -> None:
        self._path = path
        self._file: TextIO = sys.stdout

    def start(self) -> None:
        """Open the file; raises `SinkError`."""
        if self._path is not None:
            try:
                self._file = self._path.open("a", encoding="utf-8")
            except OSError as error:
                raise SinkError(
                    f"events cannot be written to the file {self._path}: {error.strerror}"
                ) from error

    def write(self, block: AudioBlock) -> None:
        """Audio is not logged."""

    def event(self, event: Event) -> None:
        """Write the event's line."""
        track = event.track
        position_ns = event.position_samples * 1_000_000_000 // event.sample_rate_hz
        line = {
            "time": rfc3339(track.opened_unix_ns + position_ns),
            "event": event.kind,
            "call_leg_id": str(track.call_leg_id),
            "leg": track.leg,
            "direction": track.direction,
            "position_s": event.position_samples / event.sample_rate_hz,
            "data": dict(event.data),
        }
        self._file.write(json.dumps(line) + "\n")

    def tick(self, now_ns: int) -> None:  # noqa: ARG002 -- the contract's signature
        """Flush the lines."""
        self._file.flush()

    def stop(self) -> None:
        """Flush, and close the file."""
        self._file.flush()
        if self._path is not None:
            self._file.close()
