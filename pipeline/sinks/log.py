"""Events as lines of JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 -- options are converted by their annotations
from typing import TYPE_CHECKING, ClassVar

from pipeline.sinks.base import Sink, SinkError
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from io import FileIO

    from pipeline.block import AudioBlock, Event


class LogSink(Sink):
    """Writes one line per event, to the end of the file `path` or to standard output.

    A line holds `time` (UTC, the moment on the track's own media clock), `event`, `call_leg_id`,
    `leg`, `direction`, `position_s` and `data`, the event's further facts. Lines are written a few
    times a second: to a file whole lines in one go, so that several processes can share it.
    """

    threaded: ClassVar[bool] = True

    def __init__(self, *, path: Path | None = None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._lines: list[str] = []

    def start(self) -> None:
        """Open the file; raises `SinkError`."""
        if self._path is not None:
            try:
                self._file = self._path.open("ab", buffering=0)
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
        self._lines.append(json.dumps(line) + "\n")

    def tick(self, now_ns: int) -> None:  # noqa: ARG002 -- the contract's signature
        """Write the lines."""
        text = "".join(self._lines)
        self._lines.clear()
        if self._file is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        content = text.encode()
        while content:  # once, unless the disk is full
            content = content[self._file.write(content) :]

    def stop(self) -> None:
        """Write what is left, and close the file."""
        self.tick(0)
        if self._file is not None:
            self._file.close()
