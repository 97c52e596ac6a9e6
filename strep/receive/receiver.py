"""From a batch of datagrams to the pipeline: parse, find the tracks, hand on, keep account.

Pure of sockets and clocks: batches are passed in, time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, get_args
from uuid import UUID

import numpy as np

from pipeline.block import CloseReason, Track
from pipeline.packets import Packets
from pipeline.pipeline import Pipeline
from pipeline.playout import DEFAULT_MAX_AHEAD_S, DEFAULT_MAX_GAP_S
from strep.receive.admission import key_of
from strep.receive.gate import Gate
from strep.receive.heap import trim_heap
from strep.receive.rtcp import RtcpListener
from strep.receive.tracks import NO_ROW, TrackTable
from strep.wire import Direction, DropReason, Endpoint, Kind, Leg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from pipeline.dispatch import Dispatcher
    from pipeline.filling import ComfortNoise, Concealment
    from pipeline.formats import Format
    from strep.receive.admission import Admission, Key
    from strep.receive.gate import GateSettings
    from strep.wire import PacketBatch

HOUSEKEEPING_NS = 1_000_000_000
"""How often idle tracks are looked for."""
CONFIRMED_PACKETS = 3
UNCONFIRMED_NS = 10_000_000_000
"""After so long without a packet a track that has had fewer than these is closed where there is a
gate: a flood of made-up call legs does not keep rows from calls."""
MANY_TRACKS = 100
"""Memory is given back for so many tracks at least."""
REFUSED = -2
"""In place of a row: of a track that its source may not open now."""
LATE_TRIMS = 3
"""Housekeepings that give back memory, when the sinks' threads have closed their tracks, too."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose audio a port receives as plain RTP."""

    call_leg_id: UUID
    leg: Leg = Leg.A
    direction: Direction = Direction.INBOUND


