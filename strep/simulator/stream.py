"""The packets of one direction of a call, as its sender makes them.

Pure: the same for the same seed, however many packets are asked for at a time. Time is the call's:
seconds since the answer. It is divided into slots of one packet each, of which the sender leaves
some out (hold, suppressed silence) and fills others with telephone-events (RFC 4733).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from strep.media import SAMPLES_PER_MS
from strep.simulator.scenario import (
    DTMF,
    PAYLOAD_TYPES,
    CodecChange,
    Hold,
    Reinvite,
    Typing,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from strep.simulator.audio import Audio
    from strep.simulator.scenario import Scenario

TELEPHONE_EVENT = 101
"""The payload type, dynamic by nature, that telephone-events usually get."""
EVENT_BYTES = 4
EVENT_VOLUME_DBM0 = 10
END_PACKETS = 3
"""How often the last packet of an event is sent (RFC 4733 section 2.5.1.4)."""
NO_FRAME = -1


class Packets(NamedTuple):
    """Packets as columns, in the order of their making."""

    made_s: NDArray[np.float64]
    """When each is due by the clock of the simulation, since the answer."""
    sequence: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    ssrc: NDArray[np.int64]
    payload_type: NDArray[np.int64]
    marker: NDArray[np.bool_]
    frame: NDArray[np.int64]
    """Number of the frame of the source's audio, `NO_FRAME` for a telephone-event."""
    payload: NDArray[np.uint8]
    """(n, samples of a packet); what a telephone-event needs not is 0."""
    settling: NDArray[np.bool_]
    """Those at the beginning of a source or before a change of it; see `spared_packets`."""


class _Tone(NamedTuple):
    """A digit as telephone-events."""

    code: int
    first_slot: int
    slots: int


