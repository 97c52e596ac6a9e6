"""The ports that a worker receives plain RTP on for forks that have a pair of their own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from strep.receive.drain import Port
from strep.receive.readers import open_reader
from strep.receive.receiver import Binding
from strep.receive.sockets import bind
from strep.wire import Direction

if TYPE_CHECKING:
    from uuid import UUID

    from strep.receive.drain import Drain
    from strep.receive.receiver import Receiver


class PortPairs:
    """Opens and closes pairs of ports on `host` while media is received."""

    def __init__(self, receiver: Receiver, drain: Drain, host: str) -> None:
        self._receiver = receiver
        self._drain = drain
        self._host = host
        self._open: dict[tuple[int, int], tuple[UUID, list[Port]]] = {}
        self._kernel_drops = 0
        """Of pairs that were closed."""

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because a receive buffer was full."""
        return self._kernel_drops + sum(
            port.reader.kernel_drops for _, ports in self._open.values() for port in ports
        )

    def open(self, pair: tuple[int, int], call_leg_id: UUID) -> None:
        """Receive a leg's plain RTP: inbound on the first port, outbound on the second.

        Raises OSError where a port cannot be opened; then neither is.
        """
        if pair in self._open:
            if self._open[pair][0] == call_leg_id:
                return
            self.close(pair)
        with ExitStack() as on_error:
            sockets = [on_error.enter_context(bind(self._host, port)) for port in pair]
            on_error.pop_all()
        ports = []
        for sock, direction in zip(sockets, (Direction.INBOUND, Direction.OUTBOUND), strict=True):
            number = self._receiver.bind(Binding(call_leg_id, direction=direction))
            ports.append(Port(open_reader(sock), number))
            self._drain.add(ports[-1])
        self._open[pair] = (call_leg_id, ports)

    def close(self, pair: tuple[int, int]) -> None:
        """Take what is left on a pair and close it, if it is open."""
        _, ports = self._open.pop(pair, (None, ()))
        for port in ports:
            self._kernel_drops += port.reader.kernel_drops
            self._drain.remove(port)
            self._receiver.unbind(port.binding)
