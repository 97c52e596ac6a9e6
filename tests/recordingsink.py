"""A sink that keeps copies of all it is told."""

from __future__ import annotations

from pipeline.sinks.base import Sink


class RecordingSink(Sink):
    """Keeps tracks, frames and summaries; a track's key is (row, generation)."""

    threaded = False

    def __init__(self):
        self.opened = {}
        """Tracks by key."""
        self.frames = {}
        """By key, (position, payload) of each frame."""
        self.closed = {}
        """Summaries by key."""
        self.stopped = False
        self._generation = {}

    def open(self, track):
        key = (track.row, track.generation)
        assert key not in self.opened
        self._generation[track.row] = track.generation
        self.opened[key] = track
        self.frames[key] = []

    def write(self, block):
        for i, row in enumerate(block.rows.tolist()):
            self.frames[row, self._generation[row]].append(
                (int(block.position[i]), block.payload[i].tobytes())
            )

    def close(self, track, summary):
        self.closed[track.row, track.generation] = summary
        del self._generation[track.row]

    def stop(self):
        self.stopped = True

    def payloads(self, row=0, generation=1):
        """Return the payloads of a track in the order in which they came."""
        return [payload for _, payload in self.frames[row, generation]]
