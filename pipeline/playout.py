"""Playout: where each released frame stands in time, and blocks of equal frames for the sinks.

A frame's position follows from its RTP timestamp: what lies between the end of the frame before
and its beginning is a gap, of silence (DTX, hold) or of loss. Positions count samples of audio,
timestamps units of the codec's RTP clock: two samples each for G.722, one for all others.

The arrivals watch over that. Each track has a *lateness*: how much later its last frame came than
its position would have it, by the clock that the track's frames have kept so far (a clock that may
drift: lateness is forgotten at 0.1 % of the time that passes, which is ten times as fast as a
crystal is wrong).

- A gap is believed unless its end would run ahead of the arrivals by more than `max_ahead_s`: a
  timestamp that was made up cannot write silence that has not passed. Steps back are believed up
  to MAX_STEP_BACK_S; they overlap what was there.
- A frame that is not believed, or begins a new sequence, stands as far behind the frame before
  as it arrived behind it.
- A frame that comes after a pause, and then more than MOST_LATE_S late, waits for half a
  second. If others follow in a burst, the network had stalled, and the timestamps are right. If
  they follow at the pace of speech, the sender had stopped, and its timestamps with it (a hold):
  then the frame stands where its arrival says, behind the silence that they have not told. (What
  gets late little by little waits in a queue of the network, and is left alone.)

A gap longer than `max_gap_s` is not filled, and audio of another rate does not fit: there a new
segment begins, at position 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.block import AudioBlock, Payloads
from pipeline.codecs import CODECS, PAYLOAD_TYPES
from pipeline.decoders import Decoded, Decoders
from pipeline.packets import Released
from pipeline.rows import RowState
from pipeline.sequence import distance32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.block import Began
    from pipeline.codecs import Codec
    from pipeline.packets import Packets

DEFAULT_RATE_HZ = 8000
DEFAULT_MAX_GAP_S = 120.0
MAX_STEP_BACK_S = 1.0
DEFAULT_MAX_AHEAD_S = 2.0
MOST_LATE_NS = 1_000_000_000
PAUSE_NS = 500_000_000
"""Nothing that came sooner after the frame before comes after a pause."""
VERDICT_NS = 500_000_000
"""How long a frame that comes far too late waits for what follows it."""
CATCH_UP_NS = 200_000_000
"""By so much less late than the first is a frame that belongs to a burst."""
MAX_WAITING = 64
"""Frames of one track that wait for the verdict."""
MAX_WAITING_IN_ALL = 16_384
MAX_LOSSES = 1000
"""Losses per track that are remembered one by one."""

SECOND_NS = 1_000_000_000
LONGEST_NS = 86_400 * SECOND_NS
"""Waits are cut to this, so that no product with a sample rate overflows."""
LEAK_BITS = 10
"""Lateness is forgotten at 1 / 2**LEAK_BITS of the time that passes."""

_NO_CODEC = PAYLOAD_TYPES
_CODEC_OF = np.full(PAYLOAD_TYPES, _NO_CODEC, np.intp)
for _payload_type in CODECS:
    _CODEC_OF[_payload_type] = _payload_type


@dataclass(slots=True)
class _Places:
    """Where frames stand."""

    end: NDArray[np.int64]
    """End of the frame before."""
    waited_ns: NDArray[np.int64]
    """How long after it was due each arrived."""
    late_ns: NDArray[np.int64]
    """How late each is, where it stands."""
    gap: NDArray[np.int64] | None = None
    """None where all frames follow at once."""
    is_realigned: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Which begin another relation of the timestamps to the arrivals."""


