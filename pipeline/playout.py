"""Playout: where each released frame stands in time, and blocks of equal frames for the sinks.

A frame's position follows from its RTP timestamp: what lies between the end of the frame before
and its beginning is a gap, of silence (DTX, hold) or of loss. Positions count samples of audio,
timestamps units of the codec's RTP clock: two samples each for G.722, one for all others. A
timestamp that cannot be believed (a gap beyond `max_gap_s`, a step back beyond two seconds, or a
new sequence) is not: there the frame stands as far behind the one before as it arrived behind it,
at most `max_gap_s`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import AudioBlock, Payloads
from pipeline.codecs import CODECS, PAYLOAD_TYPES
from pipeline.decoders import Decoded, Decoders
from pipeline.rows import RowState
from pipeline.sequence import distance32

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.codecs import Codec
    from pipeline.packets import Packets, Released

DEFAULT_RATE_HZ = 8000
MAX_STEP_BACK_S = 2.0
MAX_LOSSES = 1000
"""Losses per track that are remembered one by one."""

_NO_CODEC = PAYLOAD_TYPES
_CODEC_OF = np.full(PAYLOAD_TYPES, _NO_CODEC, np.intp)
for _payload_type in CODECS:
    _CODEC_OF[_payload_type] = _payload_type


class Playout(RowState):
    """Media time of all tracks by row."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "end": (np.int64, 0),
        "next_timestamp": (np.int64, 0),
        "next_arrival_ns": (np.int64, 0),
        "rate_hz": (np.int64, DEFAULT_RATE_HZ),
        "timestamp_gaps": (np.int64, 0),
        "silence_samples": (np.int64, 0),
        "needs_care": (np.bool_, False),
    }
    end: NDArray[np.int64]
    """Position of the end of the last audio frame, in samples; 0 before the first."""
    next_timestamp: NDArray[np.int64]
    """RTP timestamp of a frame that follows without a gap."""
    next_arrival_ns: NDArray[np.int64]
    """When that frame would arrive on a network without jitter."""
    rate_hz: NDArray[np.int64]
    """Sample rate of the last frame."""
    timestamp_gaps: NDArray[np.int64]
    silence_samples: NDArray[np.int64]
    needs_care: NDArray[np.bool_]
    """Whether something is remembered that the next audio frame must be told."""

    def __init__(self, *, max_gap_s: float = 60, decoders: Decoders | None = None) -> None:
        super().__init__()
        self.max_gap_s = max_gap_s
        self.decoders = Decoders() if decoders is None else decoders
        """Of all that is not G.711."""
        self.timestamp_gaps_total = 0
        self.silence_samples_total = 0
        self.losses: dict[int, list[tuple[int, int]]] = {}
        """By row: (position, packets) of each loss, at most MAX_LOSSES."""
        self._pcm = np.zeros(0, np.int16)
        self._pending_lost: dict[int, int] = {}
        self._has_other_rates = False
        self._restarted: set[int] = set()
        """Rows whose next audio frame begins a new sequence."""

    def renew(self, row: int) -> None:
        """Set one row to the fresh values."""
        super().renew(row)
        self.losses.pop(row, None)
        self._pending_lost.pop(row, None)
        self._restarted.discard(row)

    def play(self, released: Released) -> Iterator[AudioBlock]:
        """Yield the audio of released packets as blocks, each valid until the next is asked for.

        Packets without audio (no codec, no payload) yield nothing; the next frame's timestamp
        tells the length of the gap that they leave.
        """
        packets = released.packets
        if released.restarted:
            self._restarted.update(packets.rows.tolist())
            self.needs_care[packets.rows] = True
            self.decoders.restart(packets.rows)
        for part, lost, kind in _by_kind(packets, released.lost):
            codec, size = CODECS.get(kind >> 16), kind & 0xFFFF
            if codec is not None and size:
                yield self._block(part, codec, size, lost)
            else:
                yield from self._play_others(part, lost)

    def _play_others(
        self, packets: Packets, lost: NDArray[np.int64] | None
    ) -> Iterator[AudioBlock]:
        """Yield the audio of packets that are not G.711, or have no payload."""
        is_decoded = isinstance(packets, Decoded)
        parts = [(packets, lost)] if is_decoded else self.decoders.decode(packets, lost)
        for part, part_lost in parts:
            if isinstance(part, Decoded):
                yield self._block(part, part.codec, int(part.length[0]), part_lost)
            elif part_lost is not None:
                self._postpone(part.rows, part_lost)

    def _block(
        self,
        packets: Packets,
        codec: Codec,
        size: int,
        lost: NDArray[np.int64] | None,
    ) -> AudioBlock:
        rows = packets.rows
        n = len(rows)
        samples = codec.samples(size)
        rate_hz = codec.sample_rate_hz
        if self._restarted or self._pending_lost:
            self.needs_care[rows] = False
        if rate_hz != DEFAULT_RATE_HZ or self._has_other_rates:
            self._set_rate(rows, rate_hz)
        position = end = self.end.take(rows)
        due = self.next_timestamp.take(rows)
        no_gap = packets.timestamp == due
        gap = np.zeros(n, np.int64)
        if self._restarted or not no_gap.all():
            told = distance32(packets.timestamp, due) * codec.samples_per_unit
            gap = self._gap(packets, told, rate_hz, end)
            position = end + gap
        if self._pending_lost:
            earlier = [self._pending_lost.pop(row, 0) for row in rows.tolist()]
            lost = np.array(earlier, np.int64) + (0 if lost is None else lost)
        if lost is not None or position is not end:
            lost = np.zeros(n, np.int64) if lost is None else lost
            self._account(rows, end, gap, lost)
        self.end[rows] = position + samples
        units = samples // codec.samples_per_unit
        self.next_timestamp[rows] = packets.timestamp + units & 0xFFFF_FFFF
        self.next_arrival_ns[rows] = packets.arrival_ns + samples * 1_000_000_000 // rate_hz
        if self._pcm.size < n * samples:
            self._pcm = np.zeros(n * samples, np.int16)
        return AudioBlock(
            codec=codec,
            rows=rows,
            position=position,
            gap_samples=gap,
            lost=np.zeros(n, np.int64) if lost is None else lost,
            arrival_ns=packets.arrival_ns,
            payload=Payloads(packets.store, packets.slot, packets.offset, size),
            scratch=self._pcm,
        )

    def _gap(
        self,
        packets: Packets,
        gap: NDArray[np.int64],
        rate_hz: int,
        end: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the gaps that are believed, given those that the timestamps tell."""
        rows = packets.rows
        most = round(self.max_gap_s * rate_hz)
        back = np.minimum(end, round(MAX_STEP_BACK_S * rate_hz))
        doubtful = (gap > most) | (gap < -back)
        if self._restarted:
            doubtful |= np.isin(rows, list(self._restarted))
            self._restarted.difference_update(rows.tolist())
        if doubtful.any():
            late_ns = packets.arrival_ns - self.next_arrival_ns.take(rows)
            elapsed = np.clip(late_ns * rate_hz // 1_000_000_000, 0, most)
            gap = np.where(doubtful, elapsed, gap)
        return np.where(end > 0, gap, 0)

    def _set_rate(self, rows: NDArray[np.intp], rate_hz: int) -> None:
        """Have these tracks count samples of this rate.

        Where it is another one than before, the timestamps have nothing to do with each other. The
        straight way, which knows no rate but G.711's, is left to tracks of that rate.
        """
        self._has_other_rates = True
        before = self.rate_hz.take(rows)
        changed = rows[(before != rate_hz) & (self.end.take(rows) > 0)]
        if len(changed):
            self.end[changed] = self.end[changed] * rate_hz // self.rate_hz[changed]
            self._restarted.update(changed.tolist())
        self.rate_hz[rows] = rate_hz
        self.needs_care[rows] = rate_hz != DEFAULT_RATE_HZ

    def _account(
        self,
        rows: NDArray[np.intp],
        end: NDArray[np.int64],
        gap: NDArray[np.int64],
        lost: NDArray[np.int64],
    ) -> None:
        silence = np.maximum(gap, 0)
        self.silence_samples[rows] += silence
        self.silence_samples_total += int(silence.sum())
        is_silence = (gap > 0) & (lost == 0)
        self.timestamp_gaps[rows] += is_silence
        self.timestamp_gaps_total += int(is_silence.sum())
        for i in np.flatnonzero(lost):
            losses = self.losses.setdefault(int(rows[i]), [])
            if len(losses) < MAX_LOSSES:
                losses.append((int(end[i]), int(lost[i])))

    def _postpone(self, rows: NDArray[np.intp], lost: NDArray[np.int64]) -> None:
        """Remember losses before packets without audio for the next frame of their tracks."""
        for row, packets in zip(rows.tolist(), lost.tolist(), strict=True):
            if packets:
                self._pending_lost[row] = self._pending_lost.get(row, 0) + packets
                self.needs_care[row] = True


def _by_kind(
    packets: Packets, lost: NDArray[np.int64] | None
) -> Iterator[tuple[Packets, NDArray[np.int64] | None, int]]:
    """Split into packets of equal codec and payload size, with a number for the two."""
    codec = _CODEC_OF.take(packets.payload_type)
    kind = codec << 16 | packets.length
    if (kind == kind[0]).all():
        yield packets, lost, int(kind[0])
        return
    for each in np.unique(kind):
        which = np.flatnonzero(kind == each)
        yield packets.take(which), None if lost is None else lost[which], int(each)
