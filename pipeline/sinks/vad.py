"""Voice activity: who speaks when, by power and voicing above a noise floor, for all tracks.

The power of a frame's telephone band is set against the noise floor of its track
(see `pipeline.level`). How much it has to exceed that depends on its sound: noise-like sounds, of
paper, traffic and a line as of an s, need more than voiced ones, which little but a voice makes.
The ratio of the power p to its threshold t gives the evidence (p - t) / (p + t), of which
`pipeline.sinks.speech` makes segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.level import LEAST_SAMPLES, NoiseFloor, band_scale, measure, narrow, voicing
from pipeline.sinks.speech import Evidence, SpeechSink, in_samples
from strep_kernel import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Track

_WHOLLY_VOICED = 1.5
"""A voicing of two thirds and more is all that far-away speech has."""
_PLAIN = 10.0
"""So many times its threshold, a sound is no line noise, voiced or not."""


class VadSink(SpeechSink):
    """Marks speech: events when it starts and stops, all segments of a track at its end.

    Options:
    `start_ms`: so much more sound than quiet begins speech; what is shorter is a click.
    `stop_ms`: so much more quiet than sound ends it; speech that pauses for less goes on.
    `pad_ms`: a segment reaches so far beyond its sound, for the soft sounds that words begin and
    end with; never more than half of `stop_ms`, so none overlap.
    `threshold_db`: what a noise-like sound's power has to exceed the noise floor by.
    `voiced_db`: what a voiced sound's power has to; at most `threshold_db`.
    `minimum_dbfs`: least power of a noise-like sound, however quiet the line; of a voiced one, as
    much less as `voiced_db` is less than `threshold_db`.
    `floor_ms`: the noise floor is the least power of the last `floor_ms / 2` to `floor_ms`.
    `max_segments`: segments kept per track; those beyond it are counted.
    """

    threaded: ClassVar[bool] = False

    def __init__(
        self,
        *,
        start_ms: float = 140.0,
        stop_ms: float = 600.0,
        pad_ms: float = 100.0,
        threshold_db: float = 15.0,
        voiced_db: float = 2.5,
        minimum_dbfs: float = -84.0,
        floor_ms: float = 4000.0,
        max_segments: int = 10_000,
    ) -> None:
        super().__init__(
            "vad", start_ms=start_ms, stop_ms=stop_ms, pad_ms=pad_ms, max_segments=max_segments
        )
        self._check("threshold_db", threshold_db, 0, 60)
        self._check("voiced_db", voiced_db, 0, threshold_db)
        self._check("minimum_dbfs", minimum_dbfs, -100, 0)
        self._check("floor_ms", floor_ms, 100, 600_000)
        # margin above the noise floor, least power, and the share of both that voicing leaves
        self._limits = np.array(
            [
                10 ** (threshold_db / 10),
                10 ** (minimum_dbfs / 10),
                10 ** ((voiced_db - threshold_db) / 10),
            ]
        )
        self._scale = np.zeros(1)
        """What makes a band power of the kernel's sum over a frame, as long as the last one was."""
        self._scaled_samples = 0
        """How long that was."""
        self._changed = np.zeros((2, 0), np.intp)
        self._floor = NoiseFloor(floor_ms)
        self._kernel = load()
        self._bound: tuple[int, ...] = ()
        self._state: Any = None

    def open(self, track: Track) -> None:
        """Begin a track in silence, whatever its row held before."""
        super().open(track)
        self._floor.ensure(track.row + 1)
        self._floor.renew(track.row)

    def write(self, block: AudioBlock) -> None:
        """Judge one frame of every track in the block; filler is silence."""
        rate_hz = block.sample_rate_hz
        if not block.is_received:
            self._be_silent(block.rows, block.position + block.samples, rate_hz)
            return
        if block.has_gaps:
            gap = (block.gap_samples > 0).nonzero()[0]
            self._be_silent(block.rows[gap], block.position[gap], rate_hz)
        pcm = narrow(block.pcm, rate_hz)
        if pcm.shape[1] < LEAST_SAMPLES:
            return  # too short to be told from silence
        if self._kernel is None:
            self._judge(block, pcm)
        else:
            self._judge_compiled(block, pcm)

    def _trim(self) -> None:
        super()._trim()
        self._floor.trim(0)
        self._bound, self._state = (), None  # which holds the columns

    def _judge(self, block: AudioBlock, pcm: NDArray[np.int16]) -> None:
        """Take the frames."""
        rate_hz, samples = block.sample_rate_hz, block.samples
        end = block.position + samples
        energy, power = measure(pcm)
        floor = self._floor.update(block.rows, power, end, rate_hz)
        margin, least, left = self._limits
        threshold = np.maximum(floor * margin, least)
        unsure = ((power > threshold * left) & (power < threshold * _PLAIN)).nonzero()[0]
        voiced = np.minimum(voicing(pcm[unsure]) * _WHOLLY_VOICED, 1)
        threshold[unsure] *= 1 - (1 - left) * voiced
        weight = (power - threshold) / (power + threshold) * samples
        self._hear(Evidence(block.rows, block.position, end, weight, energy, pcm.shape[1]), rate_hz)

    def _judge_compiled(self, block: AudioBlock, pcm: NDArray[np.int16]) -> None:
        """Do what `_judge` does, in one pass."""
        kernel: Any = self._kernel
        activity, floor, rate_hz = self._activity, self._floor, block.sample_rate_hz
        n, samples = pcm.shape
        if self._changed.shape[1] < n:
            self._changed = np.zeros((2, 2 * n), np.intp)
        now = (activity.moves, floor.moves, self._changed.shape[1])
        if self._bound != now:  # the columns have moved
            self._bound = now
            self._state = kernel.Columns(
                activity.state, activity.begin, activity.end, activity.heard, activity.evidence,
                activity.resumed, activity.energy, activity.active_samples, floor.lowest,
                floor.lowest_before, floor.renewal, self._limits, self._scale, *self._changed,
            )  # fmt: skip
        if self._scaled_samples != samples:
            self._scaled_samples = samples
            self._scale[0] = band_scale(samples)
        starts, stops = kernel.judge(
            self._state,
            kernel.Columns(block.rows, block.position, pcm),
            n,
            samples,
            block.samples,
            in_samples(self._start_ms, rate_hz),
            in_samples(self._stop_ms, rate_hz),
            in_samples(floor.half_ms, rate_hz),
        )
        if starts or stops:
            started, stopped = self._changed
            self._change(started[:starts], stopped[:stops], rate_hz)
