"""Pairs of UDP ports for forks whose media comes as plain RTP, without a STREP header.

A packet of such a fork says neither which call it belongs to nor which direction it is: the port
that it came in on does. So each fork has a pair of its own: what the carrier receives goes to an
even port, as RTP does by convention (RFC 3550 section 11), what it transmits to the odd port above
it. Should the carrier send RTCP to the port above an RTP port, it is known by its packet type and
dropped, counted.

A pair that was given back rests for a while before it is used again: packets of its last fork may
still be under way, and would be taken for the next one's. The pair that has rested longest is used
first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from strep.control.forks import NoPortsError


class PortPair(NamedTuple):
    """Where a fork's media arrives."""

    rx: int
    """Even: what the carrier receives, the inbound track."""
    tx: int
    """Odd: what the carrier transmits, the outbound track."""


class PortPool:
    """The pairs from port `low` to port `high`, both included, that are free, held or resting.

    Pure: time is an argument, in nanoseconds, and never goes back.
    """

    def __init__(self, low: int, high: int, *, cooldown_ns: int) -> None:
        self._range = range(low + low % 2, high, 2)
        self._cooldown_ns = cooldown_ns
        self._free = OrderedDict.fromkeys(self._range)
        """Even ports, the one that has rested longest first."""
        self._resting: deque[tuple[int, int]] = deque()
        """When a pair will have rested and its even port, in this order."""
        self._held: set[int] = set()

    def __len__(self) -> int:
        """Return how many pairs there are, in whatever use."""
        return len(self._range)

    @property
    def held(self) -> int:
        """How many pairs are held."""
        return len(self._held)

    @property
    def resting(self) -> int:
        """How many pairs were given back and had not rested at the last `wake`."""
        return len(self._resting)

    def take(self, now_ns: int) -> PortPair:
        """Return a pair, to be held until it is given back. Raises `NoPortsError`."""
        self.wake(now_ns)
        if not self._free:
            raise NoPortsError(
                f"no port pair of {len(self)} is free: {self.held} held by forks, "
                f"{self.resting} resting after one"
            )
        rx, _ = self._free.popitem(last=False)
        return self._hold(rx)

    def hold(self, pair: PortPair) -> None:
        """Hold a pair that a fork has had since before this pool was made.

        A pair outside the range is held too, and is no more when it is given back. Raises
        ValueError where the pair is held already.
        """
        if pair.rx in self._held:
            raise ValueError(f"the ports {pair.rx} and {pair.tx} are held already")
        self._free.pop(pair.rx, None)
        self._hold(pair.rx)

    def give_back(self, pair: PortPair, now_ns: int) -> None:
        """Let a pair rest. Raises ValueError where it is not held."""
        if pair.rx not in self._held:
            raise ValueError(f"the ports {pair.rx} and {pair.tx} are not held")
        self._held.remove(pair.rx)
        if pair.rx in self._range:
            self._resting.append((now_ns + self._cooldown_ns, pair.rx))

    def wake(self, now_ns: int) -> None:
        """Let pairs be free that have rested by now."""
        while self._resting and self._resting[0][0] <= now_ns:
            _, rx = self._resting.popleft()
            if rx not in self._held:
                self._free[rx] = None

    def _hold(self, rx: int) -> PortPair:
        self._held.add(rx)
        return PortPair(rx, rx + 1)
