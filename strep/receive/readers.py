"""Readers fill a batch with datagrams: from a socket or from memory (`capture`: from a file).

`open_reader` chooses for a socket: `RecvmmsgReader` on Linux, one system call for a batch, with
the kernel's arrival times; `RecvIntoReader` elsewhere, one call per datagram.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from strep.receive.sockets import SO_TIMESTAMPNS, enable_timestamps, kernel_drops
from strep.wire.endpoint import V4_MAPPED_PREFIX, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from strep.wire import PacketBatch

MAX_CACHED_ENDPOINTS = 4096


class Reader(Protocol):
    """Anything that datagrams come from."""

    def read(self, batch: PacketBatch) -> int:
        """Fill the batch from slot 0 with what is there, without waiting.

        Returns how many datagrams there were, 0 for none now. Sets the batch's `count`, lengths,
        arrival times (nanoseconds on a clock that never steps back, captures excepted), sources
        and destinations; invalidates what was read from the batch before.
        """
        ...

    def close(self) -> None:
        """Release what the reader holds."""
        ...


class MemoryReader:
    """Gives out datagrams that are in memory: (datagram, arrival_ns) or with both endpoints."""

    def __init__(
        self, datagrams: Iterable[tuple[bytes, int] | tuple[bytes, int, bytes, bytes]]
    ) -> None:
        self._datagrams = iter(datagrams)

    def read(self, batch: PacketBatch) -> int:
        """Fill the batch with the next datagrams."""
        batch.clear()
        for entry in self._datagrams:
            batch.add(*entry)
            if batch.count == batch.capacity:
                break
        return batch.count

    def close(self) -> None:
        """Nothing to release."""


class SocketReader(ABC):
    """What both readers of a bound, non-blocking UDP socket share.

    A reader sets what is the same for all of its datagrams when it first sees a batch: give each
    reader a batch of its own.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        host, port = sock.getsockname()[:2]
        self.local = Endpoint.of(host, port)
        self.errors = 0
        """Errors of the socket while reading; the network's doing, never fatal."""

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because the receive buffer was full."""
        return kernel_drops(self.sock)

    @abstractmethod
    def read(self, batch: PacketBatch) -> int:
        """Fill the batch with what the socket has; see `Reader`."""

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _claim(self, batch: PacketBatch) -> None:
        """Set what is the same for all datagrams of this socket."""
        batch.destination[:] = np.frombuffer(self.local.pack(), np.uint8)
        batch.kept_bytes[:] = batch.slot_bytes


class RecvIntoReader(SocketReader):
    """One `recvfrom_into` per datagram, until the socket is empty; arrival is when it was read."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._endpoints: dict[Any, NDArray[np.uint8]] = {}
        self._filled: PacketBatch | None = None
        # one byte more than a slot has: only so is a truncated datagram told from a full one
        self._spare = memoryview(bytearray(65536))

    def read(self, batch: PacketBatch) -> int:
        """Fill the batch with what the socket has."""
        if self._filled is not batch:
            self._claim(batch)
            self._filled = batch
        receive, spare, slot_bytes = self.sock.recvfrom_into, self._spare, batch.slot_bytes
        row = 0
        while row < batch.capacity:
            try:
                length, address = receive(spare)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.errors += 1
                break
            held = min(length, slot_bytes)
            batch.buffer[row, :held] = np.frombuffer(spare, np.uint8, held)
            batch.length_bytes[row] = length
            batch.arrival_ns[row] = time.monotonic_ns()
            batch.source[row] = self._endpoint(address)
            row += 1
        batch.count = row
        return row

    def _endpoint(self, address: tuple[Any, ...]) -> NDArray[np.uint8]:
        known = self._endpoints.get(address)
        if known is None:
            if len(self._endpoints) >= MAX_CACHED_ENDPOINTS:
                self._endpoints.clear()
            known = np.frombuffer(Endpoint.of(address[0], address[1]).pack(), np.uint8)
            self._endpoints[address] = known
        return known


# struct mmsghdr of 64-bit Linux (recvmmsg(2)): msghdr, then what was received
_MMSGHDR = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen", "control", "controllen", "flags", "length"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
_NAME_BYTES = 32
# One control message: length, level and type, then seconds and nanoseconds of arrival.
_CONTROL_BYTES = 32
_TIMESTAMP_HEADER = struct.unpack("=q", struct.pack("=ii", socket.SOL_SOCKET, SO_TIMESTAMPNS))[0]
_SUPPORTED = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8


