"""The way of packets through the pipeline: statistics, jitter bank, playout, sinks.

One object for all tracks. The caller says which row a packet belongs to, and what time it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import CloseReason, Event, Track, TrackSummary
from pipeline.codecs import CLOCK_RATES_HZ
from pipeline.decoders import Decoders
from pipeline.jitter import JitterBank
from pipeline.playout import Playout
from pipeline.quality import Statistics
from pipeline.straight import StraightWay
from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from pipeline.dispatch import Dispatcher
    from pipeline.formats import Format
    from pipeline.packets import Packets, Released

MAX_SSRCS = 100
"""Sources per track that are remembered."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the start. Conserved: packets = released + late + duplicate + held."""

    packets: int
    """Packets that belong to a track."""
    released: int
    late: int
    duplicate: int
    held: int
    """Waiting behind a hole now."""
    on_probation: int
    """Not of a track yet: may begin a new sequence."""
    stray: int
    """Never came to belong to a track."""
    lost: int
    reordered: int
    resets: int
    timestamp_gaps: int
    silence_samples: int
    undecoded: int = 0
    """Of those released: with a payload that could not be decoded."""

    def as_dict(self) -> dict[str, int]:
        """Return the totals by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Pipeline:
    """Jitter bank, playout and sinks of all tracks.

    `payload_types` say what dynamic ones stand for, before RFC 3551; `declared` which codec of no
    static payload type a call leg was declared to have.

    Not thread-safe: one caller, on the receive loop.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        reorder_ms: float = 60,
        max_gap_s: float = 60,
        payload_types: Mapping[int, Format] | None = None,
        declared: Callable[[UUID], Format | None] = lambda _: None,
    ) -> None:
        self.dispatcher = dispatcher
        self.tracks: dict[int, Track] = {}
        """The open tracks by row."""
        self.bank = JitterBank(reorder_ms=reorder_ms)
        told = {} if payload_types is None else payload_types
        clocks_hz = {number: each.clock_hz for number, each in told.items()}
        self.statistics = Statistics({**CLOCK_RATES_HZ, **clocks_hz})
        self.decoders = Decoders(told, on_learnt=self.statistics.learn_clock)
        self.playout = Playout(max_gap_s=max_gap_s, decoders=self.decoders)
        self._declared = declared
        self._ssrcs: dict[int, list[int]] = {}
        self._scratch = np.zeros(0, np.intp)
        kernel = load()
        self._straight = (
            None
            if kernel is None
            else StraightWay(kernel, self.bank, self.statistics, self.playout)
        )

    def open(self, track: Track, *, sequence: int) -> None:
        """Begin a track on its row, before its first packet, of this sequence number."""
        row = track.row
        self.bank.open(row, ssrc=track.ssrc, sequence=sequence)
        for state in (self.playout, self.statistics):
            state.ensure(row + 1)
            state.renew(row)
        if len(self._scratch) < self.bank.rows:
            self._scratch = np.zeros(self.bank.rows, np.intp)
        self._ssrcs[row] = [track.ssrc]
        self.decoders.open(row)
        self._declare(track)
        self.tracks[row] = track
        self.dispatcher.open(track)
        self._emit("track_opened", track, {"source": track.source, "ssrc": f"{track.ssrc:#010x}"})

    def declare(self, call_leg_id: UUID) -> None:
        """Ask again which codec a call leg has, for its open tracks."""
        for track in self.tracks.values():
            if track.call_leg_id == call_leg_id:
                self._declare(track)

    def push(self, packets: Packets) -> None:
        """Take packets of open tracks in order of arrival."""
        if not len(packets):
            return
        if self._straight is not None and not self.bank.is_crowded:
            odd, blocks = self._straight.push(packets)
            for block in blocks:
                self.dispatcher.write(block)
            if not len(odd):
                return
            packets = packets.take(odd)
        for part in packets.rounds(self._scratch):
            belongs, released = self.bank.push(part)
            self._count_restarts(released)
            self.statistics.update(part if belongs is None else part.take(np.flatnonzero(belongs)))
            self._play(released)

    def tick(self, now_ns: int) -> None:
        """Bring the passing of time: all packets that arrived before `now_ns` were pushed."""
        self._play(self.bank.tick(now_ns))
        self.dispatcher.tick(now_ns)

    def idle_rows(self, before_ns: int) -> list[int]:
        """Return the open tracks whose last packet arrived before `before_ns`."""
        last = self.statistics.last_arrival_ns
        return [row for row in np.flatnonzero(last < before_ns).tolist() if row in self.tracks]

    def close(self, row: int, reason: CloseReason) -> None:
        """End a track: release what it holds and hand its summary to the sinks."""
        track = self.tracks.pop(row)
        self._play(self.bank.close(row))
        summary = self.summary(row, reason)
        self.dispatcher.close(track, summary)
        self._emit("track_closed", track, {"reason": reason, "packets": summary.packets})
        self.decoders.close(row)
        del self._ssrcs[row]

    def trim(self) -> None:
        """Give back memory of rows that are not in use any more."""
        rows = max(self.tracks, default=-1) + 1
        for state in (self.bank, self.statistics, self.playout):
            state.trim(rows)
        if self._straight is not None:
            self._straight.unbind()
        self._scratch = self._scratch[: self.bank.rows].copy()

    def summary(self, row: int, reason: CloseReason) -> TrackSummary:
        """Return a track's figures as they are now."""
        bank, statistics, playout = self.bank, self.statistics, self.playout
        payload_types = statistics.by_payload_type(row)
        decoders = self.decoders
        codecs: Counter[str] = Counter()
        for number, count in payload_types.items():
            codecs[decoders.name(row, number)] += count
        packets = sum(payload_types.values())
        late, duplicate = int(bank.late[row]), int(bank.duplicate[row])
        return TrackSummary(
            reason=reason,
            packets=packets,
            payload_bytes=int(statistics.payload_bytes[row]),
            released=packets - late - duplicate - int(bank.ahead[row]).bit_count(),
            lost=int(bank.lost[row]),
            late=late,
            duplicate=duplicate,
            reordered=int(bank.reordered[row]),
            resets=int(bank.resets[row]),
            unknown_payload=sum(
                n for t, n in payload_types.items() if not decoders.can_decode(row, t)
            ),
            timestamp_gaps=int(playout.timestamp_gaps[row]),
            silence_samples=int(playout.silence_samples[row]),
            jitter_last_ms=float(statistics.jitter_ns[row]) / 1e6,
            jitter_mean_ms=statistics.jitter_mean_ns(row) / 1e6,
            jitter_max_ms=float(statistics.jitter_max_ns[row]) / 1e6,
            first_arrival_ns=int(statistics.first_arrival_ns[row]),
            last_arrival_ns=int(statistics.last_arrival_ns[row]),
            duration_samples=int(playout.end[row]),
            sample_rate_hz=int(playout.rate_hz[row]),
            payload_types=payload_types,
            codecs=tuple(codecs),
            ssrcs=tuple(self._ssrcs[row]),
            losses=tuple(playout.losses.get(row, ())),
            codec=codecs.most_common(1)[0][0] if codecs else "unknown",
            undecoded=decoders.undecoded(row),
        )

    def counters(self) -> Counters:
        """Return the totals."""
        bank = self.bank
        return Counters(
            packets=self.statistics.packets_total,
            released=bank.released_total,
            late=bank.late_total,
            duplicate=bank.duplicate_total,
            held=bank.held,
            on_probation=bank.on_probation,
            stray=bank.stray_total,
            lost=bank.lost_total,
            reordered=bank.reordered_total,
            resets=bank.resets_total,
            timestamp_gaps=self.playout.timestamp_gaps_total,
            silence_samples=self.playout.silence_samples_total,
            undecoded=self.decoders.undecoded_total,
        )

    def _declare(self, track: Track) -> None:
        declared = self._declared(track.call_leg_id)
        if declared is not None:
            self.decoders.declare(track.row, declared)

    def _count_restarts(self, released: Iterable[Released]) -> None:
        """Count the packets that were on probation and now begin a new sequence."""
        for part in released:
            if part.restarted:
                packets = part.packets
                ssrcs = self._ssrcs[int(packets.rows[0])]
                if ssrcs[-1] != packets.ssrc[0]:
                    ssrcs.append(int(packets.ssrc[0]))
                    del ssrcs[:-MAX_SSRCS]
                self.statistics.restart(packets.rows)
                self.statistics.update(packets)

    def _play(self, released: Iterable[Released]) -> None:
        for part in released:
            for block in self.playout.play(part):
                self.dispatcher.write(block)

    def _emit(self, kind: str, track: Track, data: dict[str, object]) -> None:
        self.dispatcher.emit(
            Event(
                kind,
                track,
                int(self.playout.end[track.row]),
                int(self.playout.rate_hz[track.row]),
                data,
            )
        )
