"""The ledger: what became of every packet of every track.

One row per packet, for all tracks together, in the order of their planning. The ledger has a cap:
beyond it the oldest rows are forgotten, which the log of their track then says.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from strep.simulator.stream import EVENT_BYTES, NO_FRAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from strep.simulator.audio import Audio
    from strep.simulator.stream import Packets

MOST_ROWS = 2_000_000
"""A quarter of an hour of 20 calls, some 100 MB."""


class Fate(IntEnum):
    """What became of a packet."""

    PENDING = 0
    """Its time has not come."""
    SENT = 1
    LOST = 2
    """Dropped on purpose: the scenario's network lost it."""
    FAILED = 3
    """The operating system would not send it."""
    CANCELLED = 4
    """Planned, but the fork ended before it was made: in nobody's log."""


_ROW = np.dtype(
    [
        ("made_s", "f8"),
        ("sent_unix_ns", "i8"),
        ("timestamp", "u4"),
        ("ssrc", "u4"),
        ("frame", "i4"),
        ("event", "u4"),
        ("sequence", "u2"),
        ("payload_type", "u1"),
        ("marker", "?"),
        ("fate", "u1"),
        ("copies", "u1"),
    ]
)
COLUMNS = tuple(name for name in _ROW.names or () if name not in {"frame", "event"})


class Span(NamedTuple):
    """Rows that belong together; numbers go on where rows were forgotten."""

    first: int
    stop: int


class Ledger:
    """The rows; `Span`s name them."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self.most_rows = most_rows
        self._rows = np.zeros(min(4096, most_rows), _ROW)
        self._first = 0
        self._stop = 0

    def add(self, packets: Packets, made_s: NDArray[np.float64]) -> Span:
        """Write down packets whose time has not come."""
        n = len(packets.sequence)
        self._make_room(n)
        start = self._stop - self._first
        rows = self._rows[start : start + n]
        rows["made_s"] = made_s
        for name in ("timestamp", "ssrc", "frame", "sequence", "payload_type", "marker"):
            rows[name] = getattr(packets, name)
        rows["event"] = packets.payload[:, :EVENT_BYTES].copy().view(">u4").reshape(n)
        rows["sent_unix_ns"] = rows["copies"] = 0
        rows["fate"] = Fate.PENDING
        self._stop += n
        return Span(self._stop - n, self._stop)

    def settle(self, numbers: NDArray[np.int64], fate: Fate) -> None:
        """Say what became of rows, by their numbers."""
        self._rows["fate"][self._known(numbers)] = fate

    def mark_sent(self, numbers: NDArray[np.int64], now_unix_ns: int) -> None:
        """Count a copy of each row as sent; a number may come several times."""
        known = self._known(numbers)
        fresh = known[self._rows["copies"][known] == 0]
        self._rows["sent_unix_ns"][fresh] = now_unix_ns
        self._rows["fate"][known] = Fate.SENT
        np.add.at(self._rows["copies"], known, 1)

    def cancel(self, spans: Iterable[Span], from_s: float) -> None:
        """Cancel what is made at `from_s` or later."""
        for span in spans:
            rows = self._of(span)
            rows["fate"][rows["made_s"] >= from_s] = Fate.CANCELLED

    def read(self, spans: Iterable[Span]) -> NDArray[np.void]:
        """Return the rows of all spans, in order, without those that were cancelled: a copy."""
        parts = [self._of(span) for span in spans]
        rows = np.concatenate(parts) if parts else np.zeros(0, _ROW)
        kept: NDArray[np.void] = rows[rows["fate"] != Fate.CANCELLED]
        return kept

    def forgotten(self, spans: Iterable[Span]) -> int:
        """Return how many rows of these are no longer there."""
        return sum(max(0, min(self._first, span.stop) - span.first) for span in spans)

    def _of(self, span: Span) -> NDArray[np.void]:
        first = max(span.first, self._first)
        return self._rows[first - self._first : max(first, span.stop) - self._first]

    def _known(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        known: NDArray[np.int64] = numbers[numbers >= self._first] - self._first
        return known

    def _make_room(self, n: int) -> None:
        kept = self._stop - self._first
        if kept + n > self.most_rows:
            dropped = min(kept, max(n, self.most_rows // 4))
            self._rows[: kept - dropped] = self._rows[dropped:kept].copy()
            self._first += dropped
            kept -= dropped
        if kept + n > len(self._rows):
            grown = np.zeros(max(2 * len(self._rows), kept + n), _ROW)
            grown[:kept] = self._rows[:kept]
            self._rows = grown


@dataclass(frozen=True, slots=True, eq=False)
class TrackLog:
    """What a track's sender did: one entry per packet, in the order of their making.

    The columns are (n,) arrays: `made_s` (float, when the sender made it, in seconds of the
    simulation), `sent_unix_ns` (when its first copy was sent, 0 for never), `timestamp`, `ssrc`,
    `sequence`, `payload_type`, `marker`, `fate` (of `Fate`) and `copies` (how many datagrams).
    """

    track: int
    call_control_id: str
    call_leg_id: str
    """As in STREP headers and webhooks."""
    leg: str
    """`A` or `B`."""
    direction: str
    """`inbound` or `outbound`."""
    wrapping: str
    """`strep` or `rtp`."""
    to: str
    """`HOST:PORT`."""
    packet_ms: int
    running: bool
    """Whether more is to come."""
    forgotten: int
    """How many of the oldest packets are no longer in the log."""
    columns: NDArray[np.void]
    payloads: tuple[bytes, ...]
    """What each packet carried."""

    def counts(self) -> dict[str, int]:
        """Return how many packets met each fate, and how many datagrams were sent."""
        fates = np.bincount(self.columns["fate"], minlength=len(Fate))
        named = {fate.name.lower(): int(fates[fate]) for fate in Fate if fate != Fate.CANCELLED}
        return {**named, "datagrams": int(self.columns["copies"].sum())}

    def as_json(self, *, packets: bool = True) -> dict[str, Any]:
        """Return the log as a JSON object, which with its packets `from_json` reads back."""
        document: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in {"columns", "payloads"}
        }
        document["counts"] = self.counts()
        if not packets:
            return document
        document["packets"] = {name: self.columns[name].tolist() for name in COLUMNS}
        document["packets"]["payload"] = [base64.b64encode(p).decode() for p in self.payloads]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrackLog:
        """Read what `as_json` returned. Raises KeyError and ValueError for anything else."""
        packets = document["packets"]
        columns = np.zeros(len(packets["sequence"]), _ROW)
        for name in COLUMNS:
            columns[name] = packets[name]
        payloads = tuple(base64.b64decode(text) for text in packets["payload"])
        rest = {
            name: document[name] for name in cls.__slots__ if name not in {"columns", "payloads"}
        }
        return cls(columns=columns, payloads=payloads, **rest)


def payloads_of(rows: NDArray[np.void], audio: Audio, samples: int) -> tuple[bytes, ...]:
    """Return what each of a ledger's rows carried: a frame of this audio, or a telephone-event."""
    return tuple(
        event.to_bytes(EVENT_BYTES, "big")
        if frame == NO_FRAME
        else audio.frames(payload_type, samples)[frame].tobytes()
        for frame, event, payload_type in zip(
            *(rows[name].tolist() for name in ("frame", "event", "payload_type")), strict=True
        )
    )
