"""Telephone-events (RFC 4733): key presses that come as packets of their own beside the audio.

```
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|     event     |E|R| volume    |          duration             |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
```

One event is reported again and again while it lasts: all its packets have the RTP timestamp of its
beginning, `duration` grows from one to the next, and the last report, with the end bit E, is sent
three times. Timestamp and event so tell which reports belong together, and any one of them is
enough to hear of the event. It is over with its end bit, with the report of another event, when
audio has come from well beyond it, or when its reports cease.

An event that outlasts the 16 bits of its duration goes on in another segment, whose timestamp is
where the one before ended (section 2.5.1.3). A packet may hold several events, each beginning
where the one before it ended (section 2.5.1.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.block import Event
from pipeline.codecs import CODECS, PAYLOAD_TYPES
from pipeline.keypress import DIGITS, KeyPress
from pipeline.sequence import distance32

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.block import Track
    from pipeline.packets import Packets, Released
    from pipeline.playout import Playout

DEFAULT_PAYLOAD_TYPE = 101
DEFAULT_CLOCK_HZ = 8000
NAME = "telephone-event"
"""The media type of RFC 4733 section 7, which stands among the codecs of a track."""

MAX_EVENTS = 1000
"""Events per track that are told; those beyond it are counted."""
MAX_REPORTS = 16
"""Reports in one packet; more is no telephone-event."""
MAX_DURATION = 0xFFFF
TIMEOUT_NS = 1_000_000_000
"""An event without a report for so long is over: they come every 20 to 50 ms (section 2.5.1.2)."""
AUDIO_BEYOND_S = 0.2
"""Audio from so far behind the known end of an event means that its end was lost."""
STALE_S = 2.0
"""A report of an event that began up to so long before the present one comes too late."""
LEARN_REPORTS = 3
"""Reports that grow as those of one event do make a payload type one of telephone-events."""
_FIRST_DYNAMIC = 96
_MAX_CANDIDATE_REPORTS = 16

NAMES: Mapping[int, str] = {16: "flash"}
"""Events that are no keys, as far as they have a name here (RFC 4733 section 3.2)."""


class Report(NamedTuple):
    """One report of an event, as a packet holds it."""

    timestamp: int
    """RTP timestamp of the event's beginning, of that of its present segment if it has several."""
    event: int
    is_end: bool
    duration: int
    """So far, in units of the events' clock."""


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """A telephone-event that is no key, when it is over."""

    event: int
    start_samples: int
    duration_samples: int
    sample_rate_hz: int

    def as_dict(self) -> dict[str, object]:
        """Return `event`, `name`, `start_s` and `duration_ms`, ready for JSON."""
        return {
            "event": self.event,
            "name": NAMES.get(self.event, str(self.event)),
            "start_s": self.start_samples / self.sample_rate_hz,
            "duration_ms": round(1000 * self.duration_samples / self.sample_rate_hz, 3),
        }

    def as_event(self, track: Track) -> Event:
        """Return the event `telephone_event`, which stands where it began."""
        data = self.as_dict()
        return Event("telephone_event", track, self.start_samples, self.sample_rate_hz, data)


@dataclass(slots=True)
class _Line:
    """What is known of the telephone-events of one track."""

    first_timestamp: int
    first_arrival_ns: int
    """Of its first event, from which positions count before the first audio."""
    presses: list[KeyPress] = field(default_factory=list)
    told: int = 0
    dropped: int = 0
    """Events beyond `MAX_EVENTS`."""
    malformed: int = 0
    """Packets whose payload is none of a telephone-event."""
    learnt: dict[int, int] = field(default_factory=dict)
    """Payload types that were learnt, with the events' clock."""
    # the event that is reported, or was last
    is_open: bool = False
    event: int = -1
    timestamp: int = 0
    """Of its present segment."""
    duration: int = 0
    """Of its present segment, as far as it is known."""
    earlier: int = 0
    """Duration of the segments before."""
    clock_hz: int = DEFAULT_CLOCK_HZ
    start: int = 0
    """Where it began on the track, in samples."""
    rate_hz: int = DEFAULT_CLOCK_HZ
    """Of the track, when it began."""
    arrival_ns: int = 0
    """Of its last report."""

    @property
    def length(self) -> int:
        """Return the event's duration as it is known, in samples of the track."""
        return (self.earlier + self.duration) * self.rate_hz // self.clock_hz


@dataclass(slots=True)
class _Candidate:
    """A payload type that may be one of telephone-events: reports of what looks like one event."""

    payload_type: int
    packets: list[tuple[list[Report], int]]
    """Reports and arrival of each packet, the first ones."""
    grown: int = 0


