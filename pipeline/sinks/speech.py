"""Segments of speech out of evidence, for all tracks at once: what voice activity sinks share.

What a detector finds in a frame is its *evidence*: from 1, surely speech, to -1, surely none, times
the length of the frame. A track moves between four states:

                evidence for                sum reaches start_ms
      QUIET --------------> STARTING --------------------------> SPEAKING <-----+
        ^                       |                                    |          |
        |  sum falls to nothing |                   evidence against |          | sum falls to
        +-----------------------+                                    v          | nothing, or
        +-------------------------------------------------------- STOPPING -----+ start_ms of speech
                           sum reaches stop_ms

While a track is STARTING the evidence for speech is summed up, while it is STOPPING the evidence
against it: Page's cumulative sum test (E. S. Page, "Continuous inspection schemes", 1954) for
either change. The change itself lies where the sum began: there a segment starts and stops. So a
click, a pause and a lost packet count by their length and clearness only, and what is unclear
decides nothing. What would start a segment, lets one that is stopping go on.

All time is media time, read off the positions of the frames: frames of any length mix, and a gap
is silence like any other. Python runs per block, and per segment that starts or stops.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.block import Event
from pipeline.level import FULL_SCALE_POWER
from pipeline.rows import RowState
from pipeline.sinks.base import Sink, check_range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.block import Track, TrackSummary

QUIET, STARTING, SPEAKING, STOPPING = range(4)
"""The states, in order: from `SPEAKING` on a segment is open."""

_CLEAR = 0.98
"""The evidence of what is clear: never quite 1."""


class Evidence(NamedTuple):
    """What was found on some tracks, one entry for each."""

    rows: NDArray[np.intp]
    """(n,), which names no track twice."""
    position: NDArray[np.int64]
    """(n,): where it begins, in samples of the track's rate."""
    end: NDArray[np.int64]
    """(n,): where it ends."""
    weight: NDArray[np.float64]
    """(n,): from the length in samples, surely speech, to minus that, surely none."""
    energy: NDArray[np.float64]
    """(n,): sum of the squares of the samples that were judged."""
    samples: int
    """How many these are."""


