"""Has the ports of forks opened by the workers, and closed when nothing can come in on them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import structlog

from strep.control.forks import NoPortsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from strep.control.forks import Fork
    from strep.control.ports import PortPair, PortPool

logger = structlog.get_logger("strep.control")

PORT_TRIES = 3
"""Pairs that are tried where somebody else has the ports."""


class PortOpener(Protocol):
    """Who receives plain RTP."""

    async def open_ports(self, pair: PortPair, call_leg_id: UUID) -> None:
        """Receive this leg's plain RTP: `pair.rx` is inbound, `pair.tx` outbound.

        Raises OSError where a port cannot be opened; then neither is.
        """
        ...

    async def close_ports(self, pair: PortPair) -> None:
        """Receive on these ports no more."""
        ...


class ForkPorts:
    """The pairs of ports of all forks; `clock` gives nanoseconds and never goes back."""

    def __init__(
        self, pool: PortPool, opener: PortOpener, clock: Callable[[], int], *, grace_ns: int
    ) -> None:
        self.pool = pool
        self.open: dict[PortPair, UUID] = {}
        """The pairs that are open, and the call leg that each is for."""
        self._opener = opener
        self._clock = clock
        self._grace_ns = grace_ns
        self._leaving: deque[tuple[int, PortPair]] = deque()
        """Pairs of forks that are over and when they are to be closed, in this order."""

    async def open_for(self, fork: Fork) -> None:
        """Open the fork's pair, or others where that cannot be opened. Raises `NoPortsError`."""
        for number in range(PORT_TRIES):
            if number and fork.pair is not None:
                self.pool.give_back(fork.pair, self._clock())
                fork.pair = None  # should there be no other
                fork.pair = self.pool.take(self._clock())
            if await self.open_again(fork):
                return
        raise NoPortsError(f"none of {PORT_TRIES} port pairs could be opened: others have them")

    async def open_again(self, fork: Fork) -> bool:
        """Open the very pair that the fork has, if it is not open; False where that cannot be."""
        pair, call_leg_id = fork.pair, fork.call_leg_id
        if pair is None or call_leg_id is None or pair in self.open:
            return True
        try:
            await self._opener.open_ports(pair, call_leg_id)
        except OSError as error:
            logger.warning("ports cannot be opened", rx=pair.rx, tx=pair.tx, error=str(error))
            return False
        self.open[pair] = call_leg_id
        return True

    def leave(self, pair: PortPair) -> None:
        """Close the pair of a fork that is over, when nothing can be under way to it any more."""
        self._leaving.append((self._clock() + self._grace_ns, pair))

    def due(self, now_ns: int) -> list[PortPair]:
        """Return the pairs that are to be closed now."""
        pairs = []
        while self._leaving and self._leaving[0][0] <= now_ns:
            pairs.append(self._leaving.popleft()[1])
        return pairs

    async def close(self, pair: PortPair) -> None:
        """Close a pair, if it is open, and let it rest."""
        if self.open.pop(pair, None) is not None:
            await self._opener.close_ports(pair)
        self.pool.give_back(pair, self._clock())