class TelephoneEvents:
    """Follows the telephone-events of all tracks.

    Takes packets as the jitter bank releases them, in sequence and without duplicates, after the
    playout has. `payload_types` maps the payload types of telephone-events to their clock in Hz.
    With `learn`, another dynamic one that no codec is registered for becomes one of a track's when
    `LEARN_REPORTS` packets in a row have the shape and the course of reports of one key; their
    event is not lost by that.

    `tell(row, event)` is called once for each event, when it is over. Events stand on the track's
    media clock: where their timestamp says, as a frame of audio would; where it cannot be believed,
    where they arrived. Before the first audio they count from the first event.
    """

    def __init__(
        self,
        playout: Playout,
        tell: Callable[[int, KeyPress | OtherEvent], None],
        *,
        payload_types: Mapping[int, int] | None = None,
        learn: bool = False,
    ) -> None:
        if payload_types is None:
            payload_types = {DEFAULT_PAYLOAD_TYPE: DEFAULT_CLOCK_HZ}
        self._playout = playout
        self._tell = tell
        self._clock_hz = dict(payload_types)
        self._learn = learn
        self._lines: dict[int, _Line] = {}
        """By row, of tracks that had an event."""
        self._candidates: dict[int, _Candidate] = {}
        self._open: set[int] = set()
        """Rows with an event that is not over."""
        concerns = np.zeros(PAYLOAD_TYPES, np.bool_)
        concerns[list(self._clock_hz)] = True
        if learn:
            unknown = [t for t in range(_FIRST_DYNAMIC, PAYLOAD_TYPES) if t not in CODECS]
            concerns[unknown] = True
        self._concerns = concerns

    def take(self, released: Released) -> None:
        """Take released packets, audio or not, after the playout has."""
        packets = released.packets
        if released.restarted and self._open:
            # another clock: nothing that comes now belongs to what came before
            self._end(self._open.intersection(packets.rows.tolist()))
        concerned = self._concerns.take(packets.payload_type)
        if concerned.any():
            for i in concerned.nonzero()[0].tolist():
                self._take(packets, i)

    def tick(self, now_ns: int) -> None:
        """End what is overdue. All packets that arrived before `now_ns` have been taken."""
        if self._open:
            self._end({row for row in self._open if self._is_overdue(row, now_ns)})

    def open(self, row: int) -> None:
        """Begin a track."""
        self._lines.pop(row, None)
        self._candidates.pop(row, None)
        self._open.discard(row)

    def close(self, row: int) -> None:
        """End what has not ended on a track; its figures stay until the row is opened again."""
        self._end({row} & self._open)
        self._candidates.pop(row, None)

    def payload_types(self, row: int) -> set[int]:
        """Return the payload types of telephone-events on a track, those learnt included."""
        line = self._lines.get(row)
        return self._clock_hz.keys() | (line.learnt if line else {}).keys()

    def presses(self, row: int) -> tuple[KeyPress, ...]:
        """Return the keys pressed on a track, at most `MAX_EVENTS`, those that are over."""
        line = self._lines.get(row)
        return tuple(line.presses) if line else ()

    def dropped(self, row: int) -> int:
        """Return how many events of a track were not told, being too many."""
        line = self._lines.get(row)
        return line.dropped if line else 0

    def malformed(self, row: int) -> int:
        """Return how many packets of a track had the payload type of events, but no event."""
        line = self._lines.get(row)
        return line.malformed if line else 0

    def _take(self, packets: Packets, i: int) -> None:
        row, payload_type = int(packets.rows[i]), int(packets.payload_type[i])
        timestamp, arrival_ns = int(packets.timestamp[i]), int(packets.arrival_ns[i])
        line = self._lines.get(row)
        clock_hz = self._clock_hz.get(payload_type, 0)
        if not clock_hz and line is not None:
            clock_hz = line.learnt.get(payload_type, 0)
        start, length = int(packets.offset[i]), int(packets.length[i])
        payload = b""
        if length <= 4 * MAX_REPORTS:
            payload = packets.store[int(packets.slot[i]), start : start + length].tobytes()
        reports = parse(payload, timestamp)
        if clock_hz:
            if line is None:
                line = self._lines[row] = _Line(timestamp, arrival_ns)
            line.malformed += not reports
            for report in reports:
                self._report(row, line, report, arrival_ns, clock_hz)
        else:
            is_likely = len(payload) == 4 and not payload[1] & 0x40 and payload[0] < len(DIGITS)
            self._consider(row, payload_type, reports if is_likely else [], arrival_ns)

    def _report(
        self, row: int, line: _Line, report: Report, arrival_ns: int, clock_hz: int
    ) -> None:
        # looked at here as well as by tick, so that it does not matter how packets were batched
        if line.is_open and self._is_overdue(row, arrival_ns):
            self._end({row})
        since = distance32(report.timestamp, line.timestamp)
        is_known = line.event >= 0
        if is_known and report.event == line.event and since == 0:
            if line.is_open:
                line.duration = max(line.duration, report.duration)
                line.arrival_ns = arrival_ns
        elif is_known and -STALE_S * clock_hz < since < 0:
            return
        elif line.is_open and report.event == line.event and self._continues(line, since):
            line.earlier += since
            line.timestamp, line.duration = report.timestamp, report.duration
            line.arrival_ns = arrival_ns
        else:
            self._end({row} & self._open)
            line.event, line.timestamp = report.event, report.timestamp
            line.duration, line.earlier, line.clock_hz = report.duration, 0, clock_hz
            line.arrival_ns = arrival_ns
            line.rate_hz = int(self._playout.rate_hz[row])
            line.start = self._position(row, line)
            line.is_open = True
            self._open.add(row)
        if report.is_end:
            self._end({row} & self._open)

    @staticmethod
    def _continues(line: _Line, since: int) -> bool:
        """Tell whether a segment that begins so long after the present one continues it."""
        return since == MAX_DURATION or (since == line.duration and since > MAX_DURATION // 2)

    def _position(self, row: int, line: _Line) -> int:
        """Return where on the track the event began that was reported for the first time."""
        playout, rate_hz = self._playout, line.rate_hz
        begun_ns = line.arrival_ns - line.duration * 1_000_000_000 // line.clock_hz
        if playout.end[row] > 0:
            return playout.position(
                row, line.timestamp if line.clock_hz == rate_hz else None, begun_ns
            )
        by_timestamp = distance32(line.timestamp, line.first_timestamp) * rate_hz // line.clock_hz
        by_arrival = max(0, begun_ns - line.first_arrival_ns) * rate_hz // 1_000_000_000
        is_credible = abs(by_timestamp - by_arrival) <= STALE_S * rate_hz
        return max(0, by_timestamp if is_credible else by_arrival)

    def _is_overdue(self, row: int, now_ns: int) -> bool:
        line = self._lines[row]
        beyond = int(self._playout.end[row]) - line.start - line.length
        return beyond > AUDIO_BEYOND_S * line.rate_hz or now_ns - line.arrival_ns > TIMEOUT_NS

    def _end(self, rows: set[int]) -> None:
        """Tell the events that are over now."""
        for row in sorted(rows):
            self._open.remove(row)
            line = self._lines[row]
            line.is_open = False
            if line.told == MAX_EVENTS:
                line.dropped += 1
                continue
            line.told += 1
            if line.event < len(DIGITS):
                press = KeyPress(
                    digit=DIGITS[line.event],
                    kind="telephone-event",
                    start_samples=line.start,
                    duration_samples=line.length,
                    sample_rate_hz=line.rate_hz,
                )
                line.presses.append(press)
                self._tell(row, press)
            else:
                self._tell(row, OtherEvent(line.event, line.start, line.length, line.rate_hz))

    def _consider(
        self, row: int, payload_type: int, reports: list[Report], arrival_ns: int
    ) -> None:
        """Look whether a payload type is one of telephone-events, given the next packet of it."""
        if not reports:
            self._candidates.pop(row, None)
            return
        report = reports[0]
        candidate = self._candidates.get(row)
        if candidate is None or not _is_next(candidate, payload_type, report):
            self._candidates[row] = _Candidate(payload_type, [(reports, arrival_ns)])
            return
        before = candidate.packets[-1][0][0]
        candidate.grown += report.duration > before.duration
        candidate.packets.append((reports, arrival_ns))
        if len(candidate.packets) >= LEARN_REPORTS and candidate.grown:
            del self._candidates[row]
            line = self._lines.get(row)
            if line is None:
                first, first_ns = candidate.packets[0]
                line = self._lines[row] = _Line(first[0].timestamp, first_ns)
            line.learnt[payload_type] = DEFAULT_CLOCK_HZ
            for each, each_ns in candidate.packets:
                self._report(row, line, each[0], each_ns, DEFAULT_CLOCK_HZ)
        elif len(candidate.packets) == _MAX_CANDIDATE_REPORTS:
            del self._candidates[row]  # something that stands still


def parse(payload: bytes, timestamp: int) -> list[Report]:
    """Return the reports in the payload of a packet of this RTP timestamp.

    None where its length is no multiple of 4 bytes. The reserved bit is ignored (section 2.3.4).
    """
    if len(payload) % 4:
        return []
    reports = []
    for at in range(0, len(payload), 4):
        duration = int.from_bytes(payload[at + 2 : at + 4], "big")
        reports.append(Report(timestamp, payload[at], bool(payload[at + 1] & 0x80), duration))
        timestamp = timestamp + duration & 0xFFFF_FFFF
    return reports


def _is_next(candidate: _Candidate, payload_type: int, report: Report) -> bool:
    before = candidate.packets[-1][0][0]
    return (
        payload_type == candidate.payload_type
        and (report.timestamp, report.event) == (before.timestamp, before.event)
        and report.duration >= before.duration
        and report.is_end >= before.is_end
    )
