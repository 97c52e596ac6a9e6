"""Millions of hostile datagrams down the whole way of a packet: `python -m fuzz.flood [NUMBER]`.

Templates with random bytes changed, cut and lengthened, in batches as they come from a socket,
among the packets of ordinary calls, with time passing. Nothing may raise, every datagram has to be
accounted for, and the ordinary calls may not lose a packet.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from bench.arguments import Parser, between
from fuzz.targets import BOUND, SOURCES, TEMPLATES
from pipeline.dispatch import Dispatcher
from pipeline.sinks.base import Sink
from strep.media import packetize
from strep.receive.gate import GateSettings
from strep.receive.receiver import Receiver
from strep.wire import Direction, PacketBatch, StrepHeader

if TYPE_CHECKING:
    from pipeline.block import AudioBlock, Track, TrackSummary
    from pipeline.dispatch import Results

SLOT_BYTES = 576
BATCH = 2048
CALLS = 20
TICK_NS = 20_000_000
_SOURCES = np.frombuffer(b"".join(each.pack() for each in SOURCES), np.uint8).reshape(-1, 24)
"""Whom hostile datagrams come from; the last one is that of the ordinary calls, too."""


class _Ear(Sink):
    """Sums up what ordinary calls say, and has everything decoded."""

    threaded = False

    def write(self, block: AudioBlock) -> None:
        """Have the audio decoded."""
        block.pcm.max()


class _Hostile:
    """Fills slots of a batch with templates in which bytes were changed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._bytes = np.zeros((len(TEMPLATES), SLOT_BYTES), np.uint8)
        self._lengths = np.array([len(each) for each in TEMPLATES])
        for row, each in enumerate(TEMPLATES):
            self._bytes[row, : len(each)] = np.frombuffer(each[:SLOT_BYTES], np.uint8)

    def fill(self, batch: PacketBatch, slots: slice) -> None:
        """Fill these slots."""
        random, count = self._random, slots.stop - slots.start
        which = random.integers(len(TEMPLATES), size=count)
        content = self._bytes[which]
        for _ in range(3):
            rows = np.flatnonzero(random.random(count) < 0.5)
            at = (random.random(len(rows)) ** 2 * 64).astype(np.intp)
            content[rows, at] = random.integers(256, size=len(rows))
        lengths = self._lengths[which]
        cut = random.random(count)
        lengths = np.where(cut < 0.1, random.integers(0, 64, size=count), lengths)
        lengths = np.where(cut > 0.97, random.integers(0, 1500, size=count), lengths)
        batch.buffer[slots] = content
        batch.length_bytes[slots] = lengths
        batch.kept_bytes[slots] = SLOT_BYTES
        batch.source[slots] = _SOURCES[random.integers(len(_SOURCES), size=count)]
        batch.destination[slots] = np.frombuffer(BOUND.pack(), np.uint8)


class _Ordinary:
    """Calls of which a packet of both directions is due at each tick."""

    def __init__(self, packets: int) -> None:
        """Make calls of so many packets in each direction."""
        random = np.random.default_rng(1)
        self.legs = {UUID(bytes=random.bytes(16), version=4) for _ in range(CALLS)}
        self.sent = 0
        codes = random.integers(0, 256, 160 * packets).astype(np.uint8)
        self._packets = iter(
            np.stack(
                [
                    packetize(
                        codes,
                        payload_type=0,
                        ssrc=ssrc,
                        first_sequence=65_500,
                        first_timestamp=0,
                        strep=StrepHeader(leg, direction=direction),
                    )
                    for ssrc, leg in enumerate(self.legs)
                    for direction in Direction
                ],
                axis=1,
            )
        )

    def fill(self, batch: PacketBatch) -> int:
        """Fill the first slots of a batch; return how many."""
        now = next(self._packets)
        n, size = map(int, now.shape)
        batch.buffer[:n, :size] = now
        batch.length_bytes[:n] = size
        batch.kept_bytes[:n] = SLOT_BYTES
        batch.source[:n] = np.frombuffer(SOURCES[2].pack(), np.uint8)
        batch.destination[:n] = np.frombuffer(BOUND.pack(), np.uint8)
        self.sent += n
        return n


def main(number: int, seed: int = 0) -> int:
    """Send so many hostile datagrams; return 1 where something was wrong."""
    ordinary = _Ordinary(number // (BATCH - 2 * CALLS) + 1)
    hostile = _Hostile(seed)
    whole: list[bool] = []

    def closed(track: Track, summary: TrackSummary, _: Results) -> None:
        if track.call_leg_id in ordinary.legs:
            in_order = summary.packets == ordinary.sent // (2 * CALLS)
            whole.append(in_order and not summary.lost)

    dispatcher = Dispatcher({"ear": _Ear()}, on_closed=closed)
    receiver = Receiver(dispatcher, max_tracks=4096, idle_timeout_s=4, gate=GateSettings())
    batch = PacketBatch(BATCH, SLOT_BYTES)
    now_ns, sent, raised = 10**12, 0, 0
    began_s = told_s = time.monotonic()
    while sent < number:
        batch.clear()
        n = ordinary.fill(batch)
        hostile.fill(batch, slice(n, BATCH))
        batch.count = BATCH
        batch.arrival_ns[:BATCH] = now_ns + np.arange(BATCH) * 1000
        batch.binding[:BATCH] = 0
        try:
            receiver.receive(batch)
            now_ns += TICK_NS
            receiver.tick(now_ns)
        except Exception as error:  # noqa: BLE001 -- counted, and said
            raised += 1
            sys.stderr.write(f"\n{error!r}\n")
        sent += BATCH - n
        if time.monotonic() - told_s > 1:
            told_s = time.monotonic()
            sys.stderr.write(f"\r{sent:,} of {number:,}, {len(receiver.table):,} tracks open ")
            sys.stderr.flush()
    receiver.stop()
    seconds = time.monotonic() - began_s
    out = sys.stdout.write
    out(f"\n{sent:,} hostile datagrams beside {ordinary.sent:,} packets of ordinary calls")
    out(f" in {seconds:.0f} s\n{raised} exceptions\n")
    out(f"{sum(whole)} of {2 * CALLS} ordinary tracks are whole\n")
    for reason, count in receiver.datagrams.items():
        out(f"  {reason:16} {count:>12,}\n")
    accounted = receiver.read == sum(receiver.datagrams.values()) == sent + ordinary.sent
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out(f"accounted for: {'all' if accounted else 'NOT ALL'}; at most {memory_mb} MB\n")
    return int(bool(raised or sum(whole) != 2 * CALLS or not accounted))


if __name__ == "__main__":
    parser = Parser(
        prog="python -m fuzz.flood",
        description="Millions of hostile datagrams down the whole way of a packet.",
    )
    parser.add_argument(
        "number", nargs="?", type=between(1, 10**9), default=10_000_000, metavar="NUMBER",
        help="how many datagrams (default: 10,000,000)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=between(0, 2**32 - 1), default=0, help="another one for other datagrams"
    )
    given = parser.parse_args()
    sys.exit(main(given.number, given.seed))
