"""The traffic of the benchmarks: which packet goes when, and its bytes.

Pure: no socket, no clock, and the same for the same seed. All tracks send at one constant rate
and take turns: packet `i` of the whole is packet `i // tracks` of track `i % tracks` and is due
`i / rate` seconds after the start, where `rate` is that of all tracks together. So any stretch of
the traffic can be made by itself, and one run can go on where another stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import numpy as np

from strep.voices import load_voice
from strep.wire import Direction, Leg, RtpHeader, StrepHeader
from strep.wire.fields import RTP_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Wrapping = Literal["strep", "rtp"]

SAMPLE_RATE_HZ = 8000
FRAME_SAMPLES = 160
"""20 ms of G.711, whatever the rate: a faster rate is a call in fast motion."""
REAL_TIME_PPS = 50.0
SLAB_PACKETS = 2048
"""Packets that are planned and written at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent. Raises ValueError for a value out of its range."""

    tracks: int
    rate_pps: float = REAL_TIME_PPS
    """Packets per second of each track."""
    wrapping: Wrapping = "strep"
    sides: int = 2
    """Tracks of one call_leg_id: 1, 2 (both directions of leg A) or 4 (of both legs)."""
    loss: float = 0.0
    """Fraction of packets that are left out."""
    reorder: float = 0.0
    """Fraction of packets that are held back by `reorder_ms`."""
    reorder_ms: float = 30.0
    burst_ms: float = 0.0
    """Packets that are due within so long leave together at its end; 0 for each by itself."""
    seed: int = 1
    pause_samples: int = 0
    """Silence before the first packet of this stretch, which the timestamps tell."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("tracks", 1, 1_000_000),
            ("rate_pps", 0.001, 10_000_000),
            ("loss", 0, 0.99),
            ("reorder", 0, 1),
            ("reorder_ms", 0, 10_000),
            ("burst_ms", 0, 10_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low:,} to {high:,}")
        if self.sides not in {1, 2, 4}:
            raise ValueError(f"sides is {self.sides}, expected 1, 2 or 4")

    @property
    def total_pps(self) -> float:
        """Packets per second of all tracks together."""
        return self.tracks * self.rate_pps


@dataclass(frozen=True, slots=True)
class Slab:
    """Packets in the order of their sending."""

    index: NDArray[np.int64]
    """(n,) int64: number of each packet in the whole."""
    due_ns: NDArray[np.int64]
    """(n,) int64: when each is sent, from the start of the stretch, never falling."""


def schedule(traffic: Traffic, first: int, stop: int) -> Iterator[Slab]:
    """Yield the packets from `first` up to `stop` of the whole, without those that are lost.

    The random numbers belong to this stretch: each packet draws two, whatever the impairments.
    """
    random = np.random.default_rng(traffic.seed)
    shift = round(traffic.reorder_ms * traffic.total_pps / 1000)
    waiting = np.empty((2, 0), np.int64)
    for start in range(first, stop, SLAB_PACKETS):
        end = min(start + SLAB_PACKETS, stop)
        index = np.arange(start, end)
        loss_draw, reorder_draw = random.random((2, len(index)))
        turn = index + np.where(reorder_draw < traffic.reorder, shift, 0)
        new = np.stack((turn, index))[:, loss_draw >= traffic.loss]
        waiting = np.concatenate((waiting, new), axis=1)
        # stable, so that a packet that was held back comes before the one whose turn it takes
        waiting = waiting[:, waiting[0].argsort(kind="stable")]
        ready = len(waiting[0]) if end == stop else int(waiting[0].searchsorted(end))
        if ready:
            yield Slab(waiting[1, :ready], _due_ns(traffic, waiting[0, :ready] - first))
        waiting = waiting[:, ready:]


def _due_ns(traffic: Traffic, turn: NDArray[np.int64]) -> NDArray[np.int64]:
    due_ns = turn * (1e9 / traffic.total_pps)
    if traffic.burst_ms:
        burst_ns = traffic.burst_ms * 1e6
        due_ns = np.ceil(due_ns / burst_ns) * burst_ns
    return due_ns.astype(np.int64)


class PacketWriter:
    """Writes the datagrams of a traffic: STREP (or nothing), RTP and 20 ms of speech in PCMU.

    The two sides of a call are the two voices of one conversation; each call begins at another
    moment of it, and it goes round.
    """

    def __init__(self, traffic: Traffic) -> None:
        tracks, sides = traffic.tracks, traffic.sides
        random = np.random.default_rng(traffic.seed)
        calls = -(-tracks // sides)
        self.call_leg_ids = [UUID(bytes=random.bytes(16), version=4) for _ in range(calls)]
        """(calls,) of both legs and directions; track t is side `t % sides` of call `t // sides`,
        leg << 1 | direction."""
        self.ssrc = random.integers(2**32, size=tracks)
        self._first_sequence = random.integers(2**16, size=tracks)
        self._first_timestamp = random.integers(2**32, size=tracks)
        voices = [
            codes[: len(codes) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
            for codes in (load_voice("caller"), load_voice("agent"))
        ]
        self._voices = np.concatenate(voices)
        self._frames = len(voices[0])
        self._pause_samples = traffic.pause_samples
        track = np.arange(tracks)
        self._voice = (track % sides & 1) * self._frames
        self._begin = random.integers(self._frames, size=calls)[track // sides]
        headers = [self._header(traffic.wrapping, *divmod(t, sides), t) for t in range(tracks)]
        self._headers = np.frombuffer(b"".join(headers), np.uint8).reshape(tracks, -1)
        self._rtp = self._headers.shape[1] - RTP_BYTES
        self.datagram_bytes = self._headers.shape[1] + FRAME_SAMPLES

    def write(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Write these packets of the whole into `out` (n, datagram_bytes) uint8."""
        number, track = np.divmod(index, len(self._headers))
        at, rtp = self._headers.shape[1], self._rtp
        sequence = (self._first_sequence[track] + number).astype(">u2")
        elapsed = FRAME_SAMPLES * number + self._pause_samples
        timestamp = (self._first_timestamp[track] + elapsed).astype(">u4")
        out[:, :at] = self._headers[track]
        out[:, rtp + 2 : rtp + 4] = sequence.view(np.uint8).reshape(-1, 2)
        out[:, rtp + 4 : rtp + 8] = timestamp.view(np.uint8).reshape(-1, 4)
        frame = self._voice[track] + (self._begin[track] + number) % self._frames
        out[:, at:] = self._voices[frame]

    def _header(self, wrapping: Wrapping, call: int, side: int, track: int) -> bytes:
        """Return a track's headers, whose sequence number and timestamp are filled in later."""
        rtp = RtpHeader(payload_type=0, sequence=0, timestamp=0, ssrc=int(self.ssrc[track])).pack()
        if wrapping == "rtp":
            return rtp
        leg, direction = Leg(side >> 1), Direction(side & 1)
        return StrepHeader(self.call_leg_ids[call], leg=leg, direction=direction).pack() + rtp
