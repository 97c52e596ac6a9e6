"""Fills holes: audio for lost packets, and comfort noise where a sender pauses.

Stands between the playout and the sinks, and only where one of the two is asked for. What fills a
hole comes in blocks of its own, before the frame behind the hole; see `AudioBlock.origin`. It is
coded as the track's frames are, so that sinks take it for these unless they look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline import conceal
from pipeline.block import AudioBlock
from pipeline.comfort import COMFORT_NOISE, stretch
from pipeline.encode import encode
from pipeline.rows import RowState
from pipeline.sequence import distance32

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.block import Origin
    from pipeline.packets import Packets
    from pipeline.playout import Playout

Concealment = Literal["silence", "repeat", "g711"]
ComfortNoise = Literal["silence", "noise"]

NOISE_SAMPLES = 4096
"""Longest frame of noise."""
MAX_STRETCHES = 1000
"""Of concealed audio, remembered of a track."""
MAX_DESCRIPTIONS = 256
"""Changes of the noise within one pause; later ones count as the last."""


class Filling(RowState):
    """What is remembered of all tracks to fill their holes, by row."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "concealed_samples": (np.int64, 0),
        "noise_samples": (np.int64, 0),
    }
    concealed_samples: NDArray[np.int64]
    """Samples made for lost packets."""
    noise_samples: NDArray[np.int64]
    """Samples of comfort noise."""
    _history: conceal.History | None = None

    def __init__(
        self, *, concealment: Concealment = "silence", comfort_noise: ComfortNoise = "silence"
    ) -> None:
        if concealment != "silence":
            self._history = conceal.History()
        super().__init__()
        self.concealed: dict[int, list[tuple[int, int]]] = {}
        """By row: (position, samples) of what was made for lost packets, at most MAX_STRETCHES."""
        self._concealment = concealment
        self._makes_noise = comfort_noise == "noise"
        self._noise: dict[int, list[tuple[int, bytes]]] = {}
        """By row, since its last frame: from which position on there is which noise."""

    def ensure(self, rows: int) -> None:
        """Make room for so many rows."""
        super().ensure(rows)
        if self._history is not None:
            self._history.ensure(rows)

    def trim(self, rows: int) -> None:
        """Give memory back when only so many rows are in use."""
        super().trim(rows)
        if self._history is not None:
            self._history.trim(rows)

    def renew(self, row: int) -> None:
        """Forget what was on a row."""
        super().renew(row)
        self._noise.pop(row, None)
        self.concealed.pop(row, None)
        if self._history is not None:
            self._history.renew(row)

    def hear(self, packets: Packets, playout: Playout) -> None:
        """Take in the comfort noise among packets that are about to be played."""
        if not self._makes_noise:
            return
        for i in np.flatnonzero(packets.payload_type == COMFORT_NOISE).tolist():
            row = int(packets.rows[i])
            end = int(playout.end[row])
            noises = self._noise.setdefault(row, [])
            if not end or len(noises) == MAX_DESCRIPTIONS:
                continue
            ahead = distance32(int(packets.timestamp[i]), int(playout.next_timestamp[row]))
            first = int(packets.offset[i])
            payload = packets.store[packets.slot[i], first : first + int(packets.length[i])]
            noises.append((end + max(0, ahead), payload.tobytes()))

    def fill(self, block: AudioBlock) -> Iterator[AudioBlock]:
        """Yield what fills the holes before a block of received frames, and take in the block.

        Each is valid until the next is asked for. To be exhausted before the block is handed on:
        its `gap_samples` are those that are left then.
        """
        pauses = self._pauses(block) if self._noise else {}
        history = self._history
        if block.sample_rate_hz != conceal.RATE_HZ:
            history = None
        hole = np.flatnonzero(block.gap_samples > 0)
        if len(hole):
            left = block.gap_samples.copy()
            if history is not None:
                yield from self._conceal(block, hole, left, pauses, history)
            yield from self._make_noise(block, left, pauses)
            block.gap_samples = left
        if history is not None:
            history.extend(block.rows, block.pcm)

    def _pauses(self, block: AudioBlock) -> dict[int, list[tuple[int, bytes]]]:
        """Return the noises before the frames of the block, by their index; they are over."""
        return {
            i: noises
            for i, row in enumerate(block.rows.tolist())
            if (noises := self._noise.pop(row, None))
        }

    def _conceal(
        self,
        block: AudioBlock,
        hole: NDArray[np.intp],
        left: NDArray[np.int64],
        pauses: dict[int, list[tuple[int, bytes]]],
        history: conceal.History,
    ) -> Iterator[AudioBlock]:
        """Yield audio for lost packets, and bring the history up to the frames of the block."""
        gap = left[hole]
        length = np.minimum(gap, block.lost[hole] * block.samples)
        for k, i in enumerate(hole.tolist()):
            if i in pauses:
                pause = pauses[i][0][0] - int(block.position[i]) + int(gap[k])
                length[k] = min(length[k], max(0, pause))
        np.minimum(length, conceal.LONGEST_SAMPLES, out=length)
        for samples in np.unique(length[length > 0]).tolist():
            for touches in (False, True):
                which = hole[(length == samples) & ((gap == samples) == touches)]
                if len(which):
                    pcm = self._replacement(block, which, samples, history, touches=touches)
                    rows = block.rows[which]
                    history.extend(rows, pcm)
                    self.concealed_samples[rows] += samples
                    start = block.position[which] - left[which]
                    left[which] -= samples
                    self._remember(rows, start, samples)
                    yield _filler(block, which, start, pcm, "concealed")
        history.skip(block.rows[hole], left[hole])

    def _remember(self, rows: NDArray[np.intp], start: NDArray[np.int64], samples: int) -> None:
        for row, position in zip(rows.tolist(), start.tolist(), strict=True):
            stretches = self.concealed.setdefault(row, [])
            if len(stretches) < MAX_STRETCHES:
                stretches.append((position, samples))

    def _replacement(
        self,
        block: AudioBlock,
        which: NDArray[np.intp],
        samples: int,
        history: conceal.History,
        *,
        touches: bool,
    ) -> NDArray[np.int16]:
        past = history.samples.take(block.rows[which], axis=0)
        if self._concealment == "repeat":
            return conceal.repeat(past, block.samples, samples)
        behind = block.pcm.take(which, axis=0) if touches else None
        return conceal.g711_appendix_i(past, behind, samples)

    def _make_noise(
        self,
        block: AudioBlock,
        left: NDArray[np.int64],
        pauses: dict[int, list[tuple[int, bytes]]],
    ) -> Iterator[AudioBlock]:
        """Yield noise from where it was described up to the frames of the block."""
        for i, noises in pauses.items():
            stop = int(block.position[i])
            begin = stop - int(left[i])
            ends = [start for start, _ in noises[1:]] + [stop]
            for (start, description), end in zip(noises, ends, strict=True):
                first, last = max(start, begin), min(end, stop)
                begin = max(begin, last)
                for position in range(first, last, NOISE_SAMPLES):
                    samples = min(NOISE_SAMPLES, last - position)
                    pcm = stretch(description, position, samples)[None, :]
                    self.noise_samples[block.rows[i]] += samples
                    where = np.array([position])
                    yield _filler(block, np.array([i]), where, pcm, "comfort_noise")
            if noises[0][0] < stop:
                left[i] = 0


def _filler(
    block: AudioBlock,
    which: NDArray[np.intp],
    position: NDArray[np.int64],
    pcm: NDArray[np.int16],
    origin: Origin,
) -> AudioBlock:
    """Return a block of audio that was made for the tracks of these frames."""
    nothing = np.zeros(len(which), np.int64)
    return AudioBlock(
        codec=block.codec,
        rows=block.rows[which],
        position=position,
        gap_samples=nothing,
        lost=nothing,
        arrival_ns=block.arrival_ns[which],
        payload=encode(block.codec, pcm),
        origin=origin,
    )
