"""What happens to tracks, on its way from the threads that it happens in to the event loop.

A track is opened on the receive loop and closed by the last of its sinks, on that sink's thread.
News are JSON texts, so that they can go on to another process, or to a database, as they are.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import structlog

from pipeline.manifest import track_entry
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.block import Track, TrackSummary
    from pipeline.dispatch import Results

    What = Literal["opened", "closed"]

logger = structlog.get_logger("strep")

MAX_WAITING = 100_000
MAX_ENTRY_BYTES = 2**20
"""What the sinks add to a track's entry is left out where it gets longer."""


class TrackNews:
    """Calls `tell(what, entry)` on the event loop for each track that was opened or closed.

    In order; bounded, and `dropped` counts what was beyond.
    """

    def __init__(self, tell: Callable[[What, str], None]) -> None:
        self.dropped = 0
        self._tell = tell
        self._waiting: deque[tuple[What, str]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_called = False
        """Whether the loop will look at what waits."""

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._loop = asyncio.get_running_loop()

    def put(self, what: What, entry: str) -> None:
        """Have something told; from any thread."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append((what, entry))
        if not self._is_called and self._loop is not None:
            self._is_called = True
            self._loop.call_soon_threadsafe(self.deliver)

    def deliver(self) -> None:
        """Tell what waits, on the event loop."""
        self._is_called = False  # first: what comes from now on is seen here or calls again
        while self._waiting:
            what, entry = self._waiting.popleft()
            try:
                self._tell(what, entry)
            except Exception:
                # a defect of ours: said with its traceback, and the worker goes on
                logger.exception("news of a track could not be taken in")


def opened_entry(track: Track) -> str:
    """Return what there is to say of a new track."""
    return json.dumps(
        {
            "call_leg_id": str(track.call_leg_id),
            "leg": track.leg,
            "direction": track.direction,
            "opened_at": rfc3339(track.opened_unix_ns),
            "source": track.source,
            "destination": track.destination,
            "ssrc": f"{track.ssrc:#010x}",
        }
    )


def closed_entry(track: Track, summary: TrackSummary, results: Results) -> str:
    """Return all that is known of a closed track: its manifest's entry, and the manifest's path."""
    manifest = next((each["manifest"] for each in results.values() if "manifest" in each), None)
    entry = track_entry(track, summary, results) | {"manifest": manifest}
    try:
        text = json.dumps(entry)
    except (TypeError, ValueError):  # a sink's result that is no JSON
        text = ""
    if text and len(text) <= MAX_ENTRY_BYTES:
        return text
    return json.dumps(_own(entry, track_entry(track, summary, {})), default=str)


def _own(entry: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with nothing of the sinks' in it but where the recording is."""
    recorded = ("recording", "channel", "offset_s", "manifest")
    return {**plain, **{key: entry[key] for key in recorded}}