class SpeechSink(Sink):
    """Base of the sinks that mark speech; a subclass hands what it finds to `_hear`.

    Emits `speech_started` with `start_s`, and `speech_stopped` with `start_s`, `end_s` and
    `level_dbfs` (mean power of the segment's frames with sound), as soon as they are certain; their
    position is where speech started or stopped. A segment that is open when its track ends stops
    there.
    """

    def __init__(
        self, name: str, *, start_ms: float, stop_ms: float, pad_ms: float, max_segments: int
    ) -> None:
        self._name = name
        self._check("start_ms", start_ms, 0, 10_000)
        self._check("stop_ms", stop_ms, 0, 60_000)
        self._check("pad_ms", pad_ms, 0, 30_000)
        self._check("max_segments", max_segments, 1, 1_000_000)
        self._start_ms = start_ms * _CLEAR
        self._stop_ms = stop_ms * _CLEAR
        self._pad_ms = min(pad_ms, stop_ms / 2)
        self._max_segments = max_segments
        self._activity = Activity()
        self._speech: dict[int, _Speech] = {}

    def open(self, track: Track) -> None:
        """Begin a track in silence, whatever its row held before."""
        self._activity.ensure(track.row + 1)
        self._activity.renew(track.row)
        self._speech[track.row] = _Speech(track)

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """End speech on tracks where nothing came for long enough."""
        busy = (self._activity.state.take(rows) != QUIET).nonzero()[0]
        rows, until = rows[busy], until[busy]
        rates_hz = np.array([self._speech[row].rate_hz for row in rows.tolist()])
        for rate_hz in set(rates_hz.tolist()):
            which = rates_hz == rate_hz
            self._be_silent(rows[which], until[which], rate_hz)

    def close(self, track: Track, summary: TrackSummary) -> Mapping[str, Any]:
        """End a track; return its `speech`, `speech_ratio` and `speech_dropped`.

        `speech` lists the segments, each with `start_s`, `end_s` and `level_dbfs`;
        `speech_dropped` counts those beyond `max_segments`. `speech_ratio` is what all of them
        together take of the track's media time.
        """
        row, duration = track.row, summary.duration_samples
        if self._activity.state[row] >= SPEAKING:
            self._stop_segment(row, duration, summary.sample_rate_hz)
        speech = self._speech.pop(row)
        if not self._speech:
            self._trim()
        return {
            "speech": speech.segments(),
            "speech_ratio": speech.samples / duration if duration else 0.0,
            "speech_dropped": speech.dropped,
        }

    def _check(self, option: str, value: float, least: float, most: float) -> None:
        check_range(f"{self._name}: {option}", value, least, most)

    def _trim(self) -> None:
        """Give memory back: no track is open."""
        self._activity.trim(0)

    def _be_silent(self, rows: NDArray[np.intp], until: NDArray[np.int64], rate_hz: int) -> None:
        """Take silence on `rows`, from what they were last heard of up to `until`."""
        elapsed = until - self._activity.heard.take(rows)
        passing = (elapsed > 0).nonzero()[0]
        if not len(passing):
            return
        until, elapsed = until[passing], elapsed[passing]
        weight = -elapsed.astype(np.float64)
        nothing = np.zeros(len(passing))
        self._hear(Evidence(rows[passing], until - elapsed, until, weight, nothing, 0), rate_hz)

    def _hear(self, found: Evidence, rate_hz: int) -> None:
        """Take evidence; start and stop segments where that makes it certain."""
        started, stopped = self._activity.hear(
            found,
            start_samples=in_samples(self._start_ms, rate_hz),
            stop_samples=in_samples(self._stop_ms, rate_hz),
        )
        self._change(started, stopped, rate_hz)

    def _change(self, started: NDArray[np.intp], stopped: NDArray[np.intp], rate_hz: int) -> None:
        """Start and stop segments on these rows, none of which is in both."""
        pad, activity = in_samples(self._pad_ms, rate_hz), self._activity
        for row in started.tolist():
            self._start_segment(row, activity.begin.item(row) - pad, rate_hz)
        for row in stopped.tolist():
            self._stop_segment(row, activity.end.item(row) + pad, rate_hz)

    def _start_segment(self, row: int, start: int, rate_hz: int) -> None:
        speech = self._speech[row]
        speech.rate_hz = rate_hz
        # where the sender's timestamps step back, positions do
        speech.start = max(start, speech.end)
        data = {"start_s": speech.start / rate_hz}
        self.emit(Event("speech_started", speech.track, speech.start, rate_hz, data))

    def _stop_segment(self, row: int, end: int, rate_hz: int) -> None:
        speech = self._speech[row]
        speech.end = max(end, speech.start)
        speech.samples += speech.end - speech.start
        segment = {
            "start_s": speech.start / rate_hz,
            "end_s": speech.end / rate_hz,
            "level_dbfs": round(10 * math.log10(self._activity.mean_power(row)), 1),
        }
        if len(speech.facts) < len(segment) * self._max_segments:
            speech.facts.extend(segment.values())
        else:
            speech.dropped += 1
        self.emit(Event("speech_stopped", speech.track, speech.end, rate_hz, segment))


@dataclass(slots=True)
class _Speech:
    """The segments of an open track; positions in samples."""

    track: Track
    rate_hz: int = 8000
    """Sample rate of the segment that is open, or was last."""
    start: int = 0
    """Start of the segment that is open, or was last."""
    end: int = 0
    """End of the last segment that has one."""
    samples: int = 0
    """Length of all segments."""
    facts: array[float] = field(default_factory=lambda: array("d"))
    """Those of each segment in turn: an hour of a call has a thousand of them."""
    dropped: int = 0
    """Segments beyond `max_segments`."""

    def segments(self) -> list[dict[str, float]]:
        """Return the segments by the names of their facts."""
        fact = iter(self.facts)
        return [
            {"start_s": start_s, "end_s": end_s, "level_dbfs": level_dbfs}
            for start_s, end_s, level_dbfs in zip(fact, fact, fact, strict=True)
        ]


