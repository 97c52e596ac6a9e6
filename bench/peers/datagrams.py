"""The obvious receiver: asyncio's DatagramProtocol and code per packet, written with care.

It parses both headers, finds the track in a dict, puts packets in order with a heap that waits at
most 60 ms at a hole, decodes mu-law with audioop and takes each frame's level. The thorough one
also keeps what an operator and an analyser need: statistics, where each frame stands in time, and
voice activity over an adaptive noise floor.
"""

from __future__ import annotations

import asyncio
import struct
import time
import warnings
from heapq import heappop, heappush

from bench.peers.program import CountingProtocol

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

REORDER_S = 0.06
SWEEP_S = 0.02
_STREP_BYTES = 24
_RTP = struct.Struct("!BBHII")
_LEAST_BYTES = _STREP_BYTES + _RTP.size

# voice activity, with levels as audioop's rms and times in samples
SPEECH_FACTOR, LEAST_LEVEL = 1.8, 20
START_SAMPLES, STOP_SAMPLES, FLOOR_SAMPLES = 480, 4000, 16_000


class Track:
    """One direction of one leg of a call."""

    __slots__ = ("due", "frames", "held", "late", "level", "lost")

    def __init__(self, sequence: int, timestamp: int) -> None:  # noqa: ARG002 -- for the thorough
        self.due = sequence
        """Sequence number that comes next, counted on past its 16 bits."""
        self.held: list[tuple[int, float, int, bytes]] = []
        """Heap of (sequence number, arrival in seconds, timestamp, payload) behind a hole."""
        self.frames = 0
        self.lost = 0
        self.late = 0
        self.level = 0

    def add(self, sequence: int, timestamp: int, payload: bytes) -> bool:
        """Take a packet; True where packets wait behind a hole now."""
        delta = (sequence - self.due) & 0xFFFF
        if delta >= 0x8000:
            self.late += 1
            return False
        if delta:
            heappush(self.held, (self.due + delta, time.monotonic(), timestamp, payload))
            return True
        self.release(timestamp, payload)
        if self.held:
            self._release_held()
        return bool(self.held)

    def give_up(self, before: float) -> bool:
        """Close the hole if a packet behind it came before then; True where others wait."""
        if min(arrival for _, arrival, _, _ in self.held) < before:
            self.lost += self.held[0][0] - self.due
            self.due = self.held[0][0]
            self._release_held()
        return bool(self.held)

    def release(self, timestamp: int, payload: bytes) -> None:  # noqa: ARG002
        """Take the packet that is due."""
        self.level = audioop.rms(audioop.ulaw2lin(payload, 2), 2)
        self.frames += 1
        self.due += 1

    def _release_held(self) -> None:
        held = self.held
        while held and held[0][0] <= self.due:
            sequence, _, timestamp, payload = heappop(held)
            if sequence == self.due:
                self.release(timestamp, payload)


class ThoroughTrack(Track):
    """The same with RFC 3550 statistics, media time and voice activity."""

    __slots__ = (
        "active_until", "begin", "floor", "floor_before", "is_speaking", "jitter", "jitter_max",
        "last_arrival", "last_timestamp", "next_timestamp", "payload_bytes", "position",
        "renewal", "segments",
    )  # fmt: skip

    def __init__(self, sequence: int, timestamp: int) -> None:
        super().__init__(sequence, timestamp)
        self.payload_bytes = 0
        self.last_arrival = time.monotonic()
        self.last_timestamp = self.next_timestamp = timestamp
        self.jitter = self.jitter_max = 0.0
        self.position = 0
        """Samples from the track's beginning to the end of the last frame."""
        self.floor = self.floor_before = 1000
        """Least level of the present window and of the one before."""
        self.renewal = FLOOR_SAMPLES
        self.begin: int | None = None
        """Where the active frames began, None in silence."""
        self.active_until = 0
        self.is_speaking = False
        self.segments: list[tuple[int, int]] = []

    def add(self, sequence: int, timestamp: int, payload: bytes) -> bool:
        """Take a packet; True where packets wait behind a hole now."""
        arrival = time.monotonic()
        elapsed = ((timestamp - self.last_timestamp + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
        difference = abs(arrival - self.last_arrival - elapsed / 8000)
        self.jitter += (difference - self.jitter) / 16
        self.jitter_max = max(self.jitter_max, self.jitter)
        self.last_arrival, self.last_timestamp = arrival, timestamp
        self.payload_bytes += len(payload)
        return super().add(sequence, timestamp, payload)

    def release(self, timestamp: int, payload: bytes) -> None:
        """Take the packet that is due."""
        super().release(timestamp, payload)
        gap = ((timestamp - self.next_timestamp + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
        self.position = position = self.position + gap + len(payload)
        self.next_timestamp = (timestamp + len(payload)) & 0xFFFF_FFFF
        level = self.level
        self.floor = min(self.floor, level)
        if position >= self.renewal:
            self.floor_before, self.floor = self.floor, level
            self.renewal = position + FLOOR_SAMPLES
        threshold = SPEECH_FACTOR * min(self.floor, self.floor_before)
        if level > LEAST_LEVEL and level > threshold:
            if self.begin is None:
                self.begin = position - len(payload)
            self.active_until = position
            self.is_speaking = self.is_speaking or position - self.begin >= START_SAMPLES
        elif self.begin is not None:
            if not self.is_speaking:
                self.begin = None
            elif position - self.active_until >= STOP_SAMPLES:
                self.segments.append((self.begin, self.active_until))
                self.begin, self.is_speaking = None, False


class DatagramReceiver(CountingProtocol):
    """Receives STREP on one socket."""

    track_class = Track

    def __init__(self) -> None:
        self._tracks: dict[tuple[bytes, int], Track] = {}
        self._waiting: set[Track] = set()
        self._malformed = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: ARG002
        """Begin to look after holes."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(SWEEP_S, self._sweep)

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        """Take one datagram."""
        if len(data) < _LEAST_BYTES or data[0] >> 2 != 0b110001:
            self._malformed += 1
            return
        rtp_at = data[1]
        if rtp_at < _STREP_BYTES or len(data) < rtp_at + _RTP.size:
            self._malformed += 1
            return
        first, marked_type, sequence, timestamp, _ssrc = _RTP.unpack_from(data, rtp_at)
        if first != 0x80 or marked_type & 0x7F:
            # padding, extension, CSRCs, other codecs: the benchmark sends none
            self._malformed += 1
            return
        key = (data[8:24], data[0] & 0b11)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = self.track_class(sequence, timestamp)
        if track.add(sequence, timestamp, data[rtp_at + _RTP.size :]):
            self._waiting.add(track)

    def totals(self) -> dict[str, int]:
        """Return what was received."""
        tracks = self._tracks.values()
        return {
            "packets": sum(track.frames for track in tracks),
            "lost": sum(track.lost for track in tracks),
            "late": sum(track.late for track in tracks),
            "malformed": self._malformed,
        }

    def _sweep(self) -> None:
        before = time.monotonic() - REORDER_S
        self._waiting = {t for t in self._waiting if t.held and t.give_up(before)}
        if self._loop is not None:
            self._loop.call_later(SWEEP_S, self._sweep)


class ThoroughReceiver(DatagramReceiver):
    """Receives STREP on one socket and keeps all that the thorough track does."""

    track_class = ThoroughTrack
