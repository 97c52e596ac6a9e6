"""Readers fill a batch with datagrams: from a socket or from memory (`capture`: from a file).

`open_reader` chooses for a socket: `RecvmmsgReader` on Linux, one system call for a batch, with
the kernel's arrival times, or `MergedReader` where that is wanted; `RecvIntoReader` elsewhere, one
call per datagram.
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
from weakref import WeakKeyDictionary

import numpy as np
import structlog

from strep.receive.sockets import (
    SO_TIMESTAMPNS,
    UDP_GRO,
    enable_merging,
    enable_timestamps,
    kernel_drops,
)
from strep.wire.endpoint import V4_MAPPED_PREFIX, Endpoint
from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from strep.wire import PacketBatch

logger = structlog.get_logger("strep.receive")

MAX_CACHED_ENDPOINTS = 4096
WAITED_NS = 60_000_000_000
"""How long datagrams may have waited in a socket that is read for the first time."""
MOST_PIECE_BYTES = 65_536
"""More than any datagram has, merged or not."""
MOST_PIECES = 32
"""Pieces of merged datagrams that are read at a time: what they usually hold stays in the cache."""


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
    """What both readers of a bound, non-blocking UDP socket share."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        host, port = sock.getsockname()[:2]
        self.local = np.frombuffer(Endpoint.of(host, port).pack(), np.uint8)
        """The socket's own address, (24,) uint8 as in `Endpoint`."""
        self.errors = 0
        """Errors of the socket while reading; the network's doing, never fatal."""
        self.merged = 0
        """Datagrams that the kernel handed over together with others, as one."""

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because the receive buffer was full."""
        return kernel_drops(self.sock)

    def read(self, batch: PacketBatch) -> int:
        """Fill the batch with what the socket has; see `Reader`."""
        batch.clear()
        return self.append(batch)

    @abstractmethod
    def append(self, batch: PacketBatch) -> int:
        """Add what the socket has to the batch, which has room; return how many datagrams.

        Fewer than there was room for: the socket is empty.
        """

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class RecvIntoReader(SocketReader):
    """One `recvfrom_into` per datagram, until the socket is empty; arrival is when it was read."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._endpoints: dict[Any, NDArray[np.uint8]] = {}
        # one byte more than a slot has: only so is a truncated datagram told from a full one
        self._spare = memoryview(bytearray(65536))

    def append(self, batch: PacketBatch) -> int:
        """Add what the socket has to the batch."""
        receive, spare, slot_bytes = self.sock.recvfrom_into, self._spare, batch.slot_bytes
        start = row = batch.count
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
        batch.destination[start:row] = self.local
        batch.kept_bytes[start:row] = slot_bytes
        batch.count = row
        return row - start

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
# In a reader of merged datagrams another one follows: length, level and type, bytes of each.
_MERGED_CONTROL_BYTES = 64
_TIMESTAMP_HEADER = struct.unpack("=q", struct.pack("=ii", socket.SOL_SOCKET, SO_TIMESTAMPNS))[0]
_MERGED_HEADER = struct.unpack("=q", struct.pack("=ii", socket.IPPROTO_UDP, UDP_GRO))[0]
_SUPPORTED = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8


