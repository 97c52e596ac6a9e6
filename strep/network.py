"""What a network does to a stream of packets: a pure model, the same for the same seed.

A packet goes through four stages, in this order:

1. the sender's clock, which runs fast or slow;
2. a queue, which delays but keeps the order: a packet behind a slow one comes right after it; its
   delays are drawn at random or follow a trace of a real network;
3. loss, by Gilbert's model: a good state that loses nothing and a bad one that loses everything;
4. detours: a reordered packet is held back beyond the queue, a duplicate comes a little after the
   packet that it copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LIMITS = {
    "loss": (0.0, 0.99),
    "loss_burst_packets": (1.0, 10_000.0),
    "duplicate": (0.0, 1.0),
    "reorder": (0.0, 1.0),
    "reorder_ms": (0.0, 60_000.0),
    "jitter_ms": (0.0, 60_000.0),
    "delay_ms": (0.0, 60_000.0),
    "clock_ppm": (-10_000.0, 10_000.0),
}
"""Lowest and highest value of each impairment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairments:
    """How bad a network is; as made, it is a perfect one.

    Raises ValueError where a value is out of its range.
    """

    loss: float = 0.0
    """Fraction of packets lost, 0 to 0.99."""
    loss_burst_packets: float = 1.0
    """Mean length of a run of lost packets, 1 to 10,000. Up to 1 / (1 - loss), which is what
    chance alone makes, packets are lost independently."""
    duplicate: float = 0.0
    """Fraction of the packets that arrive which arrive twice, 0 to 1."""
    reorder: float = 0.0
    """Fraction of packets that are held back, 0 to 1."""
    reorder_ms: float = 30.0
    """How long they are held back, 0 to 60,000: it takes more than the time between two packets
    to come behind the next one."""
    jitter_ms: float = 0.0
    """Mean interarrival jitter (RFC 3550 section 6.4.1) that the queue causes while its delays
    stay below the time between two packets, 0 to 60,000. The delays are log-normal: most are
    near the median of 0.6 jitter_ms, one in a thousand is 13 jitter_ms or more."""
    delay_ms: float = 0.0
    """Delay that every packet has, 0 to 60,000."""
    clock_ppm: float = 0.0
    """How much faster than nominal the sender's clock runs, in parts per million, -10,000 to
    10,000."""

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low:g} to {high:g}")


class Arrivals(NamedTuple):
    """What arrives, in order of arrival."""

    packet: NDArray[np.intp]
    """(n,) intp: index of the packet that arrives; twice for a duplicate, never for a lost one."""
    time_s: NDArray[np.float64]
    """(n,) float64: when it arrives, in seconds on the clock of the send times."""


class DelayTrace(NamedTuple):
    """How a network delayed one packet after another."""

    delay_s: NDArray[np.float64]
    """(n,) float64: what the packet's delay was above the shortest."""
    lost: NDArray[np.bool_]
    """(n,) bool: those that never came; their delay is not used."""