class Playout(RowState):
    """Media time of all tracks by row.

    `begin_segment(row, began, gap_s, packet)` is called before the first frame of a further
    segment is played; the row is renewed by then. `realigned(row, samples)` is called when silence
    was inserted that the timestamps had not told.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "end": (np.int64, 0),
        "next_timestamp": (np.int64, 0),
        "next_arrival_ns": (np.int64, 0),
        "late_ns": (np.int64, 0),
        "rate_hz": (np.int64, DEFAULT_RATE_HZ),
        "timestamp_gaps": (np.int64, 0),
        "silence_samples": (np.int64, 0),
        "realignments": (np.int64, 0),
        "needs_care": (np.bool_, False),
        "waits_since_ns": (np.int64, 0),
        "waits_timestamp": (np.int64, 0),
        "waits_packets": (np.int64, 0),
    }
    end: NDArray[np.int64]
    """Position of the end of the last audio frame, in samples; 0 before the first."""
    next_timestamp: NDArray[np.int64]
    """RTP timestamp of a frame that follows without a gap."""
    next_arrival_ns: NDArray[np.int64]
    """When that frame would arrive on a network without jitter."""
    late_ns: NDArray[np.int64]
    """How much later than its position has it the last frame came; below 0 by how much gaps that
    were believed have run ahead of the arrivals."""
    rate_hz: NDArray[np.int64]
    """Sample rate of the last frame."""
    timestamp_gaps: NDArray[np.int64]
    silence_samples: NDArray[np.int64]
    realignments: NDArray[np.int64]
    """Frames whose timestamps did not tell where they stand."""
    needs_care: NDArray[np.bool_]
    """Whether something is remembered that the next audio frame must be told."""
    waits_since_ns: NDArray[np.int64]
    """Arrival of the frame that waits for the verdict, where one does."""
    waits_timestamp: NDArray[np.int64]
    """That frame's timestamp."""
    waits_packets: NDArray[np.int64]
    """Packets that wait, that frame included; 0 where none does."""

    def __init__(
        self,
        *,
        max_gap_s: float = DEFAULT_MAX_GAP_S,
        max_ahead_s: float = DEFAULT_MAX_AHEAD_S,
        decoders: Decoders | None = None,
        begin_segment: Callable[[int, Began, float, Packets], None] | None = None,
        realigned: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.max_gap_s = max_gap_s
        self.max_ahead_ns = round(max_ahead_s * 1e9)
        self.decoders = Decoders() if decoders is None else decoders
        """Of all that is not G.711."""
        self.timestamp_gaps_total = 0
        self.silence_samples_total = 0
        self.realignments_total = 0
        self.losses: dict[int, list[tuple[int, int]]] = {}
        """By row: (position, packets) of each loss, at most MAX_LOSSES."""
        self._begin_segment = begin_segment
        self._realigned = realigned
        self._pcm = np.zeros(0, np.int16)
        self._pending_lost: dict[int, int] = {}
        self._has_other_rates = False
        self._restarted: set[int] = set()
        """Rows whose next audio frame begins a new sequence."""
        self._waiting: list[Released] = []
        """What has come on rows that wait for the verdict on a frame that came far too late."""
        self._waiting_in_all = 0
        """How many packets these are."""
        self._stopped: set[int] = set()
        """Rows whose sender had stopped: the next audio frame stands where its arrival says."""
        self._stalled: set[int] = set()
        """Rows whose network had stalled: the next audio frame may come far too late."""

    @property
    def waiting(self) -> int:
        """Packets that wait for what follows a frame that came far too late."""
        return self._waiting_in_all

    def renew(self, row: int) -> None:
        """Set one row to the fresh values."""
        if self.waits_packets[row]:
            self._take_waiting(np.array([row]))
        super().renew(row)
        self.losses.pop(row, None)
        self._pending_lost.pop(row, None)
        self._restarted.discard(row)
        self._stopped.discard(row)
        self._stalled.discard(row)

    def play(self, released: Released) -> Iterator[AudioBlock]:
        """Yield the audio of released packets as blocks, each valid until the next is asked for.

        Packets without audio (no codec, no payload) yield nothing; the next frame's timestamp
        tells the length of the gap that they leave.
        """
        if self._waiting:
            is_waiting = self.waits_packets.take(released.packets.rows) > 0
            if is_waiting.any():
                yield from self._wait(released.take(np.flatnonzero(is_waiting)))
                released = released.take(np.flatnonzero(~is_waiting))
        packets = released.packets
        if not len(packets):
            return
        if released.restarted:
            self._restarted.update(packets.rows.tolist())
            self.needs_care[packets.rows] = True
            self.decoders.restart(packets.rows)
        for part, lost, kind in _by_kind(packets, released.lost):
            codec, size = CODECS.get(kind >> 16), kind & 0xFFFF
            if codec is not None and size:
                yield from self._block(part, codec, size, lost)
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
                yield from self._block(part, part.codec, int(part.length[0]), part_lost)
            elif part_lost is not None:
                self._postpone(part.rows, part_lost)

    def position(self, row: int, timestamp: int | None, arrival_ns: int) -> int:
        """Return where something stands that is no audio, on a track that has had audio.

        Believed is its RTP timestamp as that of a frame would be; without one, or where it is not,
        its arrival.
        """
        end, rate_hz = int(self.end[row]), int(self.rate_hz[row])
        most = round(self.max_gap_s * rate_hz)
        if timestamp is not None and row not in self._restarted:
            gap = distance32(timestamp, int(self.next_timestamp[row]))
            if -min(end, MAX_STEP_BACK_S * rate_hz) <= gap <= most:
                return end + gap
        late_ns = arrival_ns - int(self.next_arrival_ns[row])
        return end + min(max(0, late_ns * rate_hz // 1_000_000_000), most)

    def tick(self, now_ns: int, *, reorder_ns: int = 0) -> Iterator[AudioBlock]:
        """Yield what has waited long enough for a verdict, as `play` does.

        All packets that arrived more than `reorder_ns` before `now_ns` have been played.
        """
        if self._waiting:
            before_ns = now_ns - VERDICT_NS - reorder_ns
            over = np.flatnonzero((self.waits_packets > 0) & (self.waits_since_ns < before_ns))
            yield from self._settle(over, is_burst=False)

    def close(self, row: int) -> Iterator[AudioBlock]:
        """Yield what waits on a row, as if its time were over."""
        while self.waits_packets[row]:
            yield from self._settle(np.array([row]), is_burst=False)

    def overdue(
        self, now_ns: int, after_ns: int
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]] | None:
        """Return the rows on which no frame has come for long, and up to where; None for none.

        A frame is overdue when it has not arrived `after_ns` after it should have; so much of what
        has passed is left out of the positions, for frames that are only late. They end where the
        next frame would begin a new segment.
        """
        over_ns = now_ns - self.next_arrival_ns
        over_ns -= after_ns
        # once more beyond the longest gap, so that its end is told
        last_ns = round(self.max_gap_s * 1e9)
        rows = np.flatnonzero((over_ns > 0) & (over_ns < last_ns + SECOND_NS) & (self.end > 0))
        if not len(rows):
            return None
        passed_ns = np.minimum(over_ns.take(rows), last_ns)
        return rows, self.end.take(rows) + passed_ns * self.rate_hz.take(rows) // SECOND_NS

    def _block(
        self,
        packets: Packets,
        codec: Codec,
        size: int,
        lost: NDArray[np.int64] | None,
    ) -> Iterator[AudioBlock]:
        samples, rate_hz = codec.samples(size), codec.sample_rate_hz
        self._follow_rate(packets, rate_hz)
        places = self._place(packets, codec)
        too_late = self._too_late(packets, places)
        if too_late is not None:
            self._begin_waiting(packets, lost, np.flatnonzero(too_late))
            others = np.flatnonzero(~too_late)
            if len(others):
                lost = None if lost is None else lost[others]
                yield from self._block(packets.take(others), codec, size, lost)
            return
        rows, gap = packets.rows, places.gap
        if gap is not None:
            self._realign(rows, gap, places.is_realigned)
        lost = self._with_earlier(rows, lost)
        position = places.end
        if gap is not None:
            self._begin_segments(packets, places, gap, rate_hz)
            position = places.end + gap
        if lost is not None or gap is not None:
            lost = np.zeros(len(rows), np.int64) if lost is None else lost
            gap = np.zeros(len(rows), np.int64) if gap is None else gap
            self._account(rows, places.end, gap, lost)
        frame_ns = samples * SECOND_NS // rate_hz
        leak_ns = np.maximum(places.waited_ns + frame_ns, 0) >> LEAK_BITS
        self.late_ns[rows] = places.late_ns - np.clip(places.late_ns, -leak_ns, leak_ns)
        self.end[rows] = position + samples
        units = samples // codec.samples_per_unit
        self.next_timestamp[rows] = packets.timestamp + units & 0xFFFF_FFFF
        self.next_arrival_ns[rows] = packets.arrival_ns + frame_ns
        if self._has_other_rates:
            self.rate_hz[rows] = rate_hz
        if self._pcm.size < len(rows) * samples:
            self._pcm = np.zeros(len(rows) * samples, np.int16)
        yield AudioBlock(
            codec=codec,
            rows=rows,
            position=position,
            gap_samples=np.zeros(len(rows), np.int64) if gap is None else gap,
            lost=np.zeros(len(rows), np.int64) if lost is None else lost,
            arrival_ns=packets.arrival_ns,
            payload=Payloads(packets.store, packets.slot, packets.offset, size),
            scratch=self._pcm,
        )

    def _place(self, packets: Packets, codec: Codec) -> _Places:
        """Return where frames stand."""
        rows, rate_hz = packets.rows, codec.sample_rate_hz
        end = self.end.take(rows)
        due = self.next_timestamp.take(rows)
        before_ns = self.late_ns.take(rows)
        waited_ns = packets.arrival_ns - self.next_arrival_ns.take(rows)
        np.clip(waited_ns, -LONGEST_NS, LONGEST_NS, out=waited_ns)
        places = _Places(end, waited_ns, before_ns + waited_ns)
        if self._restarted or self._stopped or not (packets.timestamp == due).all():
            told = distance32(packets.timestamp, due) * codec.samples_per_unit
            self._believe(rows, told, places, rate_hz)
        # audio may come early: what came before it was only late; a gap may not
        usual_ns = np.maximum(places.late_ns, np.minimum(before_ns, 0))
        if places.gap is None:
            places.late_ns = usual_ns
        else:
            places.late_ns = np.where(places.gap > 0, places.late_ns, usual_ns)
        if not end.all():
            places.late_ns[end == 0] = waited_ns[end == 0] = 0
        return places

    def _believe(
        self, rows: NDArray[np.intp], told: NDArray[np.int64], places: _Places, rate_hz: int
    ) -> None:
        """Set the gaps, given those that the timestamps tell."""
        waited_ns, late_ns = places.waited_ns, places.late_ns
        told_ns = told * SECOND_NS // rate_hz
        back = np.minimum(places.end, round(MAX_STEP_BACK_S * rate_hz))
        doubtful = (told > 0) & (told_ns - late_ns > self.max_ahead_ns) | (told < -back)
        if self._restarted:
            doubtful |= np.isin(rows, list(self._restarted))
        gap, is_realigned = told, doubtful | (told < 0)
        if doubtful.any():
            # what has run ahead of the arrivals is made good
            elapsed_ns = np.maximum(np.minimum(waited_ns, late_ns), 0)
            gap = np.where(doubtful, elapsed_ns * rate_hz // SECOND_NS, gap)
        if self._stopped:
            stopped = np.isin(rows, list(self._stopped))
            # the last holds may have been too short to be seen
            missed_ns = np.maximum(np.minimum(late_ns, waited_ns + MOST_LATE_NS), 0)
            gap = np.where(stopped, missed_ns * rate_hz // SECOND_NS, gap)
            is_realigned |= stopped
        has_begun = places.end > 0
        places.gap = np.where(has_begun, gap, 0)
        places.is_realigned = is_realigned & has_begun
        places.late_ns = late_ns - places.gap * SECOND_NS // rate_hz

    def _realign(
        self, rows: NDArray[np.intp], gap: NDArray[np.int64], is_realigned: NDArray[np.bool_]
    ) -> None:
        """Count the frames whose timestamps did not tell where they stand, and say of holds."""
        self.realignments[rows] += is_realigned
        self.realignments_total += int(is_realigned.sum())
        if self._realigned is not None and self._stopped:
            for i in np.flatnonzero(is_realigned).tolist():
                if int(rows[i]) in self._stopped:
                    self._realigned(int(rows[i]), int(gap[i]))

    def _with_earlier(
        self, rows: NDArray[np.intp], lost: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Return losses with those that were remembered; nothing is, of these rows, from now on."""
        if not (self._restarted or self._stopped or self._stalled or self._pending_lost):
            return lost
        self.needs_care[rows] = False
        for remembered in (self._restarted, self._stopped, self._stalled):
            remembered.difference_update(rows.tolist())
        if not self._pending_lost:
            return lost
        earlier = [self._pending_lost.pop(row, 0) for row in rows.tolist()]
        return np.array(earlier, np.int64) + (0 if lost is None else lost)

    # -- frames that come after a pause, far too late

    def _too_late(self, packets: Packets, places: _Places) -> NDArray[np.bool_] | None:
        """Tell which frames have to wait for a verdict; None for none."""
        too_late: NDArray[np.bool_] = places.late_ns > MOST_LATE_NS
        too_late &= places.waited_ns > PAUSE_NS
        if self._stalled or self._stopped:
            too_late &= ~np.isin(packets.rows, [*self._stalled, *self._stopped])
        return too_late if too_late.any() else None

    def _begin_waiting(
        self, packets: Packets, lost: NDArray[np.int64] | None, which: NDArray[np.intp]
    ) -> None:
        """Let frames wait, of rows of which none does."""
        first = Released(packets, lost).take(which)
        rows = first.packets.rows
        self.waits_since_ns[rows] = first.packets.arrival_ns
        self.waits_timestamp[rows] = first.packets.timestamp
        self.needs_care[rows] = True
        self._keep(first)

    def _keep(self, released: Released) -> None:
        self._waiting.append(replace(released, packets=released.packets.copy()))
        self._waiting_in_all += len(released.packets)
        self.waits_packets[released.packets.rows] += 1

    def _wait(self, released: Released) -> Iterator[AudioBlock]:
        """Take packets of rows that wait, and yield all of those for which it brings the verdict.

        What is too much for `MAX_WAITING_IN_ALL` is the verdict on all that wait with it.
        """
        packets = released.packets
        elapsed_ns = packets.arrival_ns - self.waits_since_ns.take(packets.rows)
        over = elapsed_ns > VERDICT_NS
        if released.restarted or self._waiting_in_all + len(packets) > MAX_WAITING_IN_ALL:
            over[:] = True
        if over.any():
            yield from self._settle(packets.rows[over], is_burst=False)
            yield from self.play(released.take(np.flatnonzero(over)))
            released, elapsed_ns = released.take(np.flatnonzero(~over)), elapsed_ns[~over]
            packets = released.packets
        if not len(packets):
            return
        self._keep(released)
        rows = packets.rows
        told = distance32(packets.timestamp, self.waits_timestamp.take(rows))
        caught_up_ns = told * SECOND_NS // self._clocks_hz(packets) - elapsed_ns
        is_burst = caught_up_ns >= CATCH_UP_NS
        is_full = ~is_burst & (self.waits_packets.take(rows) >= MAX_WAITING)
        yield from self._settle(rows[is_burst], is_burst=True)
        yield from self._settle(rows[is_full], is_burst=False)

    def _clocks_hz(self, packets: Packets) -> NDArray[np.int64]:
        """Return the RTP clock of each packet; that of its track's audio where it is not known."""
        clocks_hz = self.rate_hz.take(packets.rows)
        for i in np.flatnonzero(_CODEC_OF.take(packets.payload_type) == _NO_CODEC).tolist():
            row, payload_type = int(packets.rows[i]), int(packets.payload_type[i])
            known = self.decoders.format_of(row, payload_type)
            if known is not None:
                clocks_hz[i] = known.clock_hz
        return clocks_hz

    def _settle(self, rows: NDArray[np.intp], *, is_burst: bool) -> Iterator[AudioBlock]:
        """Yield what has waited on rows: as its timestamps say, or else as its arrival says."""
        if not len(rows):
            return
        waited = self._take_waiting(rows)
        (self._stalled if is_burst else self._stopped).update(rows.tolist())
        for released in waited:
            yield from self.play(released)

    def _take_waiting(self, rows: NDArray[np.intp]) -> list[Released]:
        """Return what waits on rows, in its order, and let nothing wait there."""
        is_meant = np.zeros(self.rows, np.bool_)
        is_meant[rows] = True
        taken, kept = [], []
        for released in self._waiting:
            which = is_meant.take(released.packets.rows)
            if which.any():
                taken.append(released.take(np.flatnonzero(which)))
                released = released.take(np.flatnonzero(~which))  # noqa: PLW2901 -- the rest of it
            if len(released.packets):
                kept.append(released)
        self._waiting = kept
        self._waiting_in_all -= int(self.waits_packets[rows].sum())
        self.waits_packets[rows] = 0
        return taken

    # -- segments

    def _follow_rate(self, packets: Packets, rate_hz: int) -> None:
        """Begin new segments where the audio has another rate than before."""
        if rate_hz == DEFAULT_RATE_HZ and not self._has_other_rates:
            return
        self._has_other_rates = True
        rows = packets.rows
        other = (self.rate_hz.take(rows) != rate_hz) & (self.end.take(rows) > 0)
        for i in np.flatnonzero(other).tolist():
            waited_ns = int(packets.arrival_ns[i] - self.next_arrival_ns[rows[i]])
            self._next_segment(packets, i, "rate", max(0, waited_ns) / 1e9)

    def _begin_segments(
        self, packets: Packets, places: _Places, gap: NDArray[np.int64], rate_hz: int
    ) -> None:
        """Begin new segments behind gaps that are too long to be filled."""
        for i in np.flatnonzero(gap > round(self.max_gap_s * rate_hz)).tolist():
            self._next_segment(packets, i, "gap", int(gap[i]) / rate_hz)
            places.end[i] = places.late_ns[i] = places.waited_ns[i] = gap[i] = 0

    def _next_segment(self, packets: Packets, i: int, began: Began, gap_s: float) -> None:
        row = int(packets.rows[i])
        if self._begin_segment is not None:
            self._begin_segment(row, began, gap_s, packets.take(np.array([i])))
        self.renew(row)

    # -- accounts

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