class Stream:
    """Makes the packets of one direction, one stretch after the other.

    A stream that begins later in the call (`begin_s`) makes what one that began with it would
    have gone on with; only the sequence numbers differ by what was left out until then.
    """

    def __init__(
        self,
        audio: Audio,
        scenario: Scenario,
        *,
        seed: Sequence[int],
        types: bool,
        begin_s: float = 0.0,
    ) -> None:
        """`types` says whether the digits of the scenario are typed in this direction."""
        plan = scenario.audio
        self.samples = plan.packet_ms * SAMPLES_PER_MS
        self.audio = audio
        self._slot_s = plan.packet_ms / 1000
        self._loop = plan.loop
        self._is_silent = (
            audio.is_silent(self.samples, plan.silence_dbfs) if plan.silence_suppression else None
        )
        random = np.random.default_rng(seed)
        # so that not all streams send at the same moments
        self._phase_s = float(random.random()) * self._slot_s
        self._pace = 1 + plan.clock_ppm * 1e-6
        reinvites = [event.at_s for event in scenario.events(Reinvite)]
        self._source_slots = np.array([-math.inf, *map(self._slot_at, reinvites)])
        sources = len(self._source_slots)
        self._ssrc = random.integers(1, 2**32, sources)
        self._sequence = random.integers(2**16, size=sources)
        self._timestamp = random.integers(2**32, size=sources)
        changes = scenario.events(CodecChange)
        self._law_slots = np.array([-math.inf, *(self._slot_at(c.at_s) for c in changes)])
        self._laws = np.array([PAYLOAD_TYPES[c] for c in (plan.codec, *(c.codec for c in changes))])
        self._holds = [
            (self._slot_at(hold.at_s), self._slot_at(hold.at_s + hold.for_s))
            for hold in scenario.events(Hold)
        ]
        self._tones = [t for event in scenario.events(Typing) for t in self._dialled(event)]
        if not types:
            self._tones = []
        self._spared = scenario.network.spared_packets
        self._slot = self._first_slot = self._slot_of(begin_s)
        self._rows = 0
        self._last_kept: int | None = None
        self._source = -1
        self._rows_of_source = 0

    def until(self, end_s: float) -> Packets:
        """Return the next packets, up to those that are made at `end_s` or later."""
        slots = np.arange(self._slot, max(self._slot_of(end_s), self._slot))
        self._slot += len(slots)
        source = np.searchsorted(self._source_slots, slots, "right") - 1
        law = self._laws[np.searchsorted(self._law_slots, slots, "right") - 1]
        frame = self._frame_of(slots)
        kept = np.ones(len(slots), bool)
        if self._is_silent is not None:
            kept &= ~self._is_silent[frame]
        repeats, codes = np.ones(len(slots), np.intp), np.full(len(slots), -1)
        begins = slots.copy()
        for tone in self._tones:
            typed = (slots >= tone.first_slot) & (slots < tone.first_slot + tone.slots)
            codes[typed], begins[typed], kept[typed] = tone.code, tone.first_slot, True
            repeats[typed & (slots == tone.first_slot + tone.slots - 1)] = END_PACKETS
        for first, stop in self._holds:
            kept &= (slots < first) | (slots >= stop)

        resumed = self._resumed(slots[kept])
        rows = np.repeat(np.flatnonzero(kept), repeats[kept])
        is_event = codes[rows] >= 0
        numbers = self._first_slot + self._rows + np.arange(len(rows))
        self._rows += len(rows)
        starts = np.where(is_event, begins[rows], slots[rows])
        is_first = np.repeat(resumed, repeats[kept]) & ~is_event
        is_first |= is_event & (slots[rows] == begins[rows]) & (np.diff(rows, prepend=-1) > 0)
        payload = self._payload(law[rows], frame[rows])
        if is_event.any():
            payload[is_event] = self._events(
                codes[rows[is_event]], (slots - begins)[rows[is_event]], repeats[rows[is_event]] > 1
            )
        return Packets(
            made_s=(self._phase_s + slots[rows] * self._slot_s / self._pace).astype(np.float64),
            sequence=(self._sequence[source[rows]] + numbers) & 0xFFFF,
            timestamp=(self._timestamp[source[rows]] + starts * self.samples) & 0xFFFFFFFF,
            ssrc=self._ssrc[source[rows]],
            payload_type=np.where(is_event, TELEPHONE_EVENT, law[rows]),
            marker=is_first,
            frame=np.where(is_event, NO_FRAME, frame[rows]),
            payload=payload,
            settling=self._settling(slots[rows], source[rows]),
        )

    def _slot_at(self, nominal_s: float) -> int:
        """Return the first slot at or after a moment of the sender's own clock."""
        return math.ceil(nominal_s / self._slot_s - 1e-9)

    def _slot_of(self, time_s: float) -> int:
        """Return the first slot that is made at or after a moment."""
        return max(0, math.ceil((time_s - self._phase_s) * self._pace / self._slot_s - 1e-9))

    def _dialled(self, typing: Typing) -> list[_Tone]:
        """Lay the digits of one event into slots, tone and pause each a whole number of them."""
        tone, pause = (max(1, round(ms / 1000 / self._slot_s)) for ms in
                       (typing.tone_ms, typing.pause_ms))  # fmt: skip
        first = self._slot_at(typing.at_s)
        return [
            _Tone(DTMF.index(digit), first + i * (tone + pause), tone)
            for i, digit in enumerate(typing.digits)
        ]

    def _frame_of(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        silence = len(self.audio.frames(PAYLOAD_TYPES["PCMU"], self.samples)) - 1
        return slots % silence if self._loop else np.minimum(slots, silence)

    def _resumed(self, kept: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of the slots that are sent come behind others that were not."""
        before = kept[:1] - 1 if self._last_kept is None else np.array([self._last_kept])
        if len(kept):
            self._last_kept = int(kept[-1])
        return np.diff(kept, prepend=before[: len(kept)]) > 1

    def _payload(self, law: NDArray[np.int64], frame: NDArray[np.int64]) -> NDArray[np.uint8]:
        payload = np.empty((len(law), self.samples), np.uint8)
        for payload_type in np.unique(law).tolist():
            of_law = law == payload_type
            payload[of_law] = self.audio.frames(payload_type, self.samples)[frame[of_law]]
        return payload

    def _events(
        self, codes: NDArray[np.int64], after: NDArray[np.int64], ends: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Return payloads of telephone-events (RFC 4733 section 2.3), each to the slot's end."""
        duration = np.minimum((after + 1) * self.samples, 0xFFFF)
        payload = np.zeros((len(codes), self.samples), np.uint8)
        payload[:, 0] = codes
        payload[:, 1] = np.where(ends, 0x80, 0) | EVENT_VOLUME_DBM0
        payload[:, 2], payload[:, 3] = duration >> 8, duration & 0xFF
        return payload

    def _settling(self, slots: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not len(slots):
            return np.empty(0, bool)
        index = np.arange(len(slots))
        carried = self._rows_of_source if source[0] == self._source else 0
        begins = np.diff(source, prepend=source[0]) > 0
        begin = np.maximum.accumulate(np.where(begins, index, -carried))
        since = index - begin
        self._source, self._rows_of_source = int(source[-1]), int(since[-1]) + 1
        next_change = np.append(self._source_slots[1:], math.inf)[source]
        return (since < self._spared) | (next_change - slots <= self._spared)
