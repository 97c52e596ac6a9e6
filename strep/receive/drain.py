"""The receive loop: empties the sockets on a timer while media flows, sleeps while none does.

Waking for every datagram would make batches of one. So readability wakes the loop only when it is
idle; while packets come, a tick every few milliseconds drains all ports, each in large batches.
What one drain may do is bounded, so that timers and HTTP get their turn under any flood.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from strep.wire import PacketBatch
from strep.wire.batch import DEFAULT_CAPACITY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strep.receive.readers import SocketReader
    from strep.receive.receiver import Receiver

logger = structlog.get_logger("strep.receive")

MAX_BATCHES = 16
"""Batches that one drain reads from one port before others get their turn."""
LAST_DRAINS = 8
"""Drains at the end: more than any receive buffer holds, and an end to it whoever still sends."""
LIGHT_PACKETS = DEFAULT_CAPACITY
"""A tick with fewer packets, less than a full batch, costs much the same whatever their number:
the next one takes twice as long to come."""
IDLE_AFTER_NS = 200_000_000
IDLE_TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Port:
    """A socket to drain, and whose plain RTP comes in on it."""

    reader: SocketReader
    binding: int = 0
    """The receiver's number for it, see `Receiver.bind`."""


class Drain:
    """Moves datagrams from the ports into the receiver until stopped; asyncio, one thread.

    What comes in on several ports goes on together, in batches of `batch`'s capacity.
    """

    def __init__(
        self,
        receiver: Receiver,
        ports: Iterable[Port],
        *,
        tick_ms: float = 10,
        batch: PacketBatch | None = None,
    ) -> None:
        self.ports = list(ports)
        self.is_idle = False
        self._receiver = receiver
        self._batch = PacketBatch() if batch is None else batch
        self._tick_s = tick_ms / 1000
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_packet_ns = 0
        self._is_light = True
        self._next_due_s = 0.0

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because a receive buffer was full."""
        return sum(port.reader.kernel_drops for port in self.ports)

    @property
    def merged(self) -> int:
        """Datagrams that were read together with others as one."""
        return sum(port.reader.merged for port in self.ports)

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._last_packet_ns = time.monotonic_ns()
        self._next_due_s = self._loop.time()
        self._tick()

    def stop(self) -> None:
        """Drain a last time, then close the ports. The receiver goes on to be usable."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watch(on=False)
        for _ in range(LAST_DRAINS):
            if not self.drain():
                break
        for port in self.ports:
            port.reader.close()

    def add(self, port: Port) -> None:
        """Drain one more port from now on."""
        self.ports.append(port)
        if self.is_idle and self._loop is not None:
            self._loop.add_reader(port.reader.sock, self._wake)

    def remove(self, port: Port) -> None:
        """Take what is left on a port, and close it. Raises ValueError for one it has not."""
        self.drain()
        self.ports.remove(port)
        if self.is_idle and self._loop is not None:
            self._loop.remove_reader(port.reader.sock)
        port.reader.close()

    def drain(self) -> bool:
        """Read what there is, at most `MAX_BATCHES` a port; True when that left something."""
        # before the first read: all that arrived until now will have been read
        now_ns = time.monotonic_ns()
        receiver, batch = self._receiver, self._batch
        batch.clear()
        read = 0
        has_more = False
        for port in self.ports:
            for _ in range(MAX_BATCHES):
                start = batch.count
                room = batch.capacity - start
                count = port.reader.append(batch)
                batch.binding[start : start + count] = port.binding
                read += count
                if count < room:
                    break
                # time goes only as far as what was read
                until_ns = int(batch.arrival_ns[batch.count - 1])
                receiver.receive(batch)
                batch.clear()
            else:
                has_more = True
                now_ns = min(now_ns, until_ns)
        receiver.receive(batch)
        if read:
            self._last_packet_ns = max(now_ns, self._last_packet_ns)
        self._is_light = read < LIGHT_PACKETS
        receiver.tick(now_ns)
        return has_more

    def _tick(self) -> None:
        assert self._loop is not None  # noqa: S101 -- `start` set it
        try:
            has_more = self.drain()
        except Exception:
            # a defect of ours: said with its traceback, and the daemon goes on
            logger.exception("receive loop")
            has_more = False
        now_s = self._loop.time()
        if has_more:
            self._timer = self._loop.call_later(0, self._tick)
            self._next_due_s = now_s
            return
        idle = time.monotonic_ns() - self._last_packet_ns > IDLE_AFTER_NS
        if idle != self.is_idle:
            self._watch(on=idle)
        if idle:
            self._next_due_s = now_s + IDLE_TICK_S
        else:
            # on a grid, so that the time a drain takes does not stretch the period
            period_s = self._tick_s * (2 if self._is_light else 1)
            self._next_due_s = max(self._next_due_s + period_s, now_s)
        self._timer = self._loop.call_at(self._next_due_s, self._tick)

    def _watch(self, *, on: bool) -> None:
        """Let readability wake the loop, or not."""
        self.is_idle = on
        if self._loop is None:
            return
        for port in self.ports:
            if on:
                self._loop.add_reader(port.reader.sock, self._wake)
            else:
                self._loop.remove_reader(port.reader.sock)

    def _wake(self) -> None:
        assert self._loop is not None  # noqa: S101 -- `start` set it
        self._watch(on=False)
        self._last_packet_ns = time.monotonic_ns()
        if self._timer is not None:
            self._timer.cancel()
        self._next_due_s = self._loop.time()
        self._tick()