class RecvmmsgReader(SocketReader):
    """Linux: `recvmmsg` straight into the batch's slots, with arrival times by the kernel.

    The kernel's times are on the wall clock; each batch is moved to the monotonic clock by the
    difference of the two at the moment of reading, so that a step of the wall clock moves nothing.
    """

    def __init__(self, sock: socket.socket) -> None:
        if not _SUPPORTED:
            raise OSError("recvmmsg needs 64-bit Linux")
        super().__init__(sock)
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._has_timestamps = enable_timestamps(sock)
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._recvmmsg.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
        ]  # fmt: skip
        self._fd = sock.fileno()
        self._batch: PacketBatch | None = None

    def read(self, batch: PacketBatch) -> int:
        """Fill the batch with what the socket has, up to its capacity."""
        if self._batch is not batch:
            self._prepare(batch)
        n: int = self._recvmmsg(
            self._fd, self._headers.ctypes.data, batch.capacity,
            socket.MSG_DONTWAIT | socket.MSG_TRUNC, None,
        )  # fmt: skip
        if n <= 0:
            batch.count = 0
            if n < 0 and ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
                self.errors += 1
            return 0
        batch.count = n
        headers = self._headers[:n]
        batch.length_bytes[:n] = headers["length"]
        self._fill_arrival(batch, n)
        self._fill_source(batch, n)
        # the kernel wrote how much it used of these
        headers["namelen"] = _NAME_BYTES
        headers["controllen"] = _CONTROL_BYTES
        return n

    def _prepare(self, batch: PacketBatch) -> None:
        """Point the message headers at the batch's slots."""
        n = batch.capacity
        self._names = np.zeros((n, _NAME_BYTES), np.uint8)
        self._control = np.zeros((n, _CONTROL_BYTES // 8), np.int64)
        self._iovecs = np.zeros((n, 2), np.uint64)
        self._headers = np.zeros(n, _MMSGHDR)
        index = np.arange(n, dtype=np.uint64)
        self._iovecs[:, 0] = batch.buffer.ctypes.data + index * np.uint64(batch.slot_bytes)
        self._iovecs[:, 1] = batch.slot_bytes
        self._headers["name"] = self._names.ctypes.data + index * np.uint64(_NAME_BYTES)
        self._headers["namelen"] = _NAME_BYTES
        self._headers["iov"] = self._iovecs.ctypes.data + index * np.uint64(16)
        self._headers["iovlen"] = 1
        self._headers["control"] = self._control.ctypes.data + index * np.uint64(_CONTROL_BYTES)
        self._headers["controllen"] = _CONTROL_BYTES
        self._claim(batch)
        batch.source[:] = 0
        if not self._is_ipv6:
            batch.source[:, :12] = np.frombuffer(V4_MAPPED_PREFIX, np.uint8)
        self._batch = batch

    def _fill_arrival(self, batch: PacketBatch, n: int) -> None:
        now_ns = time.monotonic_ns()
        control = self._control[:n]
        if not self._has_timestamps or not (control[:, 1] == _TIMESTAMP_HEADER).all():
            batch.arrival_ns[:n] = now_ns
            return
        arrival_ns = batch.arrival_ns[:n]
        np.multiply(control[:, 2], 1_000_000_000, out=arrival_ns)
        arrival_ns += control[:, 3]
        arrival_ns += now_ns - time.time_ns()
        # never after now: the two clocks were read one after the other
        np.minimum(arrival_ns, now_ns, out=arrival_ns)

    def _fill_source(self, batch: PacketBatch, n: int) -> None:
        """Turn struct sockaddr_in or sockaddr_in6 into the layout of `Endpoint`."""
        names, source = self._names, batch.source
        if self._is_ipv6:
            source[:n, :16] = names[:n, 8:24]
        else:
            source[:n, 12:16] = names[:n, 4:8]
        source[:n, 16:18] = names[:n, 2:4]


def open_reader(sock: socket.socket) -> RecvmmsgReader | RecvIntoReader:
    """Return the best reader of this system for a bound, non-blocking UDP socket.

    The environment variable STREP_READER=recv_into forces the portable one.
    """
    if _SUPPORTED and os.environ.get("STREP_READER") != "recv_into":
        return RecvmmsgReader(sock)
    return RecvIntoReader(sock)