class Network:
    """The way of one stream through the network, however many packets are sent at a time.

    With a `trace` the queue delays as it did, packet by packet, and loses what it lost; behind its
    end it begins again. The impairments then come on top, and `jitter_ms` has to be 0.

    Each packet draws the same random numbers whatever the impairments, so with one integer seed
    the same packets are lost with and without jitter, and in few or many calls. Raises ValueError
    for a trace without packets, or with jitter.
    """

    def __init__(
        self,
        impairments: Impairments,
        *,
        seed: int | np.random.Generator,
        trace: DelayTrace | None = None,
    ) -> None:
        if trace is not None and (not len(trace.delay_s) or impairments.jitter_ms):
            raise ValueError("a trace needs at least one packet, and jitter_ms to be 0")
        self.impairments = impairments
        self._trace = trace
        # apart, since normal numbers take a varying number of draws
        self._uniform, self._normal = np.random.default_rng(seed).spawn(2)
        self._packets = 0
        self._first_send_s = 0.0
        self._last_out_s = -math.inf
        self._bad = False

    def traverse(self, send_s: ArrayLike, *, spared: NDArray[np.bool_] | None = None) -> Arrivals:
        """Send the next packets of the stream.

        `send_s` is (packets,), seconds, never falling: when each packet is due by the sender's own
        clock. `spared` marks packets that are neither lost nor held back nor duplicated. An arrival
        may be later than the first ones of the next call.

        Raises ValueError where the send times are not one finite, never falling row.
        """
        send = np.asarray(send_s, np.float64)
        if send.ndim != 1 or not np.isfinite(send).all() or (np.diff(send) < 0).any():
            raise ValueError("send times are expected as one row of finite seconds that never fall")
        n = len(send)
        if n == 0:
            return Arrivals(np.empty(0, np.intp), np.empty(0, np.float64))
        impairments = self.impairments
        if not self._packets:
            self._first_send_s = float(send[0])
        loss_draw, reorder_draw, duplicate_draw = self._uniform.random((n, 3)).T
        queue_s, detour_s = _jitter_s(self._normal.standard_normal((n, 2)).T, impairments.jitter_ms)
        arrives = ~self._lost(loss_draw)
        if self._trace is not None:
            position = (self._packets + np.arange(n)) % len(self._trace.delay_s)
            queue_s = self._trace.delay_s[position]
            arrives &= ~self._trace.lost[position]

        since_first_s = send - self._first_send_s
        left = self._first_send_s + since_first_s / (1 + impairments.clock_ppm * 1e-6)
        out_of_queue = np.maximum.accumulate(left + impairments.delay_ms * 1e-3 + queue_s)
        out_of_queue = np.maximum(out_of_queue, self._last_out_s)
        self._last_out_s = float(out_of_queue[-1])
        self._packets += n

        held_back = reorder_draw < impairments.reorder
        copied = duplicate_draw < impairments.duplicate
        if spared is not None:
            arrives |= spared
            held_back &= ~spared
            copied &= ~spared
        first = out_of_queue + np.where(held_back, impairments.reorder_ms * 1e-3, 0.0)
        copied &= arrives

        packet = np.concatenate([np.flatnonzero(arrives), np.flatnonzero(copied)])
        time_s = np.concatenate([first[arrives], (first + detour_s)[copied]])
        # Stable, so that packets of one moment keep the order of their sending.
        order = np.lexsort((packet, time_s))
        return Arrivals(packet[order], time_s[order])

    def _lost(self, draw: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which packets are lost, from one uniform number each.

        Gilbert's model enters the bad state with probability p and leaves it with probability r.
        As p + r <= 1 here, a packet's number below p loses it and one above 1 - r delivers it,
        whatever became of the packet before; any other leaves the state as it was. So each
        packet's fate is that of the last one whose number decided.
        """
        loss = self.impairments.loss
        leave = min(1.0 / self.impairments.loss_burst_packets, 1.0 - loss)
        enter = leave * loss / (1.0 - loss)
        bad = draw < enter
        decided = bad | (draw >= 1.0 - leave)
        if not self._packets:
            # The very first packet has none before it and meets the model in its steady state.
            bad[0] = draw[0] < loss
        elif not decided[0]:
            bad[0] = self._bad
        decided[0] = True
        last_decided = np.maximum.accumulate(np.where(decided, np.arange(len(draw)), 0))
        lost = bad[last_decided]
        self._bad = bool(lost[-1])
        return lost


def traverse(
    send_s: ArrayLike, impairments: Impairments, *, seed: int | np.random.Generator
) -> Arrivals:
    """Send one whole stream of packets through the network; see `Network.traverse`."""
    return Network(impairments, seed=seed).traverse(send_s)


def _jitter_s(normal: NDArray[np.float64], jitter_ms: float) -> NDArray[np.float64]:
    """Turn normal numbers into log-normal delays whose mean absolute difference is `jitter_ms`.

    Of two independent delays exp(X) with X standard normal it is 2 sqrt(e) erf(1/2).
    """
    return np.exp(normal) * (jitter_ms * 1e-3 / (2.0 * math.sqrt(math.e) * math.erf(0.5)))
