"""The way of packets through the pipeline: statistics, jitter bank, playout, sinks.

One object for all tracks. The caller says which row a packet belongs to, and what time it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import CloseReason, Event, Track, TrackSummary
from pipeline.changes import Change, Changes
from pipeline.codecs import CLOCK_RATES_HZ
from pipeline.comfort import COMFORT_NOISE
from pipeline.decoders import Decoded, Decoders
from pipeline.distributions import Distributions
from pipeline.drift import INTERVAL_NS, Drift
from pipeline.filling import Filling
from pipeline.jitter import JitterBank
from pipeline.playout import DEFAULT_MAX_AHEAD_S, DEFAULT_MAX_GAP_S, Playout
from pipeline.quality import Statistics
from pipeline.reports import Reports
from pipeline.straight import StraightWay
from pipeline.telephone_events import NAME as TELEPHONE_EVENT
from pipeline.telephone_events import TelephoneEvents
from pipeline.timeline import Timelines
from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from pipeline.block import AudioBlock, Began
    from pipeline.dispatch import Dispatcher
    from pipeline.filling import ComfortNoise, Concealment
    from pipeline.formats import Format
    from pipeline.keypress import KeyPress
    from pipeline.packets import Packets, Released
    from pipeline.telephone_events import OtherEvent

MAX_SSRCS = 100
"""Sources per track that are remembered."""
SILENCE_NS = 250_000_000
"""How often sinks are told of passing silence."""
OVERDUE_NS = 200_000_000
"""By so much too late is a frame that silence is told for."""


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
    realignments: int
    undecoded: int = 0
    """Of those released: with a payload that could not be decoded."""

    def as_dict(self) -> dict[str, int]:
        """Return the totals by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Pipeline:
    """Jitter bank, playout and sinks of all tracks.

    `telephone_events` maps the payload types of telephone-events to their clock in Hz, 101 to 8000
    by default; with `learn_telephone_events` others are recognised by their shape.
    `payload_types` say what dynamic ones stand for, before RFC 3551; `declared` which codec of no
    static payload type a call leg was declared to have.

    Behind a gap longer than `max_gap_s` and at a change of the sample rate, a track's *segment*
    ends: the sinks are told that the track is closed and that another is opened on its row, of the
    next generation. `on_segment` is told of that other one before. `concealment` says what stands
    for lost packets, `comfort_noise` what stands for pauses that a sender describes.

    Not thread-safe: one caller, on the receive loop.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        reorder_ms: float = 60,
        payload_types: Mapping[int, Format] | None = None,
        declared: Callable[[UUID], Format | None] = lambda _: None,
        max_gap_s: float = DEFAULT_MAX_GAP_S,
        telephone_events: Mapping[int, int] | None = None,
        learn_telephone_events: bool = False,
        mouth_to_ear_ms: float = 0.0,
        max_ahead_s: float = DEFAULT_MAX_AHEAD_S,
        concealment: Concealment = "silence",
        comfort_noise: ComfortNoise = "silence",
        on_segment: Callable[[Track], None] | None = None,
    ) -> None:
        self.dispatcher = dispatcher
        self.tracks: dict[int, Track] = {}
        """The open tracks by row."""
        self.bank = JitterBank(reorder_ms=reorder_ms)
        told = {} if payload_types is None else payload_types
        clocks_hz = {number: each.clock_hz for number, each in told.items()}
        self.statistics = Statistics({**CLOCK_RATES_HZ, **clocks_hz})
        self.decoders = Decoders(told, on_learnt=self.statistics.learn_clock)
        self._declared = declared
        self.playout = Playout(
            max_gap_s=max_gap_s,
            max_ahead_s=max_ahead_s,
            decoders=self.decoders,
            begin_segment=self._next_segment,
            realigned=self._realigned,
        )
        self.telephone_events = TelephoneEvents(
            self.playout,
            self._tell,
            payload_types=telephone_events,
            learn=learn_telephone_events,
        )
        self.timelines = Timelines(self.statistics, self.bank)
        self.reports = Reports()
        self.distributions = Distributions()
        """Of the tracks that were closed."""
        self.mouth_to_ear_ms = mouth_to_ear_ms
        self.drift = Drift()
        self.changes = Changes()
        self.filling: Filling | None = None
        if (concealment, comfort_noise) != ("silence", "silence"):
            self.filling = Filling(concealment=concealment, comfort_noise=comfort_noise)
        self._states = [self.playout, self.statistics, self.drift, self.changes]
        if self.filling is not None:
            self._states.append(self.filling)
        self._on_segment = on_segment
        self._next_drift_ns = 0
        self._next_silence_ns = 0
        self._ssrcs: dict[int, list[int]] = {}
        self._scratch = np.zeros(0, np.intp)
        kernel = load()
        self._straight = (
            None
            if kernel is None
            else StraightWay(kernel, self.bank, self.statistics, self.playout, self.changes)
        )

    def open(self, track: Track, *, sequence: int, timestamp: int = -1) -> None:
        """Begin a track on its row, before its first packet, of this sequence number.

        `timestamp` is that packet's, where it is known.
        """
        row = track.row
        self.bank.open(row, ssrc=track.ssrc, sequence=sequence)
        for state in self._states:
            state.ensure(row + 1)
            state.renew(row)
        self.telephone_events.open(row)
        self.statistics.first_timestamp[row] = timestamp
        if len(self._scratch) < self.bank.rows:
            self._scratch = np.zeros(self.bank.rows, np.intp)
        self._begin(track)

    def declare(self, call_leg_id: UUID) -> None:
        """Ask again which codec a call leg has, for its open tracks."""
        for track in self.tracks.values():
            if track.call_leg_id == call_leg_id:
                self._declare(track)

    def push(self, packets: Packets) -> None:
        """Take packets of open tracks in order of arrival."""
        if len(packets) and packets.arrival_ns[-1] >= self.timelines.due_ns:
            packets = self._push_until_due(packets)
        if not len(packets):
            return
        if self._straight is not None and not self.bank.is_crowded:
            odd, blocks = self._straight.push(packets)
            for block in blocks:  # of tracks whose codec is known
                self._hand_on(block)
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
        self.telephone_events.tick(now_ns)
        self.timelines.sample(now_ns)
        self._write(self.playout.tick(now_ns, reorder_ns=self.bank.reorder_ns))
        if now_ns >= self._next_drift_ns:
            self._next_drift_ns = now_ns + INTERVAL_NS
            self.drift.sample(self.playout)
        if now_ns >= self._next_silence_ns:
            self._next_silence_ns = now_ns + SILENCE_NS
            overdue = self.playout.overdue(now_ns, OVERDUE_NS)
            if overdue is not None:
                self.dispatcher.silence(*overdue)
        self.dispatcher.tick(now_ns)

    def idle_rows(self, before_ns: int) -> list[int]:
        """Return the open tracks whose last packet arrived before `before_ns`."""
        last = self.statistics.last_arrival_ns
        return [row for row in np.flatnonzero(last < before_ns).tolist() if row in self.tracks]

    def close(self, row: int, reason: CloseReason) -> None:
        """End a track: release what it holds and hand its summary to the sinks."""
        self._play(self.bank.close(row))
        self._write(self.playout.close(row))
        self.telephone_events.close(row)
        self._end(row, self.summary(row, reason))
        self.playout.renew(row)  # nothing is overdue on it any more
        self.decoders.close(row)

    def trim(self) -> None:
        """Give back memory of rows that are not in use any more."""
        rows = max(self.tracks, default=-1) + 1
        for state in (self.bank, self.timelines, *self._states):
            state.trim(rows)
        if self._straight is not None:
            self._straight.unbind()
        self._scratch = self._scratch[: self.bank.rows].copy()

    def summary(self, row: int, reason: CloseReason) -> TrackSummary:
        """Return a track's figures as they are now."""
        bank, statistics, playout = self.bank, self.statistics, self.playout
        events, event_types = self.telephone_events, self.telephone_events.payload_types(row)
        payload_types = statistics.by_payload_type(row)
        decoders = self.decoders
        names = {t: decoders.name(row, t) for t in payload_types if t not in event_types}
        codecs: Counter[str] = Counter()
        for number, name in names.items():
            codecs[name] += payload_types[number]
        no_codec = TELEPHONE_EVENT if event_types & payload_types.keys() else "unknown"
        packets = sum(payload_types.values())
        filling = self.filling
        late, duplicate = int(bank.late[row]), int(bank.duplicate[row])
        bursts, burst_packets, burst_lost = bank.burst_totals(row)
        return TrackSummary(
            reason=reason,
            packets=packets,
            payload_bytes=int(statistics.payload_bytes[row]),
            released=max(0, packets - late - duplicate - int(bank.ahead[row]).bit_count()),
            lost=int(bank.lost[row]),
            late=late,
            duplicate=duplicate,
            reordered=int(bank.reordered[row]),
            resets=int(bank.resets[row]),
            unknown_payload=sum(
                n
                for t, n in payload_types.items()
                if t != COMFORT_NOISE and t not in event_types and not decoders.can_decode(row, t)
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
            codecs=tuple(dict.fromkeys(names.get(t, TELEPHONE_EVENT) for t in payload_types)),
            ssrcs=tuple(self._ssrcs[row]),
            losses=tuple(playout.losses.get(row, ())),
            telephone_event_types=tuple(sorted(event_types & payload_types.keys())),
            telephone_events=events.presses(row),
            telephone_events_dropped=events.dropped(row),
            telephone_events_malformed=events.malformed(row),
            loss_runs=int(bank.loss_runs[row]),
            longest_loss=int(bank.longest_loss[row]),
            bursts=bursts,
            burst_packets=burst_packets,
            burst_lost=burst_lost,
            mouth_to_ear_ms=self.mouth_to_ear_ms,
            drift_ppm=self.drift.ppm(row),
            realignments=int(playout.realignments[row]),
            concealed_samples=0 if filling is None else int(filling.concealed_samples[row]),
            concealed=() if filling is None else tuple(filling.concealed.get(row, ())),
            comfort_noise_samples=0 if filling is None else int(filling.noise_samples[row]),
            codec=codecs.most_common(1)[0][0] if codecs else no_codec,
            undecoded=decoders.undecoded(row),
            changes=self.changes.of(row),
        )

    def is_fed_by(self, row: int, ssrc: int) -> bool:
        """Tell whether an open track was fed by this source lately."""
        return ssrc in self._ssrcs.get(row, ())

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
            realignments=self.playout.realignments_total,
            undecoded=self.decoders.undecoded_total,
        )

    def _push_until_due(self, packets: Packets) -> Packets:
        """Push what came before the timelines' samples that are due; return the rest."""
        while len(packets) and packets.arrival_ns[-1] >= (due_ns := self.timelines.due_ns):
            before = int((packets.arrival_ns >= due_ns).argmax())
            self.push(packets.take(np.arange(before)))
            packets = packets.take(np.arange(before, len(packets)))
            self.timelines.sample(int(packets.arrival_ns[0]))
        return packets

    def _final(self, track: Track, summary: TrackSummary) -> TrackSummary:
        """Return the figures of a track that is being closed, with what is told in the end."""
        row, statistics = track.row, self.statistics
        rtcp = self.reports.close(
            row,
            first_ssrc=track.ssrc,
            first_timestamp=int(statistics.first_timestamp[row]),
            clock_rate_hz=statistics.clock_rate_hz(row),
        )
        return replace(summary, timeline=self.timelines.close(row), rtcp=rtcp)

    def _declare(self, track: Track) -> None:
        declared = self._declared(track.call_leg_id)
        if declared is not None:
            self.decoders.declare(track.row, declared)

    def _count_restarts(self, released: Iterable[Released]) -> None:
        """Count the packets that were on probation and now begin a new sequence."""
        for part in released:
            if part.restarted:
                packets = part.packets
                row, ssrc = int(packets.rows[0]), int(packets.ssrc[0])
                position = self.playout.position(row, None, int(packets.arrival_ns[0]))
                ssrcs = self._ssrcs[row]
                if ssrcs[-1] == ssrc:
                    self.changes.note(row, Change(position, "restart"))
                else:
                    self.changes.note(row, Change(position, "source", f"{ssrc:#010x}"))
                    ssrcs.append(ssrc)
                    del ssrcs[:-MAX_SSRCS]
                self.statistics.restart(packets.rows)
                self.statistics.update(packets)

    def _play(self, released: Iterable[Released]) -> None:
        for part in released:
            if self.filling is not None:
                self.filling.hear(part.packets, self.playout)
            self._write(self.playout.play(part))
            self.telephone_events.take(part)

    def _tell(self, row: int, heard: KeyPress | OtherEvent) -> None:
        track = self.tracks[row]
        self.dispatcher.emit(heard.as_event(track))

    def _write(self, blocks: Iterable[AudioBlock]) -> None:
        for block in blocks:
            self.changes.hear(block)
            self._hand_on(block)

    def _hand_on(self, block: AudioBlock) -> None:
        if self.filling is not None:
            for filler in self.filling.fill(block):
                self.dispatcher.write(filler)
        self.dispatcher.write(block)

    def _begin(self, track: Track) -> None:
        self.timelines.open(track.row, track.opened_ns)
        self._ssrcs[track.row] = [track.ssrc]
        self.decoders.open(track.row)
        self._declare(track)
        self.tracks[track.row] = track
        self.dispatcher.open(track)
        opened: dict[str, object] = {"source": track.source, "ssrc": f"{track.ssrc:#010x}"}
        if track.segment:
            opened |= {"segment": track.segment, "began": track.began, "gap_s": track.gap_s}
        self._emit("track_opened", track, opened)

    def _end(self, row: int, summary: TrackSummary) -> None:
        track = self.tracks.pop(row)
        summary = self._final(track, summary)
        self.distributions.add(summary)
        self.dispatcher.close(track, summary)
        self._emit("track_closed", track, {"reason": summary.reason, "packets": summary.packets})
        del self._ssrcs[row]

    def _next_segment(self, row: int, began: Began, gap_s: float, packet: Packets) -> None:
        """Close the track on a row and open its next segment, which begins with this packet.

        The packet has been counted already: it is moved, unless it had waited since an even earlier
        segment. What still waits behind a hole counts for the segment in which it came. What
        decoders remember stays.
        """
        if isinstance(packet, Decoded):
            packet = packet.received
        before, arrival_ns = self.tracks[row], int(packet.arrival_ns[0])
        reason: CloseReason = "rate" if began == "rate" else "gap"
        self.telephone_events.close(row)
        ended_ns = int(self.playout.next_arrival_ns[row])
        is_counted_here = self.statistics.uncount(packet, last_arrival_ns=ended_ns)
        held = int(self.bank.ahead[row]).bit_count()
        summary = self.summary(row, reason)
        track = replace(
            before,
            generation=before.generation + 1,
            opened_ns=arrival_ns,
            opened_unix_ns=before.opened_unix_ns + arrival_ns - before.opened_ns,
            ssrc=int(packet.ssrc[0]),
            segment=before.segment + 1,
            began=began,
            gap_s=gap_s,
        )
        if self._on_segment is not None:
            self._on_segment(track)
        self._end(row, replace(summary, released=summary.released + held))
        self.bank.recount(row)
        for state in self._states:
            state.renew(row)
        self.telephone_events.open(row)
        self.statistics.first_timestamp[row] = packet.timestamp[0]
        if is_counted_here:
            self.statistics.update(packet)
        else:
            self.statistics.note_arrival(row, arrival_ns)
        self._begin(track)

    def _realigned(self, row: int, samples: int) -> None:
        """Say that a sender's timestamps had stood still for so long."""
        gap_s = round(samples / int(self.playout.rate_hz[row]), 3)
        self.changes.note(row, Change(int(self.playout.end[row]), "hold", gap_s))
        self._emit("track_realigned", self.tracks[row], {"gap_s": gap_s})

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