class _Messages:
    """The headers with which the kernel is asked to fill the rows of a buffer."""

    def __init__(self, buffer: NDArray[np.uint8], *, control_bytes: int = _CONTROL_BYTES) -> None:
        n, row_bytes = buffer.shape
        self.names = np.zeros((n, _NAME_BYTES), np.uint8)
        self.control = np.zeros((n, control_bytes // 8), np.int64)
        self._iovecs = np.zeros((n, 2), np.uint64)
        self.headers = headers = np.zeros(n, _MMSGHDR)
        index = np.arange(n, dtype=np.uint64)
        self._iovecs[:, 0] = buffer.ctypes.data + index * np.uint64(row_bytes)
        self._iovecs[:, 1] = row_bytes
        headers["name"] = self.names.ctypes.data + index * np.uint64(_NAME_BYTES)
        headers["namelen"] = _NAME_BYTES
        headers["iov"] = self._iovecs.ctypes.data + index * np.uint64(16)
        headers["iovlen"] = 1
        headers["control"] = self.control.ctypes.data + index * np.uint64(control_bytes)
        headers["controllen"] = control_bytes
        self.address: int = headers.ctypes.data
        self.columns: Any = None
        """What a compiled reader is told of them and of the batch."""


_MESSAGES: WeakKeyDictionary[PacketBatch, _Messages] = WeakKeyDictionary()


class RecvmmsgReader(SocketReader):
    """Linux: `recvmmsg` straight into the batch's slots, with arrival times by the kernel.

    The kernel's times are on the wall clock; each batch is moved to the monotonic clock by the
    difference of the two at the moment of reading. A step of the wall clock can move what is in the
    socket just then, and that by no more than lies between now and when the socket was empty last.
    """

    def __init__(self, sock: socket.socket) -> None:
        if not _SUPPORTED:
            raise OSError("recvmmsg needs 64-bit Linux")
        super().__init__(sock)
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._stamp = _TIMESTAMP_HEADER if enable_timestamps(sock) else 0
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._recvmmsg.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p,
        ]  # fmt: skip
        self._fd = sock.fileno()
        self._kernel = load()
        self._empty_ns = np.array([time.monotonic_ns() - WAITED_NS])
        """When the socket was last seen to be empty; at first, before what may wait in it."""
        self._local: Any = self._kernel and self._kernel.Columns(self.local, self._empty_ns)

    def append(self, batch: PacketBatch) -> int:
        """Add what the socket has to the batch."""
        messages = _MESSAGES.get(batch) or self._prepare(batch)
        start = batch.count
        n: int
        if self._kernel is not None:
            n = self._kernel.receive(
                messages.columns, self._local, self._fd, start, batch.capacity, self._stamp
            )
        else:
            n = self._receive(messages, batch, start)
        if n < 0:
            if -n not in {errno.EAGAIN, errno.EINTR}:
                self.errors += 1
            return 0
        batch.count = start + n
        return n

    def _prepare(self, batch: PacketBatch) -> _Messages:
        messages = _MESSAGES[batch] = _Messages(batch.buffer)
        batch.kept_bytes[:] = batch.slot_bytes
        messages.columns = self._kernel and self._kernel.Columns(
            messages.headers, messages.names, messages.control, batch.length_bytes,
            batch.arrival_ns, batch.source, batch.destination,
        )  # fmt: skip
        return messages

    def _receive(self, messages: _Messages, batch: PacketBatch, start: int) -> int:
        """Do what the kernel's `receive` does."""
        n: int = self._recvmmsg(
            self._fd, messages.address + start * _MMSGHDR.itemsize, batch.capacity - start,
            socket.MSG_DONTWAIT | socket.MSG_TRUNC, None,
        )  # fmt: skip
        error = ctypes.get_errno() if n < 0 else 0
        now_ns, since_ns = time.monotonic_ns(), int(self._empty_ns[0])
        if n < batch.capacity - start:
            self._empty_ns[0] = now_ns
        if n < 0:
            return -error
        new = slice(start, start + n)
        headers = messages.headers[new]
        batch.length_bytes[new] = headers["length"]
        self._fill_arrival(batch.arrival_ns[new], messages.control[new], since_ns, now_ns)
        self._fill_source(batch.source[new], messages.names[new])
        batch.destination[new] = self.local
        # the kernel wrote how much it used of these
        headers["namelen"] = _NAME_BYTES
        headers["controllen"] = _CONTROL_BYTES
        return n

    def _fill_arrival(
        self,
        arrival_ns: NDArray[np.int64],
        control: NDArray[np.int64],
        since_ns: int,
        now_ns: int,
    ) -> None:
        if not self._stamp or not (control[:, 1] == self._stamp).all():
            arrival_ns[:] = now_ns
            return
        np.multiply(control[:, 2], 1_000_000_000, out=arrival_ns)
        arrival_ns += control[:, 3]
        arrival_ns += now_ns - time.time_ns()
        # the wall clock may have stepped since; and the two were read one after the other
        np.maximum(arrival_ns, since_ns, out=arrival_ns)
        np.minimum(arrival_ns, now_ns, out=arrival_ns)

    def _fill_source(self, source: NDArray[np.uint8], names: NDArray[np.uint8]) -> None:
        """Turn struct sockaddr_in or sockaddr_in6 into the layout of `Endpoint`."""
        if self._is_ipv6:
            source[:, :16] = names[:, 8:24]
        else:
            source[:, :12] = np.frombuffer(V4_MAPPED_PREFIX, np.uint8)
            source[:, 12:16] = names[:, 4:8]
        source[:, 16:18] = names[:, 2:4]
        source[:, 18:] = 0


class MergedReader(SocketReader):
    """Linux 5.0: datagrams that came together from one port, of one length, are read as one.

    The network card's driver, or a sender on this machine, hands such a run on in one piece
    (UDP_GRO), which costs the kernel little more than a single datagram. It is cut apart into the
    batch's slots; all of it has one time of arrival, that of the piece. The kernel counts a piece
    that it drops as one.

    Needs the compiled kernel; raises OSError where the system or the installation cannot do this.
    """

    def __init__(self, sock: socket.socket) -> None:
        kernel = load() if _SUPPORTED else None
        if kernel is None:
            raise OSError("merged datagrams need 64-bit Linux and the compiled kernel")
        enable_merging(sock)
        super().__init__(sock)
        self._kernel = kernel
        self._fd = sock.fileno()
        self._stamp = _TIMESTAMP_HEADER if enable_timestamps(sock) else 0
        # pieces lie a little more than a power of two apart, so as not to share a set of the cache
        self._pieces = np.zeros((MOST_PIECES, MOST_PIECE_BYTES + 64), np.uint8)
        self._progress = np.zeros(8, np.int64)
        messages = _Messages(self._pieces, control_bytes=_MERGED_CONTROL_BYTES)
        self._messages = messages  # whose memory the system writes to
        self._columns = kernel.Columns(
            messages.headers, messages.names, messages.control, self._pieces, self._progress
        )
        self._empty_ns = np.array([time.monotonic_ns() - WAITED_NS])
        self._local = kernel.Columns(self.local, self._empty_ns)
        self._batches: WeakKeyDictionary[PacketBatch, Any] = WeakKeyDictionary()

    def append(self, batch: PacketBatch) -> int:
        """Add what the socket has to the batch; what of a piece has no room comes next time."""
        columns = self._batches.get(batch)
        if columns is None:
            columns = self._batches[batch] = self._kernel.Columns(
                batch.buffer, batch.length_bytes, batch.kept_bytes, batch.arrival_ns,
                batch.source, batch.destination,
            )  # fmt: skip
        n: int = self._kernel.receive_merged(
            self._columns, columns, self._local, self._fd, batch.count, batch.capacity,
            batch.slot_bytes, self._stamp, _MERGED_HEADER,
        )  # fmt: skip
        self.errors, self.merged = self._progress[-2:].tolist()
        batch.count += n
        return n


def open_reader(sock: socket.socket, *, merged: bool = False) -> SocketReader:
    """Return the best reader of this system for a bound, non-blocking UDP socket.

    With `merged`, `MergedReader` where there can be one; else a warning says why not. The
    environment variable STREP_READER=recv_into forces the portable one.
    """
    is_portable = os.environ.get("STREP_READER") == "recv_into"
    if merged and not is_portable:
        try:
            return MergedReader(sock)
        except OSError as error:
            logger.warning("datagrams are not read merged", reason=error.strerror or str(error))
    return RecvmmsgReader(sock) if _SUPPORTED and not is_portable else RecvIntoReader(sock)
