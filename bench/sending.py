"""Sends many prepared datagrams per system call: `sendmmsg`, and UDP_SEGMENT where there is it.

With UDP_SEGMENT (Linux 4.18) one message is up to 64 datagrams that lie one behind another; the
kernel cuts them apart again before the receiving socket, which sees single datagrams.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Method = Literal["segment", "sendmmsg", "send"]

UDP_SEGMENT = 103
SEGMENTS = 64
"""Datagrams that Linux takes at most in one message (UDP_MAX_SEGMENTS of older kernels)."""
SEND_BUFFER_BYTES = 4 * 2**20

# struct mmsghdr of 64-bit Linux (sendmmsg(2)): msghdr, then how much of it was sent
_MMSGHDR = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen"],
        "formats": ["u8", "u4", "u8", "u8"],
        "offsets": [0, 8, 16, 24],
        "itemsize": 64,
    }
)
_HAS_SENDMMSG = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8


class Sender:
    """A UDP socket that sends to one or several ports of one host.

    The fastest method that there is is chosen unless it is named. With several ports every
    datagram needs an address of its own, so that none are sent as segments.
    """

    def __init__(
        self,
        host: str,
        ports: Sequence[int],
        *,
        method: Method | None = None,
        most_segments: int = SEGMENTS,
    ) -> None:
        address = socket.getaddrinfo(host, ports[0], type=socket.SOCK_DGRAM)[0]
        self.host = str(address[4][0])
        self.ports = ports
        self._most_segments = most_segments
        self.errors: Counter[str] = Counter()
        """Datagrams that could not be sent by name of the error, and ECONNREFUSED: how often the
        answer to an earlier one was that nobody listens."""
        self._sock = socket.socket(address[0], socket.SOCK_DGRAM)
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if len(ports) == 1:
            # connected: only so does the socket hear of a refused datagram
            self._sock.connect((self.host, ports[0]))
        names = [_sockaddr(address[0], self.host, port) for port in ports]
        self._names = np.frombuffer(b"".join(names), np.uint8).reshape(len(ports), -1)
        self.method = method or self._best_method()
        if self.method != "send":
            self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
            self._sendmmsg.argtypes = [
                ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int,
            ]  # fmt: skip

    def _best_method(self) -> Method:
        if not _HAS_SENDMMSG:
            return "send"
        if len(self.ports) > 1:
            return "sendmmsg"
        try:
            self._sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        except OSError:
            return "sendmmsg"
        return "segment"

    def send(self, datagrams: NDArray[np.uint8], which: NDArray[np.int64] | None = None) -> int:
        """Send the rows of a C-contiguous array in order; returns how many were sent.

        `which` (n,) says which of the ports each goes to, where there are several.
        """
        if not len(datagrams):
            return 0
        if self.method == "send":
            return self._send_one_by_one(datagrams, which)
        n, size = datagrams.shape
        group = 1
        if self.method == "segment":
            group = min(self._most_segments, 65_000 // size)
            self._sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        starts = np.arange(0, n, group, dtype=np.uint64)
        counts = np.minimum(n - starts.astype(np.int64), group)
        iovecs = np.empty((len(starts), 2), np.uint64)
        iovecs[:, 0] = datagrams.ctypes.data + starts * np.uint64(size)
        iovecs[:, 1] = counts * size
        headers = np.zeros(len(starts), _MMSGHDR)
        headers["iov"] = iovecs.ctypes.data + np.arange(len(starts), dtype=np.uint64) * np.uint64(
            iovecs.strides[0]
        )
        headers["iovlen"] = 1
        if which is not None:
            headers["name"] = self._names.ctypes.data + which * self._names.strides[0]
            headers["namelen"] = self._names.shape[1]
        return self._send_messages(headers, counts)

    def close(self) -> None:
        """Close the socket."""
        if len(self.ports) == 1:
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._count(code, 1 if code else 0)
        self._sock.close()

    def _send_messages(self, headers: NDArray[np.void], counts: NDArray[np.int64]) -> int:
        sent = done = 0
        while done < len(headers):
            n = self._sendmmsg(
                self._sock.fileno(),
                headers.ctypes.data + done * headers.itemsize,
                len(headers) - done,
                0,
            )
            if n > 0:
                sent += int(counts[done : done + n].sum())
                done += n
                continue
            code = ctypes.get_errno()
            if code == errno.ECONNREFUSED:
                # said of an earlier datagram at this occasion; this one has not been sent
                self._count(code, 1)
            elif code != errno.EINTR:
                self._count(code, int(counts[done]))
                done += 1
        return sent

    def _send_one_by_one(
        self, datagrams: NDArray[np.uint8], which: NDArray[np.int64] | None
    ) -> int:
        sent = 0
        for i, datagram in enumerate(datagrams):
            try:
                if which is None:
                    self._sock.send(datagram)
                else:
                    self._sock.sendto(datagram, (self.host, self.ports[which[i]]))
            except OSError as error:
                self._count(error.errno or 0, 1)
            else:
                sent += 1
        return sent

    def _count(self, code: int, datagrams: int) -> None:
        if datagrams:
            self.errors[errno.errorcode.get(code, os.strerror(code))] += datagrams


def is_loopback(host: str) -> bool:
    """Tell whether every address of a host is one of this machine's loopback interface."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return all(ipaddress.ip_address(info[4][0]).is_loopback for info in found)


def _sockaddr(family: int, host: str, port: int) -> bytes:
    """Return struct sockaddr_in or sockaddr_in6 of Linux."""
    packed = socket.inet_pton(family, host)
    if family == socket.AF_INET6:
        return struct.pack("=H", family) + struct.pack("!HI16sI", port, 0, packed, 0)
    return struct.pack("=H", family) + struct.pack("!H4s8x", port, packed)
