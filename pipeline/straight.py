"""The straight way of packets that need no thought, in one pass of the compiled kernel.

Most packets are in sequence, of the source that feeds their track, with audio of the same codec
that begins where the frame before ended. For these the jitter bank, the statistics and the playout
only step on; the kernel steps all three, packet by packet, and says which frames make which blocks.
The first packet of a track that is any different, and all behind it, are left to the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import AudioBlock, Payloads
from pipeline.codecs import CODECS, PAYLOAD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from pipeline.changes import Changes
    from pipeline.jitter import JitterBank
    from pipeline.packets import Packets
    from pipeline.playout import Playout
    from pipeline.quality import Statistics

_OUT = 10
"""Columns that the kernel fills."""


class StraightWay:
    """Steps the state of others: theirs are the columns and totals."""

    def __init__(
        self,
        kernel: ModuleType,
        bank: JitterBank,
        statistics: Statistics,
        playout: Playout,
        changes: Changes,
    ) -> None:
        self._kernel = kernel
        self._bank = bank
        self._statistics = statistics
        self._playout = playout
        self._changes = changes
        self._epoch = 0
        self._bound: tuple[int, ...] = ()
        self._state: Any = None
        self._pcm = np.zeros(0, np.int16)
        self._out = [np.zeros(0, np.int64)] * _OUT
        self._lost = np.zeros(0, np.int64)
        """Nothing is ever lost before these frames."""
        self._out_columns: Any = None
        rate_hz, codec_number = np.zeros((2, PAYLOAD_TYPES), np.int64)
        for payload_type, codec in CODECS.items():
            rate_hz[payload_type] = codec.sample_rate_hz
            codec_number[payload_type] = changes.number(codec.name)
        self._rate_hz = rate_hz
        self._codec_number = codec_number
        self._max_gap = np.round(playout.max_gap_s * rate_hz).astype(np.int64)

    def push(self, packets: Packets) -> tuple[NDArray[np.intp], Iterator[AudioBlock]]:
        """Take packets of open tracks in order of arrival.

        Returns the indices of those that are left, in their order, and the blocks that the others
        make, each valid until the next is asked for. They are to be asked for first.
        """
        n = len(packets)
        if len(self._lost) < n:
            room = max(n, 2 * len(self._lost))
            self._lost, *self._out = (np.zeros(room, np.int64) for _ in range(1 + _OUT))
            self._out_columns = self._kernel.Columns(*self._out)
        states = (self._bank, self._statistics, self._playout, self._changes)
        now = tuple([state.moves for state in states])
        if self._bound != now:
            self._bound = now
            self._bind()
        self._epoch += 1
        groups, odd, gaps, silence = self._kernel.advance(
            self._state,
            self._kernel.Columns(
                packets.rows, packets.ssrc, packets.sequence, packets.timestamp,
                packets.payload_type, packets.arrival_ns, packets.slot, packets.offset,
                packets.length,
            ),
            self._out_columns,
            n,
            self._epoch,
            self._playout.max_ahead_ns,
        )  # fmt: skip
        self._bank.released_total += n - odd
        self._statistics.counted(n - odd)
        self._playout.timestamp_gaps_total += gaps
        self._playout.silence_samples_total += silence
        return self._out[6][:odd], self._blocks(groups, packets.store)

    def unbind(self) -> None:
        """Let go of the columns: what holds them keeps their memory."""
        self._bound = ()
        self._state = None

    def _blocks(
        self, groups: list[tuple[int, int, int, int]], store: NDArray[np.uint8]
    ) -> Iterator[AudioBlock]:
        end = 0
        for frames, payload_type, size, gaps in groups:
            start, end = end, end + frames
            rows, slot, offset, position, gap, arrival_ns = [
                column[start:end] for column in self._out[:6]
            ]
            codec = CODECS[payload_type]
            if self._pcm.size < frames * codec.samples(size):
                self._pcm = np.zeros(frames * codec.samples(size), np.int16)
            yield AudioBlock(
                codec=codec,
                rows=rows,
                position=position,
                gap_samples=gap,
                lost=self._lost[:frames],
                arrival_ns=arrival_ns,
                payload=Payloads(store, slot, offset, size),
                scratch=self._pcm,
                has_gaps=gaps > 0,
            )

    def _bind(self) -> None:
        """Name the columns to the kernel, anew whenever they have moved."""
        bank, statistics, playout = self._bank, self._statistics, self._playout
        self._state = self._kernel.Columns(
            bank.next_sequence, bank.ssrc, bank.behind, bank.ahead,
            statistics.payload_types, statistics.payload_bytes, statistics.first_arrival_ns,
            statistics.last_arrival_ns, statistics.jitter_ns, statistics.jitter_max_ns,
            statistics.jitter_sum_ns, statistics.clocked_ns, statistics.clocked_timestamp,
            statistics.uncompared,
            playout.end, playout.next_timestamp, playout.next_arrival_ns, playout.late_ns,
            playout.rate_hz,
            playout.timestamp_gaps, playout.silence_samples, playout.needs_care,
            self._rate_hz, self._max_gap, np.zeros(bank.rows, np.int64),
            self._changes.codec, self._codec_number,
        )  # fmt: skip
