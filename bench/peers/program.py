"""The protocol of the peers: one line of JSON when ready, one with the totals on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strep.receive.sockets import bind, enlarge_receive_buffer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Sequence


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the benchmark asks of a peer."""

    port: int
    """The first port on 127.0.0.1, of a peer that takes each stream on a port of its own."""
    streams: int
    buffer_bytes: int
    """Receive buffer to ask for."""


class CountingProtocol(asyncio.DatagramProtocol, ABC):
    """A receiver of datagrams that knows what it has received."""

    @abstractmethod
    def totals(self) -> dict[str, int]:
        """Return counters: at least `packets`, those that came out as audio."""


def assignment(argv: Sequence[str] | None = None) -> Assignment:
    """Read the command line of a peer."""
    parser = argparse.ArgumentParser()
    for name in ("port", "streams", "buffer_bytes"):
        parser.add_argument(name, type=int)
    return Assignment(**vars(parser.parse_args(argv)))


def say(**facts: object) -> None:
    """Write one line of the protocol."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def serve(
    make: Callable[[], CountingProtocol],
    run: Callable[[Coroutine[object, object, None]], None],
) -> None:
    """Receive on one socket with what `make` makes, until SIGTERM; `run` brings the event loop."""
    run(_serve(make, assignment()))


def open_socket(port: int, buffer_bytes: int) -> socket.socket:
    """Return a bound socket with as large a receive buffer as the daemon's."""
    sock = bind("127.0.0.1", port)
    enlarge_receive_buffer(sock, buffer_bytes)
    return sock


async def _serve(make: Callable[[], CountingProtocol], task: Assignment) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    sock = open_socket(task.port, task.buffer_bytes)
    transport, protocol = await loop.create_datagram_endpoint(make, sock=sock)
    say(ready=True)
    await stop.wait()
    transport.close()
    say(**protocol.totals())
