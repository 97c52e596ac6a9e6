"""Steers datagrams in the kernel: one UDP port, a socket for each worker, a call leg to one worker.

Sockets that share a port by SO_REUSEPORT get each datagram by a hash of its addresses, which says
nothing about calls: a carrier sends thousands from one address. So the group gets a program of
classic BPF (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5 and newer, no privilege needed) that returns the
index of a socket. Offset 0 is the first byte of the UDP payload:

    STREP        by the four words of call_leg_id: both directions and both legs stay together
    plain RTP    by the SSRC, or to one worker where the port stands for a call leg
    too short    to worker 0: a load beyond the datagram's end ends the program with 0

All four words count, since the last ones of a version-1 UUID are the same for all of one node's
calls. The index of a socket is its place in the order of binding, and stays so while none of them
is closed: the parent of the workers keeps them all open.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from typing import TYPE_CHECKING

from strep.receive.sockets import bind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

SO_ATTACH_REUSEPORT_CBPF = 51
CALL_LEG_ID_WORDS = (8, 12, 16, 20)
"""Offsets of the words of call_leg_id behind a STREP header's first eight bytes."""
SSRC_WORD = 8
"""Offset of the SSRC in an RTP header."""

_MULTIPLIER = 0x9E3779B1
_SHIFT = 15
_WORD = 0xFFFFFFFF


class SteeringError(OSError):
    """Datagrams cannot be steered on this system, and why."""


def worker_of(call_leg_id: UUID, workers: int) -> int:
    """Return which of `workers` gets the STREP datagrams of a call leg, 0 to workers - 1."""
    return _hash(struct.unpack(">4I", call_leg_id.bytes)) % workers


def worker_of_stream(ssrc: int, workers: int) -> int:
    """Return which of `workers` gets the plain RTP of a source."""
    return _hash((ssrc,)) % workers


def program(workers: int, *, rtp_to: int | None = None) -> bytes:
    """Return the BPF program (struct sock_filter, eight bytes an instruction).

    With `rtp_to` whatever is not STREP goes to that worker, else it is steered by its SSRC.
    """
    strep = [_fold(offset) for offset in CALL_LEG_ID_WORDS]
    by_leg = b"".join([*strep, _choose(workers)])
    other = _fold(SSRC_WORD) + _choose(workers) if rtp_to is None else _instruction(_RET, rtp_to)
    return b"".join(
        (
            _instruction(_LOAD_BYTE, 0),
            _instruction(_AND, 0b1100_0000),
            _instruction(_JUMP_EQUAL, 0b1100_0000, otherwise=len(by_leg) // 8),
            by_leg,
            other,
        )
    )


def bind_group(
    host: str, port: int, workers: int, *, rtp_to: int | None = None
) -> list[socket.socket]:
    """Return a non-blocking UDP socket for each of at least two workers, all on one port.

    Raises `ListenError`, and `SteeringError` where the kernel steers nothing. What came in before
    the program was attached is discarded, as if the port had been opened a moment later.
    """
    if sys.platform != "linux":
        raise SteeringError("only Linux steers datagrams by their content")
    with contextlib.ExitStack() as on_error:
        # The first is bound alone: a port that someone else has, another strep included, is
        # refused and not shared.
        first = on_error.enter_context(bind(host, port))
        sockets = [first]
        host, port = first.getsockname()[:2]
        try:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(sockets) < workers:
                sockets.append(on_error.enter_context(bind(host, port, reuse_port=True)))
            _attach(first, program(workers, rtp_to=rtp_to))
        except OSError as error:
            raise SteeringError(error.strerror or str(error)) from None
        for sock in sockets:
            _discard(sock)
        on_error.pop_all()
    return sockets


def _attach(sock: socket.socket, code: bytes) -> None:
    """Let a program choose the socket for the whole group of this one."""
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count and a pointer
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)


def _discard(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        # more than a buffer of usual size holds, and an end to it whoever sends
        for _ in range(4096):
            sock.recv(1)


def _hash(words: Iterable[int]) -> int:
    """Do what the program does: fold the words into 32 bits, and mix a last time."""
    mixed = 0
    for word in (*words, 0):
        mixed = (mixed ^ word) * _MULTIPLIER & _WORD
        mixed ^= mixed >> _SHIFT
    return mixed


# Instructions (linux/bpf_common.h). A and X are the two registers, both 0 at the beginning.
_LOAD_BYTE, _LOAD_WORD = 0x30, 0x20  # A = datagram[k]
_AND, _MULTIPLY, _SHIFT_RIGHT, _MODULO = 0x54, 0x24, 0x74, 0x94  # A = A ? k
_XOR_X, _TO_X = 0xAC, 0x07  # A = A ^ X; X = A
_JUMP_EQUAL = 0x15  # go on where A is k, else skip so many
_RET, _RET_A = 0x06, 0x16


def _instruction(code: int, k: int = 0, *, otherwise: int = 0) -> bytes:
    """Return one struct sock_filter."""
    return struct.pack("=HBBI", code, 0, otherwise, k)


_MIX = (
    _instruction(_MULTIPLY, _MULTIPLIER)
    + _instruction(_TO_X)
    + _instruction(_SHIFT_RIGHT, _SHIFT)
    + _instruction(_XOR_X)
)
"""A = A * multiplier; A = A ^ (A >> shift)."""


def _fold(offset: int) -> bytes:
    """Take a word of the datagram into the hash, which is in X before and after, and in A after."""
    return _instruction(_LOAD_WORD, offset) + _instruction(_XOR_X) + _MIX + _instruction(_TO_X)


def _choose(workers: int) -> bytes:
    """Mix a last time and return the socket's index."""
    return _MIX + _instruction(_MODULO, workers) + _instruction(_RET_A)
