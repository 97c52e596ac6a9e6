"""The UDP sockets that media comes in on, and what the kernel says of them."""

from __future__ import annotations

import array
import contextlib
import socket
import sys
from dataclasses import dataclass

SO_MEMINFO = 55
"""Linux: nine 32-bit words about the socket's memory; word 8 counts dropped datagrams."""
_MEMINFO_WORDS = 9
_MEMINFO_DROPS = 8
SO_TIMESTAMPNS = 35
"""Linux: arrival time of each datagram, in nanoseconds."""
UDP_GRO = 104
"""Linux: datagrams that came together from one port are handed over as one, see udp(7)."""
DATAGRAM_CHARGE_BYTES = 416
"""What a 196-byte datagram takes of SO_RCVBUF as it is asked for: Linux charges 832 bytes against
the double of that."""


class ListenError(OSError):
    """An address that cannot be listened on, in words for the operator."""


@dataclass(frozen=True, slots=True)
class ReceiveBuffer:
    """What was asked for as SO_RCVBUF and what the kernel gave, in bytes as one asks for them."""

    wanted_bytes: int
    actual_bytes: int

    @property
    def warning(self) -> str | None:
        """One sentence for the operator when the kernel gave less, else None."""
        if self.actual_bytes >= self.wanted_bytes:
            return None
        seconds = self.actual_bytes / DATAGRAM_CHARGE_BYTES / 100_000
        remedy = (
            f"raise it with: sysctl -w net.core.rmem_max={self.wanted_bytes}"
            if sys.platform == "linux"
            else f"raise it with: sysctl -w kern.ipc.maxsockbuf={self.wanted_bytes}"
        )
        return (
            f"the receive buffer was clamped to {self.actual_bytes} of {self.wanted_bytes} bytes "
            f"({seconds * 1000:.0f} ms of 100,000 packets per second); {remedy}"
        )


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Return a non-blocking UDP socket bound to a numeric address or a name.

    With `reuse_port` it may share the port with sockets that allow it, too (SO_REUSEPORT).
    Raises `ListenError`. An IPv6 socket is bound for IPv6 only.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except UnicodeError:
        raise ListenError(f"cannot listen on {host}:{port}: not a host name") from None
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return sock


def enlarge_receive_buffer(sock: socket.socket, wanted_bytes: int) -> ReceiveBuffer:
    """Ask for a receive buffer and read back what there is.

    With the privilege to (CAP_NET_ADMIN), Linux gives it beyond net.core.rmem_max.
    """
    # Linux doubles what is set, for its bookkeeping, and reads back the double
    factor = 2 if sys.platform == "linux" else 1
    force = getattr(socket, "SO_RCVBUFFORCE", 33) if sys.platform == "linux" else None
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted_bytes)
    actual = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // factor
    if actual < wanted_bytes and force is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, force, wanted_bytes)
        actual = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // factor
    return ReceiveBuffer(wanted_bytes, actual)


def enable_timestamps(sock: socket.socket) -> bool:
    """Ask the kernel for arrival times in nanoseconds; False where it has none to give."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def enable_merging(sock: socket.socket) -> None:
    """Let the kernel hand over datagrams merged; raises OSError where it cannot."""
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


def kernel_drops(sock: socket.socket) -> int:
    """Return how many datagrams the kernel dropped for want of room; 0 where it cannot say.

    Of merged ones it counts what it would have handed over as one.
    """
    if sys.platform != "linux":
        return 0
    try:
        words = array.array("I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * _MEMINFO_WORDS))
        return words[_MEMINFO_DROPS]
    except (OSError, IndexError, ValueError):
        return 0
