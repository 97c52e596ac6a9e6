"""Sends prepared datagrams over UDP, each at its time."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

MAX_BURST = 64
"""Datagrams sent before other tasks, and a receiver on the same machine, get their turn."""
SHORTEST_WAIT_S = 0.001
"""Event loops round shorter waits, some of them down to none."""


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of the datagrams."""

    sent: int
    """Datagrams handed to the network."""
    refused: int
    """Of these, known to have met no listener: their ICMP "port unreachable" came back in time."""
    duration_s: float
    """From the start to the last burst."""
    worst_lateness_s: float
    """The longest that a datagram was sent after it was due."""


async def send_paced(
    datagrams: Sequence[bytes] | NDArray[np.uint8],
    due_s: ArrayLike,
    to: tuple[str, int],
    *,
    speed: float = 1.0,
    sources: Sequence[int] | NDArray[np.integer] | None = None,
    progress: Callable[[int], None] | None = None,
) -> SendReport:
    """Send datagrams in their order, each `due_s / speed` seconds after the start.

    `datagrams` are bytes or the rows of a uint8 array; `due_s` has one time for each. One that is
    due before its predecessor goes right behind it. What is overdue goes out at once, at most
    `MAX_BURST` without a pause; an infinite `speed` sends everything like that. `sources` names
    the stream of each datagram: each stream gets a socket, and so a source port, of its own.
    `progress` is called with the number sent so far, after every burst.

    A refused datagram is counted, a full buffer waited for. Raises ValueError for lengths that
    differ, times that are not finite or a speed that is not positive, and OSError for a host
    without an address and for whatever else the network refuses.
    """
    due = np.asarray(due_s, np.float64)
    streams = np.zeros(len(datagrams), np.intp) if sources is None else np.asarray(sources)
    if due.shape != (len(datagrams),) or streams.shape != due.shape:
        raise ValueError(
            f"{len(datagrams)} datagrams have due times of shape {due.shape} and sources of shape "
            f"{streams.shape}, expected one of each"
        )
    if not np.isfinite(due).all():
        raise ValueError("due times are expected as finite seconds")
    if not speed > 0:
        raise ValueError(f"speed is {speed}, expected more than 0")
    due = np.maximum.accumulate(due / speed)
    keys, stream_of = np.unique(streams, return_inverse=True)

    sockets: list[socket.socket] = []
    try:
        await _connect(sockets, len(keys), to)
        return await _send_all(datagrams, due, sockets, stream_of, progress)
    finally:
        for udp in sockets:
            udp.close()


async def _connect(sockets: list[socket.socket], count: int, to: tuple[str, int]) -> None:
    """Fill `sockets`, which the caller closes, with `count` that are connected to `to`.

    A UDP socket hears of a refused datagram only when it is connected.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(*to, type=socket.SOCK_DGRAM)
    # "localhost" is both ::1 and 127.0.0.1, and media ports are IPv4 unless told otherwise.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    for _ in range(count):
        sockets.append(socket.socket(family, kind, protocol))
        sockets[-1].setblocking(False)
        sockets[-1].connect(address)


async def _send_all(
    datagrams: Sequence[bytes] | NDArray[np.uint8],
    due: NDArray[np.float64],
    sockets: Sequence[socket.socket],
    stream_of: NDArray[np.intp],
    progress: Callable[[int], None] | None,
) -> SendReport:
    start = time.monotonic()
    elapsed = worst_lateness = 0.0
    sent = refused = 0
    while sent < len(due):
        elapsed = time.monotonic() - start
        wait = float(due[sent]) - elapsed
        if wait > 0:
            await asyncio.sleep(max(wait, SHORTEST_WAIT_S))
            continue
        worst_lateness = max(worst_lateness, -wait)
        burst_end = min(int(np.searchsorted(due, elapsed, "right")), sent + MAX_BURST)
        for index in range(sent, burst_end):
            refused += await _send(sockets[stream_of[index]], bytes(datagrams[index]))
        sent = burst_end
        if progress is not None:
            progress(sent)
        await asyncio.sleep(0)
    refused += sum(
        udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED for udp in sockets
    )
    return SendReport(sent, refused, duration_s=elapsed, worst_lateness_s=worst_lateness)


async def _send(udp: socket.socket, datagram: bytes) -> int:
    """Send one datagram; return how many earlier ones of this socket turned out refused."""
    refused = 0
    while True:
        try:
            udp.send(datagram)
        except ConnectionRefusedError:
            # The error of an earlier datagram, told at this occasion; this one has not been sent.
            refused += 1
        except OSError as error:
            if error.errno not in {errno.ENOBUFS, errno.EAGAIN}:
                raise
            await asyncio.sleep(SHORTEST_WAIT_S)
        else:
            return refused