class Receiver:
    """Accepts batches, opens and closes tracks and feeds the pipeline.

    `unix_offset_ns` is what must be added to the readers' clock for nanoseconds since 1970: 0 for
    captures. Not thread-safe: one caller, the receive loop.

    With an `admission` only call legs that it knows, and bound ports, open tracks; datagrams of
    others wait there. A `gate` bounds who may open tracks, and pins tracks to their sources.
    `on_opened` is told of each new track, and of each segment. See `Pipeline` for the options that
    are not named here.

    While it drains, only call legs that ran when that began open tracks.

    Datagrams are conserved: `read` is what was accepted, plus what was dropped by reason, plus
    what is on probation, plus what is pending because its call leg is not known yet.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        max_tracks: int = 16_384,
        idle_timeout_s: float = 120,
        reorder_ms: float = 60,
        payload_types: Mapping[int, Format] | None = None,
        declared: Callable[[UUID], Format | None] = lambda _: None,
        max_gap_s: float = DEFAULT_MAX_GAP_S,
        telephone_events: Mapping[int, int] | None = None,
        learn_telephone_events: bool = False,
        max_ahead_s: float = DEFAULT_MAX_AHEAD_S,
        concealment: Concealment = "silence",
        comfort_noise: ComfortNoise = "silence",
        unix_offset_ns: int = 0,
        mouth_to_ear_ms: float = 0.0,
        admission: Admission | None = None,
        gate: GateSettings | None = None,
        on_opened: Callable[[Track], None] | None = None,
    ) -> None:
        self.table = TrackTable(max_tracks)
        self.pipeline = Pipeline(
            dispatcher,
            reorder_ms=reorder_ms,
            max_gap_s=max_gap_s,
            telephone_events=telephone_events,
            learn_telephone_events=learn_telephone_events,
            mouth_to_ear_ms=mouth_to_ear_ms,
            max_ahead_s=max_ahead_s,
            payload_types=payload_types,
            declared=declared,
            concealment=concealment,
            comfort_noise=comfort_noise,
            on_segment=self._next_segment,
        )
        self.rtcp = RtcpListener(self.pipeline, self.table, flow_ids, unix_offset_ns=unix_offset_ns)
        self.idle_timeout_ns = round(idle_timeout_s * 1e9)
        """May be changed, as `pipeline.mouth_to_ear_ms`."""
        self.unix_offset_ns = unix_offset_ns
        self.read = 0
        """Datagrams read."""
        self.tracks_opened = 0
        self.tracks_closed: dict[CloseReason, int] = dict.fromkeys(get_args(CloseReason), 0)
        self._dropped = np.zeros(len(DropReason), np.int64)
        self._bindings = _Bindings()
        self._admission = admission
        self._gate = None if gate is None else Gate(max_tracks, gate)
        self._on_opened = on_opened
        self._running: frozenset[Key] | None = None
        """The call legs that may still open tracks while it drains."""
        self._next_housekeeping_ns = 0
        self._most_tracks = 0
        self._trims_due = 0

    @property
    def datagrams(self) -> dict[str, int]:
        """How many datagrams were accepted, dropped (by reason), are on probation or pending."""
        counters = self.pipeline.counters()
        dropped = self._dropped.copy()
        dropped[DropReason.STRAY] = counters.stray
        counts = {reason.label: int(dropped[reason]) for reason in DropReason}
        counts[DropReason.ACCEPTED.label] = counters.packets
        counts["on_probation"] = counters.on_probation
        counts["pending"] = 0 if self._admission is None else self._admission.datagrams
        return counts

    @property
    def legs_pending(self) -> int:
        """How many call legs have datagrams that wait for them to be known."""
        return 0 if self._admission is None else self._admission.legs

    def bind(self, binding: Binding) -> int:
        """Return a number for the binding, for `PacketBatch.binding`."""
        return self._bindings.add(binding)

    def unbind(self, number: int) -> None:
        """Take a number back; no batch with it may follow."""
        self._bindings.remove(number)

    def admit(self, call_leg_id: UUID) -> None:
        """Let a call leg be known, and take in what has waited for that."""
        if self._admission is not None:
            waited = self._admission.admit(call_leg_id)
            if waited is not None:
                self._take(waited)

    def forget(self, call_leg_id: UUID) -> None:
        """Let a call leg be known no more; its open tracks go on."""
        if self._admission is not None:
            self._admission.forget(call_leg_id)

    def set_admission(self, admission: Admission | None) -> None:
        """Receive known call legs only from now on, or any with None; open tracks go on.

        An `admission` knows nobody yet. With None what waited to be known is taken in.
        """
        before, self._admission = self._admission, admission
        for waited in [] if before is None else before.release():
            self._take(waited)

    def set_gate(self, settings: GateSettings) -> None:
        """Let the gate, where there is one, go by these settings from now on."""
        if self._gate is not None:
            self._gate.set(settings)

    def take_no_new(self, further: Iterable[UUID] = ()) -> None:
        """Drain: refuse and count, as `draining`, what would open a track of a new call leg.

        Not new are the legs that have a track now, and `further`.
        """
        legs = {track.call_leg_id for track in self.pipeline.tracks.values()}
        self._running = frozenset(map(key_of, legs.union(further)))

    def receive(self, batch: PacketBatch) -> None:
        """Take a batch that was just read.

        Plain RTP without a binding makes a track of each (source, destination, SSRC).
        """
        self.read += batch.count
        self._take(batch)

    def _take(self, batch: PacketBatch) -> None:
        if not batch.count:
            return
        is_ordinary = batch.parse()
        self._take_rtp(batch, is_ordinary=is_ordinary)
        if not is_ordinary:
            # last, so that what came with them has opened their tracks
            self._hear_rtcp(batch)

    def _hear_rtcp(self, batch: PacketBatch) -> None:
        slots = np.flatnonzero(batch.reason[: batch.count] == DropReason.RTCP)
        if not len(slots):
            return
        side, leg_id = batch.side[slots], batch.call_leg_id[:, slots]
        plain = np.flatnonzero(batch.kind[slots] != Kind.STREP)
        numbers = batch.binding[slots[plain]]
        leg_id[:, plain] = self._bindings.leg_id[:, numbers]
        side[plain] = self._bindings.side[numbers]
        self.rtcp.hear(batch, slots, leg_id, side)

    def _take_rtp(self, batch: PacketBatch, *, is_ordinary: bool) -> None:
        n = batch.count
        which: NDArray[np.intp] | None = None
        side, leg_id = batch.side[:n], batch.call_leg_id[:, :n]
        if not is_ordinary:
            reason = batch.reason[:n]
            self._dropped += np.bincount(reason, minlength=len(DropReason))
            which = np.flatnonzero(reason == DropReason.ACCEPTED)
            if not len(which):
                return
            side, leg_id = side[which], leg_id.take(which, axis=1)
            if (batch.kind[which] == Kind.RTP).any():
                self._name_rtp(batch, which, leg_id, side)
        rows, missing = self.table.lookup(leg_id[0], leg_id[1], side)
        if missing:
            which = np.arange(n) if which is None else which
            self._open_new(batch, which, rows, leg_id, side)
            known = np.flatnonzero(rows >= 0)
            rows, which = rows[known], which[known]
        if self._gate is not None:
            slots = batch.slots[:n] if which is None else which
            strangers = self._gate.strangers(rows, batch.source, slots)
            if len(strangers):
                own = self._own_packets(self._gate, batch, slots, rows, strangers)
                rows, which = rows[own], slots[own]
        self.pipeline.push(_packets(batch, which, rows))

    def tick(self, now_ns: int) -> None:
        """Bring the passing of time: all that arrived before `now_ns` was received."""
        self.pipeline.tick(now_ns)
        if now_ns >= self._next_housekeeping_ns:
            self._next_housekeeping_ns = now_ns + HOUSEKEEPING_NS
            self._close_idle(now_ns)
            if self._admission is not None:
                self._dropped[DropReason.UNKNOWN_LEG] += self._admission.expire(now_ns)
            self._give_back_memory()

    def _close_idle(self, now_ns: int) -> None:
        """Close tracks that nothing came to for long; sooner where hardly anything ever came."""
        timeout_ns = self.idle_timeout_ns
        if self._gate is not None:
            timeout_ns = min(UNCONFIRMED_NS, timeout_ns)
        for row in self.pipeline.idle_rows(now_ns - timeout_ns):
            statistics = self.pipeline.statistics
            is_idle = statistics.last_arrival_ns[row] < now_ns - self.idle_timeout_ns
            if is_idle or statistics.payload_types[row].sum() < CONFIRMED_PACKETS:
                self._close(row, "idle")

    def close_call(self, call_leg_id: UUID) -> int:
        """Close all tracks of a call; returns how many there were."""
        rows = [r for r, t in self.pipeline.tracks.items() if t.call_leg_id == call_leg_id]
        for row in rows:
            self._close(row, "closed")
        return len(rows)

    def stop(self) -> None:
        """Give up what is pending, close all tracks and let the sinks finish."""
        if self._admission is not None:
            self._dropped[DropReason.UNKNOWN_LEG] += self._admission.clear()
        for row in list(self.pipeline.tracks):
            self._close(row, "end")
        self.pipeline.dispatcher.stop()

    def _give_back_memory(self) -> None:
        """Give back what closed tracks have left, when most of those that there were are closed."""
        tracks = len(self.table)
        self._most_tracks = max(self._most_tracks, tracks)
        if tracks + MANY_TRACKS <= self._most_tracks and 4 * tracks <= self._most_tracks:
            self._most_tracks = tracks
            self.pipeline.trim()
            self._trims_due = LATE_TRIMS
        if self._trims_due and not self.pipeline.dispatcher.is_closing:
            self._trims_due -= 1
            trim_heap()

    def _close(self, row: int, reason: CloseReason) -> None:
        self.pipeline.close(row, reason)
        self.table.remove(row)
        self.tracks_closed[reason] += 1

    def _next_segment(self, track: Track) -> None:
        """Take in that a track goes on as another one, on the same row."""
        self.table.generation[track.row] = track.generation
        self.tracks_closed["rate" if track.began == "rate" else "gap"] += 1
        self.tracks_opened += 1
        if self._on_opened is not None:
            self._on_opened(track)

    def _open_new(
        self,
        batch: PacketBatch,
        which: NDArray[np.intp],
        rows: NDArray[np.intp],
        leg_id: NDArray[np.uint64],
        side: NDArray[np.uint8],
    ) -> None:
        """Open tracks for packets without a row, and set their rows where that could be."""
        new = np.flatnonzero(rows == NO_ROW)
        if self._running is not None:
            new = new[self._still_taken(self._running, batch, which[new], leg_id[:, new])]
        if self._admission is not None:
            new = new[self._admitted(self._admission, batch, which[new], leg_id[:, new])]
        if self._gate is not None:
            new = new[self._let_in(self._gate, batch, which[new])]
        if not self.table.is_full:
            opened: dict[tuple[int, int, int], int] = {}
            keys = zip(*leg_id[:, new].tolist(), side[new].tolist(), strict=True)
            for i, key in zip(new.tolist(), keys, strict=True):
                row = opened.get(key)
                if row is None:
                    slot = int(which[i])
                    row = opened[key] = self._new_row(batch, slot, key)
                    if row >= 0:
                        self._open(batch, slot, row, leg_id[:, i].tobytes(), int(side[i]))
                rows[i] = row
            self._drop(batch, which[new[rows[new] == REFUSED]], DropReason.TOO_MANY_NEW)
            new = new[rows[new] == NO_ROW]
        self._drop(batch, which[new], DropReason.TRACKS_FULL)

    def _let_in(self, gate: Gate, batch: PacketBatch, slots: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell which packets come from where tracks may be opened now; the others are dropped."""
        source = batch.source[slots]
        allowed = gate.allows(source)
        self._drop(batch, slots[~allowed], DropReason.SOURCE_NOT_ALLOWED)
        let_in: NDArray[np.bool_] = allowed.copy()
        if allowed.any():
            let_in[allowed] = gate.has_token(source[allowed], int(batch.arrival_ns[slots[0]]))
        self._drop(batch, slots[allowed & ~let_in], DropReason.TOO_MANY_NEW)
        return let_in

    def _new_row(self, batch: PacketBatch, slot: int, key: tuple[int, int, int]) -> int:
        """Return a row for a new track; `REFUSED` or `NO_ROW` where it can have none."""
        gate = self._gate
        if gate is None:
            return self.table.add(*key)
        source = batch.source[slot : slot + 1]
        if not gate.take_token(source[0], int(batch.arrival_ns[slot])):
            return REFUSED
        row = self.table.add(*key)
        if row != NO_ROW:
            gate.pin(np.array([row]), source)
        return row

    def _own_packets(
        self,
        gate: Gate,
        batch: PacketBatch,
        slots: NDArray[np.intp],
        rows: NDArray[np.intp],
        strangers: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Return the indices of packets without those of strangers, which are dropped.

        A track that nothing has come to for long is pinned to its first stranger instead.
        """
        own = np.delete(np.arange(len(rows)), strangers)
        theirs, theirs_slots = rows[strangers], slots[strangers]
        last_ns = self.pipeline.statistics.last_arrival_ns.take(theirs)
        is_silent = batch.arrival_ns[theirs_slots] - last_ns >= gate.source_timeout_ns
        is_silent &= ~np.isin(theirs, rows[own])
        moved, first = np.unique(theirs[is_silent], return_index=True)
        if len(moved):
            gate.pin(moved, batch.source[theirs_slots[is_silent][first]])
            foreign = gate.strangers(theirs, batch.source, theirs_slots)
        else:
            foreign = np.arange(len(theirs))
        self._drop(batch, theirs_slots[foreign], DropReason.OTHER_SOURCE)
        return np.sort(np.concatenate((own, np.delete(strangers, foreign))))

    def _drop(self, batch: PacketBatch, slots: NDArray[np.intp], reason: DropReason) -> None:
        self._dropped[reason] += len(slots)
        batch.reason[slots] = reason

    def _still_taken(
        self,
        running: frozenset[Key],
        batch: PacketBatch,
        slots: NDArray[np.intp],
        leg_id: NDArray[np.uint64],
    ) -> NDArray[np.bool_]:
        """Tell which packets are of running call legs; the others are dropped."""
        is_running = np.array(
            [key in running for key in zip(*leg_id.tolist(), strict=True)], np.bool_
        )
        self._drop(batch, slots[~is_running], DropReason.DRAINING)
        return is_running

    def _admitted(
        self,
        admission: Admission,
        batch: PacketBatch,
        slots: NDArray[np.intp],
        leg_id: NDArray[np.uint64],
    ) -> NDArray[np.bool_]:
        """Tell which packets may open a track; the others wait for their call leg or are dropped.

        A port's binding tells of its call leg. Nobody can tell of one that was made from where
        plain RTP comes from.
        """
        is_rtp = batch.kind[slots] == Kind.RTP
        admitted: NDArray[np.bool_] = is_rtp & (batch.binding[slots] != 0)
        admitted |= admission.knows(leg_id)
        may_wait = ~admitted & ~is_rtp
        refused = np.concatenate(
            (
                slots[~admitted & is_rtp],
                admission.keep(batch, slots[may_wait], leg_id[:, may_wait]),
            )
        )
        self._drop(batch, refused, DropReason.UNKNOWN_LEG)
        return admitted

    def _open(self, batch: PacketBatch, slot: int, row: int, leg_id: bytes, side: int) -> None:
        """Open the track of one packet on a row that was given to it."""
        arrival_ns = int(batch.arrival_ns[slot])
        track = Track(
            row=row,
            generation=int(self.table.generation[row]),
            call_leg_id=UUID(bytes=leg_id),
            leg="B" if side & 0b10 else "A",
            direction="outbound" if side & 0b01 else "inbound",
            opened_ns=arrival_ns,
            opened_unix_ns=arrival_ns + self.unix_offset_ns,
            source=_endpoint_text(batch.source[slot].tobytes()),
            destination=_endpoint_text(batch.destination[slot].tobytes()),
            ssrc=int(batch.ssrc[slot]),
        )
        self.pipeline.open(
            track, sequence=int(batch.sequence[slot]), timestamp=int(batch.timestamp[slot])
        )
        self.tracks_opened += 1
        if self._on_opened is not None:
            self._on_opened(track)

    def _name_rtp(
        self,
        batch: PacketBatch,
        which: NDArray[np.intp],
        leg_id: NDArray[np.uint64],
        side: NDArray[np.uint8],
    ) -> None:
        """Give plain RTP a call leg: its port's, or one made from where it comes from."""
        at = np.flatnonzero(batch.kind.take(which) == Kind.RTP)
        slots = which[at]
        numbers = batch.binding[slots]
        leg_id[:, at] = self._bindings.leg_id[:, numbers]
        side[at] = self._bindings.side[numbers]
        if not numbers.all():
            at, slots = at[numbers == 0], slots[numbers == 0]
            leg_id[:, at] = flow_ids(
                batch.source[slots], batch.destination[slots], batch.ssrc[slots]
            )


class _Bindings:
    """The bindings by number, as columns; number 0 is none."""

    def __init__(self) -> None:
        self.leg_id = np.zeros((2, 1), np.uint64)
        self.side = np.zeros(1, np.uint8)
        self._free: list[int] = []

    def add(self, binding: Binding) -> int:
        if not self._free:
            size = len(self.side)
            self.leg_id = np.pad(self.leg_id, ((0, 0), (0, size)))
            self.side = np.pad(self.side, (0, size))
            self._free = list(range(2 * size - 1, size - 1, -1))
        number = self._free.pop()
        self.leg_id[:, number] = np.frombuffer(binding.call_leg_id.bytes, np.uint64)
        self.side[number] = binding.leg << 1 | binding.direction
        return number

    def remove(self, number: int) -> None:
        self._free.append(number)


def flow_ids(
    source: NDArray[np.uint8], destination: NDArray[np.uint8], ssrc: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return a call_leg_id for each flow of plain RTP, (2, n) uint64 in memory order.

    The same for the same source, destination (each (n, 24) uint8, see `Endpoint`) and SSRC, now
    and in other runs: a version-8 UUID (RFC 9562 section 5.8) of a 128-bit mix of them.
    """
    words = np.concatenate((source.view("<u8").T, destination.view("<u8").T))
    out = np.empty((2, len(ssrc)), np.uint64)
    for half, seed in enumerate((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)):
        mixed = ssrc.astype(np.uint64) + np.uint64(seed)
        for word in words:
            # splitmix64's finaliser
            mixed = (mixed ^ word.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
        out[half] = mixed.astype("<u8").view(np.uint64)
    octets = np.ascontiguousarray(out.T).view(np.uint8)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x80
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    return np.ascontiguousarray(octets.view(np.uint64).T)


@lru_cache(maxsize=4096)
def _endpoint_text(packed: bytes) -> str:
    """Return `address:port`; calls share few sources and fewer destinations."""
    return str(Endpoint.unpack(packed))


def _packets(batch: PacketBatch, which: NDArray[np.intp] | None, rows: NDArray[np.intp]) -> Packets:
    """Return the columns of these packets (None: all), the payloads left where they are."""
    columns = (
        batch.ssrc, batch.sequence, batch.timestamp, batch.payload_type, batch.arrival_ns,
        batch.payload_offset, batch.payload_bytes,
    )  # fmt: skip
    if which is None:
        which = batch.slots[: batch.count]
        taken = [column[: batch.count] for column in columns]
    else:
        taken = [column.take(which) for column in columns]
    ssrc, sequence, timestamp, payload_type, arrival_ns, offset, length = taken
    return Packets(
        rows=rows,
        ssrc=ssrc,
        sequence=sequence,
        timestamp=timestamp,
        payload_type=payload_type,
        arrival_ns=arrival_ns,
        store=batch.buffer,
        slot=which,
        offset=offset,
        length=length,
    )