class Activity(RowState):
    """The state machine, one row per track; it tells which tracks begin and cease to speak."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "state": (np.uint8, QUIET),
        "begin": (np.int64, 0),
        "end": (np.int64, 0),
        "heard": (np.int64, 0),
        "evidence": (np.float64, 0.0),
        "resumed": (np.float64, 0.0),
        "energy": (np.float64, 0.0),
        "active_samples": (np.int64, 0),
    }
    state: NDArray[np.uint8]
    begin: NDArray[np.int64]
    """Position where the speech that starts or goes on began."""
    end: NDArray[np.int64]
    """Position up to which it surely went on."""
    heard: NDArray[np.int64]
    """Position up to which anything is known."""
    evidence: NDArray[np.float64]
    """In samples: for speech while STARTING, against it while STOPPING, else 0."""
    resumed: NDArray[np.float64]
    """For speech while STOPPING, since there was last none."""
    energy: NDArray[np.float64]
    """Sum of the squares of the samples with sound since `begin`."""
    active_samples: NDArray[np.int64]
    """How many these are."""

    def hear(
        self, found: Evidence, *, start_samples: int, stop_samples: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Take evidence; return the rows that begin and those that cease to speak."""
        state = self.state.take(found.rows)
        self.heard[found.rows] = found.end
        concerned = ((state != QUIET) | (found.weight > 0)).nonzero()[0]
        rows, state = found.rows[concerned], state[concerned]
        position, end = found.position[concerned], found.end[concerned]
        evidence, energy = found.weight[concerned], found.energy[concerned]
        active = evidence > 0

        new = (state == QUIET).nonzero()[0]
        if len(new):
            row = rows[new]
            self.begin[row] = position[new]
            self.evidence[row] = 0.0
            self.resumed[row] = 0.0
            self.energy[row] = 0.0
            self.active_samples[row] = 0
        self.energy[rows] += np.where(active, energy, 0.0)
        self.active_samples[rows] += np.where(active, found.samples, 0)

        was_open = state >= SPEAKING
        total = np.maximum(self.evidence.take(rows) + np.where(was_open, -evidence, evidence), 0.0)
        again = np.maximum(self.resumed.take(rows) + evidence, 0.0)
        starts = ~was_open & (total > 0) & (total >= start_samples)
        goes_on = was_open & ((total == 0) | ((again > 0) & (again >= start_samples)))
        stops = was_open & ~goes_on & (total >= stop_samples)
        speaks = starts | goes_on
        total[speaks] = again[speaks] = 0.0
        self.evidence[rows] = total
        self.resumed[rows] = again
        self.end[rows[starts]] = end[starts]
        talking = rows[goes_on]
        self.end[talking] = np.maximum(self.end[talking], end[goes_on])
        undecided = np.where(was_open, STOPPING, np.where(total > 0, STARTING, QUIET))
        self.state[rows] = np.where(speaks, SPEAKING, np.where(stops, QUIET, undecided))
        return rows[starts], rows[stops]

    def mean_power(self, row: int) -> float:
        """Return the mean power of the row's samples with sound, relative to full scale.

        It is at least that of samples of one step: a network may take silence for speech.
        """
        mean = self.energy.item(row) / max(self.active_samples.item(row), 1)
        return max(mean, 1.0) / FULL_SCALE_POWER


def in_samples(duration_ms: float, rate_hz: int) -> int:
    """Return a duration as a number of samples."""
    return round(duration_ms * rate_hz / 1000)
