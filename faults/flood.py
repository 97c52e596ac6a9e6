"""A flood, sent by a process of its own: `python -m faults.flood --to 127.0.0.1:9000 --kind legs`.

It comes from many addresses of the loopback network (127.1.0.1 and on), none of which is that of
the calls beside it.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import numpy as np

from bench.arguments import Parser, between
from bench.traffic import PacketWriter, Traffic
from strep.specs import ConfigError, parse_address
from strep.wire.fields import RTP_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("legs", "random", "hostile", "inject")
_BATCH = 512
_STREP_BYTES = 24


def legs(random: np.random.Generator, writer: PacketWriter) -> Iterator[bytes]:
    """Yield right packets, each of a call leg of its own that nobody ever heard of."""
    tracks = writer.ssrc.size
    out = np.empty((_BATCH, writer.datagram_bytes), np.uint8)
    while True:
        writer.write(random.integers(tracks * 1000, size=_BATCH), out)
        out[:, 8:_STREP_BYTES] = random.integers(256, size=(_BATCH, _STREP_BYTES - 8))
        yield from map(bytes, out)


def random_bytes(random: np.random.Generator, _: PacketWriter) -> Iterator[bytes]:
    """Yield bytes without any meaning, up to 1,400 of them."""
    while True:
        noise = random.bytes(1 << 16)
        for at in random.integers(1 << 15, size=_BATCH).tolist():
            yield noise[at : at + at % 1400]


def hostile(random: np.random.Generator, writer: PacketWriter) -> Iterator[bytes]:
    """Yield packets of running calls and others in which some fields of the headers lie."""
    tracks = writer.ssrc.size
    out = np.empty((_BATCH, writer.datagram_bytes), np.uint8)
    headers = _STREP_BYTES + RTP_BYTES
    while True:
        writer.write(random.integers(tracks * 1000, size=_BATCH), out)
        for _ in range(3):
            rows = np.flatnonzero(random.random(_BATCH) < 0.6)
            at = random.integers(headers, size=len(rows))
            out[rows, at] = random.integers(256, size=len(rows))
        cut = np.where(random.random(_BATCH) < 0.2, random.integers(headers + 8, size=_BATCH), 600)
        for row, length in zip(out, cut.tolist(), strict=True):
            yield bytes(row[:length])


def inject(random: np.random.Generator, writer: PacketWriter) -> Iterator[bytes]:
    """Yield noise with the ids, the SSRCs and the sequence numbers of running calls."""
    tracks, number = writer.ssrc.size, 0
    out = np.empty((_BATCH, writer.datagram_bytes), np.uint8)
    while True:
        # each two in sequence, so that one who may be believed would be
        index = (number + np.arange(_BATCH)) // 2 % tracks
        number += _BATCH
        step = random.integers(1000) + np.arange(_BATCH) % 2
        writer.write(index + step * tracks, out)
        out[:, _STREP_BYTES + RTP_BYTES :] = random.integers(256, size=(_BATCH, 160))
        yield from map(bytes, out)


_MAKERS: dict[str, Callable[[np.random.Generator, PacketWriter], Iterator[bytes]]] = {
    "legs": legs,
    "random": random_bytes,
    "hostile": hostile,
    "inject": inject,
}


def send(
    to: tuple[str, int], kind: str, *, number: int, rate: float, calls: int, hosts: int
) -> int:
    """Send so many datagrams, at most so many a second; return how many were sent."""
    writer = PacketWriter(Traffic(tracks=2 * calls, sides=2, seed=1))
    datagrams = _MAKERS[kind](np.random.default_rng(2), writer)
    sockets = []
    for host in range(hosts):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((f"127.1.{host >> 8}.{1 + (host & 0xFF) % 254}", 0))
        sock.connect(to)
        sockets.append(sock)
    sent, began_s = 0, time.monotonic()
    while sent < number:
        due = min(number, int((time.monotonic() - began_s) * rate))
        if due <= sent:
            time.sleep(0.001)
            continue
        for _ in range(min(due - sent, 64)):
            sockets[sent % hosts].send(next(datagrams))
            sent += 1
    for sock in sockets:
        sock.close()
    return sent


def main() -> None:
    """Run the command."""
    parser = Parser(prog="python -m faults.flood", description=__doc__)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--number", type=between(1, 10**9), default=10_000)
    parser.add_argument("--rate", type=between(1.0, 10_000_000.0), default=50_000.0, metavar="PPS")
    parser.add_argument(
        "--calls", type=between(1, 500_000), default=10, help="how many calls run beside it"
    )
    parser.add_argument(
        "--hosts", type=between(1, 65_536), default=64, help="from how many addresses it comes"
    )
    given = parser.parse_args()
    try:
        send(
            parse_address(given.to), given.kind,
            number=given.number, rate=given.rate, calls=given.calls, hosts=given.hosts,
        )  # fmt: skip
    except (ConfigError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
