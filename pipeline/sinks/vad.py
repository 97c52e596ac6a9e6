"""Voice activity: who speaks when, by level above an adaptive noise floor, for all tracks at once.

A frame is *active* when its emphasised power (see `pipeline.level`) exceeds both a fixed minimum
and, by a margin, the noise floor of its track. A track moves between four states:

                 active                     active for start_ms
      QUIET --------------> STARTING --------------------------> SPEAKING <-----+
        ^                       |                                    |          |
        |       not active      |                         not active |          | active
        +-----------------------+                                    v          |
        +-------------------------------------------------------- STOPPING -----+
                            not active for stop_ms

All time is media time, read off the positions of the frames: frames of any length mix, and a gap
is silence like any other. Python runs per block, and per segment that starts or stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.block import Event
from pipeline.level import LevelMeter, NoiseFloor
from pipeline.rows import RowState
from pipeline.sinks.base import Sink, SinkError
from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Track, TrackSummary

QUIET, STARTING, SPEAKING, STOPPING = range(4)
"""The states, in order: from `SPEAKING` on a segment is open."""


class VadSink(Sink):
    """Marks speech: events when it starts and stops, all segments of a track at its end.

    Options:
    `start_ms`: speech lasts at least this long without a break; what is shorter is a click.
    `stop_ms`: the hangover; speech that pauses for less goes on.
    `pad_ms`: a segment reaches so far beyond its first and last active frame, for the soft
    sounds that words begin and end with; never more than half of `stop_ms`, so none overlap.
    `threshold_db`: least emphasised power of an active frame, above the noise floor.
    `minimum_dbfs`: least emphasised power of an active frame, however quiet the line.
    `floor_ms`: the noise floor is the least power of the last `floor_ms / 2` to `floor_ms`.
    `max_segments`: segments kept per track; those beyond it are counted.

    Emits `speech_started` with `start_s`, and `speech_stopped` with `start_s`, `end_s` and
    `level_dbfs` (mean power of the segment's active frames), as soon as they are certain; their
    position is where speech started or stopped. A segment that is open when its track ends stops
    there.
    """

    threaded: ClassVar[bool] = False

    def __init__(
        self,
        *,
        start_ms: float = 60.0,
        stop_ms: float = 500.0,
        pad_ms: float = 100.0,
        threshold_db: float = 5.0,
        minimum_dbfs: float = -64.0,
        floor_ms: float = 4000.0,
        max_segments: int = 10_000,
    ) -> None:
        _check("start_ms", start_ms, 0, 10_000)
        _check("stop_ms", stop_ms, 0, 60_000)
        _check("pad_ms", pad_ms, 0, 30_000)
        _check("threshold_db", threshold_db, 0, 60)
        _check("minimum_dbfs", minimum_dbfs, -100, 0)
        _check("floor_ms", floor_ms, 100, 600_000)
        _check("max_segments", max_segments, 1, 1_000_000)
        self._start_ms = start_ms
        self._stop_ms = stop_ms
        self._pad_ms = min(pad_ms, stop_ms / 2)
        # margin above the noise floor, and least power
        self._limits = np.array([10 ** (threshold_db / 10), 10 ** (minimum_dbfs / 10)], np.float32)
        self._max_segments = max_segments
        self._meter = LevelMeter()
        self._floor = NoiseFloor(floor_ms)
        self._activity = _Activity()
        self._speech: dict[int, _Speech] = {}
        self._kernel = load()
        self._bound = (0, 0)
        self._state: Any = None

    def open(self, track: Track) -> None:
        """Begin a track in silence, whatever its row held before."""
        for columns in (self._floor, self._activity):
            columns.ensure(track.row + 1)
            columns.renew(track.row)
        self._speech[track.row] = _Speech(track)

    def write(self, block: AudioBlock) -> None:
        """Judge one frame of every track in the block."""
        if block.samples < 2:
            return  # too short to be told from silence
        rate_hz = block.sample_rate_hz
        if not block.is_received:  # made for a hole: nobody speaks there
            self._silence(block.rows, block.position + block.samples, rate_hz)
            return
        gap = (block.gap_samples > 0).nonzero()[0]
        if len(gap):
            self._silence(block.rows[gap], block.position[gap], rate_hz)
        judge = self._judge_compiled if self._kernel is not None else self._judge
        started, stopped = judge(block)
        for row in started.tolist():
            self._start_segment(row, rate_hz)
        self._stop_segments(stopped, rate_hz)

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """End speech on tracks where nothing came for long enough."""
        busy = (self._activity.state.take(rows) != QUIET).nonzero()[0]
        rows, until = rows[busy], until[busy]
        rates_hz = np.array([self._speech[row].rate_hz for row in rows.tolist()])
        for rate_hz in set(rates_hz.tolist()):
            which = rates_hz == rate_hz
            self._silence(rows[which], until[which], rate_hz)

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
            self._activity.trim(0)
            self._floor.trim(0)
            self._bound, self._state = (0, 0), None  # which holds the columns
        return {
            "speech": speech.segments,
            "speech_ratio": speech.samples / duration if duration else 0.0,
            "speech_dropped": speech.dropped,
        }

    def _judge(self, block: AudioBlock) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Take the frames; return the rows that begin to speak, and those that cease."""
        rows, position, rate_hz = block.rows, block.position, block.sample_rate_hz
        end = position + block.samples
        power, emphasised = self._meter.measure(block.pcm)
        floor = self._floor.update(rows, emphasised, end, rate_hz)
        is_active = emphasised > np.maximum(floor * self._limits[0], self._limits[1])
        active, silent = is_active.nonzero()[0], (~is_active).nonzero()[0]
        started = self._activity.sound(
            rows[active],
            position[active],
            end[active],
            power[active],
            samples=block.samples,
            start_samples=_samples(self._start_ms, rate_hz),
        )
        stopped = self._activity.silence(
            rows[silent], end[silent], stop_samples=_samples(self._stop_ms, rate_hz)
        )
        return started, stopped

    def _judge_compiled(self, block: AudioBlock) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Do what `_judge` does, in one pass."""
        kernel: Any = self._kernel
        activity, floor, rate_hz = self._activity, self._floor, block.sample_rate_hz
        now = (activity.moves, floor.moves)
        if self._bound != now:  # the columns have moved
            self._bound = now
            self._state = kernel.Columns(
                activity.state, activity.begin, activity.end, activity.energy,
                activity.active_samples, floor.lowest, floor.lowest_before, floor.renewal,
                self._limits,
            )  # fmt: skip
        changed = np.empty((2, len(block)), np.intp)
        starts, stops = kernel.judge(
            self._state,
            kernel.Columns(block.rows, block.position, block.pcm, *changed),
            len(block),
            block.samples,
            _samples(self._start_ms, rate_hz),
            _samples(self._stop_ms, rate_hz),
            _samples(floor.half_ms, rate_hz),
        )
        return changed[0, :starts], changed[1, :stops]

    def _silence(self, rows: NDArray[np.intp], until: NDArray[np.int64], rate_hz: int) -> None:
        stop_samples = _samples(self._stop_ms, rate_hz)
        self._stop_segments(self._activity.silence(rows, until, stop_samples=stop_samples), rate_hz)

    def _stop_segments(self, rows: NDArray[np.intp], rate_hz: int) -> None:
        for row in rows.tolist():
            end = int(self._activity.end[row]) + _samples(self._pad_ms, rate_hz)
            self._stop_segment(row, end, rate_hz)

    def _start_segment(self, row: int, rate_hz: int) -> None:
        speech = self._speech[row]
        start = int(self._activity.begin[row]) - _samples(self._pad_ms, rate_hz)
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
        if len(speech.segments) < self._max_segments:
            speech.segments.append(segment)
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
    segments: list[dict[str, float]] = field(default_factory=list)
    dropped: int = 0
    """Segments beyond `max_segments`."""


class _Activity(RowState):
    """The state machine, one row per track; it tells which tracks begin and cease to speak."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "state": (np.uint8, QUIET),
        "begin": (np.int64, 0),
        "end": (np.int64, 0),
        "energy": (np.float64, 0.0),
        "active_samples": (np.int64, 0),
    }
    state: NDArray[np.uint8]
    begin: NDArray[np.int64]
    """Position of the first active frame of the speech that starts or goes on."""
    end: NDArray[np.int64]
    """Position of the end of the last active frame."""
    energy: NDArray[np.float64]
    """Sum of the active frames' power times their length, from `begin` to `end`."""
    active_samples: NDArray[np.int64]
    """Sum of the active frames' lengths."""

    def sound(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        end: NDArray[np.int64],
        power: NDArray[np.float32],
        *,
        samples: int,
        start_samples: int,
    ) -> NDArray[np.intp]:
        """Take an active frame for each of `rows`; return those that begin to speak."""
        state = self.state[rows]
        new = (state == QUIET).nonzero()[0]
        if len(new):
            row = rows[new]
            self.begin[row] = position[new]
            self.end[row] = position[new]
            self.energy[row] = 0.0
            self.active_samples[row] = 0
        end = np.maximum(end, self.end[rows])
        self.end[rows] = end
        self.energy[rows] += power * np.float32(samples)
        self.active_samples[rows] += samples
        is_open = state >= SPEAKING
        is_speech = is_open | (end - self.begin[rows] >= start_samples)
        self.state[rows] = np.where(is_speech, SPEAKING, STARTING)
        return rows[is_speech & ~is_open]

    def silence(
        self, rows: NDArray[np.intp], until: NDArray[np.int64], *, stop_samples: int
    ) -> NDArray[np.intp]:
        """Take silence up to `until` for each of `rows`; return those that cease to speak."""
        state = self.state[rows]
        busy = (state != QUIET).nonzero()[0]
        busy_rows = rows[busy]
        is_open = state[busy] >= SPEAKING
        is_over = is_open & (until[busy] - self.end[busy_rows] >= stop_samples)
        self.state[busy_rows] = np.where(is_open & ~is_over, STOPPING, QUIET)
        stopped: NDArray[np.intp] = busy_rows[is_over]
        return stopped

    def mean_power(self, row: int) -> float:
        """Return the mean power of the row's active frames."""
        return float(self.energy[row] / self.active_samples[row])


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise SinkError(f"vad: {name} must be between {least:g} and {most:g}, not {value:g}")


def _samples(duration_ms: float, rate_hz: int) -> int:
    return round(duration_ms * rate_hz / 1000)
