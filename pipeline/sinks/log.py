"""Events as lines of JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 -- options are converted by their annotations
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.manifest import HIDDEN_DIGIT
from pipeline.sinks.base import Sink, SinkError
from pipeline.sinks.pausing import MARGIN_NS, Pauses
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from io import FileIO
    from uuid import UUID

    from pipeline.block import AudioBlock, Event


class LogSink(Sink):
    """Writes one line per event, to the end of the file `path` or to standard output.

    A line holds `time` (UTC, the moment on the track's own media clock), `event`, `call_leg_id`,
    `leg`, `direction`, `position_s` and `data`, the event's further facts; of keys that were
    pressed while the call leg was paused the `digit` is `?`. Lines are written a few times a
    second: to a file whole lines in one go, so that several processes can share it.
    """

    threaded: ClassVar[bool] = True

    def __init__(self, *, path: Path | None = None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._lines: list[str] = []
        self._pauses = Pauses()

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
            "data": self._data(event, track.opened_ns + position_ns),
        }
        self._lines.append(json.dumps(line) + "\n")

    def pause(self, call_leg_id: UUID, at_ns: int) -> None:
        """Name no keys that are pressed from then on."""
        self._pauses.begin(call_leg_id, at_ns, set())

    def resume(self, call_leg_id: UUID, at_ns: int) -> None:
        """Name the keys again."""
        self._pauses.end(call_leg_id, at_ns)

    def tick(self, now_ns: int) -> None:
        """Write the lines."""
        self._pauses.forget(now_ns)
        text = "".join(self._lines)
        self._lines.clear()
        if self._file is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        content = text.encode()
        while content:  # once, unless the disk is full
            content = content[self._file.write(content) :]

    def _data(self, event: Event, at_ns: int) -> dict[str, Any]:
        """Return an event's further facts, less what is not to be kept."""
        first_ns, last_ns = at_ns - MARGIN_NS, at_ns + MARGIN_NS
        if "digit" in event.data and self._pauses.holds(event.track.call_leg_id, first_ns, last_ns):
            return {**event.data, "digit": HIDDEN_DIGIT}
        return dict(event.data)

    def stop(self) -> None:
        """Write what is left, and close the file."""
        self.tick(0)
        if self._file is not None:
            self._file.close()
