"""An hour of calls that come and go, in fast motion: the receiver in one process, time simulated.

    python -m bench.churn --minutes 60

Tracks live for a minute each and are closed when they have been idle for half a minute.
One JSON object per simulated minute says how much memory there is; the benchmark `memory` runs it
as a process of its own, so that this memory is the receiver's.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from bench import accounting
from bench.arguments import Parser, between
from bench.traffic import PacketWriter, Traffic
from pipeline.dispatch import Dispatcher
from pipeline.sinks.vad import VadSink
from strep.receive.receiver import Receiver
from strep.wire import PacketBatch

GROUPS = 20
"""Tracks come and go by the group; a group is replaced every `LIFE_S / GROUPS` seconds."""
GROUP_TRACKS = 10
LIFE_S = 60
IDLE_TIMEOUT_S = 30
STEP_MS = 100
LOSS = 0.01


class Group:
    """Tracks that come and go together."""

    def __init__(self, seed: int, born_ms: int) -> None:
        self.born_ms = born_ms
        self._writer = PacketWriter(Traffic(tracks=GROUP_TRACKS, seed=seed))
        self._next = 0

    def write(self, batch: PacketBatch, now_ms: int, random: np.random.Generator) -> None:
        """Add the packets of one step to a batch, but for those that the network loses."""
        count = GROUP_TRACKS * STEP_MS // 20
        index = np.arange(self._next, self._next + count)
        self._next += count
        index = index[random.random(count) >= LOSS]
        rows = slice(batch.count, batch.count + len(index))
        self._writer.write(index, batch.buffer[rows, : self._writer.datagram_bytes])
        batch.length_bytes[rows] = self._writer.datagram_bytes
        batch.arrival_ns[rows] = now_ms * 1_000_000
        batch.count = rows.stop


def simulate(minutes: int) -> None:
    """Run, printing one line per simulated minute."""
    receiver = Receiver(Dispatcher({"vad": VadSink()}), idle_timeout_s=IDLE_TIMEOUT_S)
    batch = PacketBatch(capacity=GROUPS * GROUP_TRACKS * STEP_MS // 20)
    random = np.random.default_rng(1)
    groups = [Group(seed, born_ms=0) for seed in range(GROUPS)]
    for number, group in enumerate(groups):
        group.born_ms = -number * LIFE_S * 1000 // GROUPS
    born = GROUPS
    for now_ms in range(0, minutes * 60_000, STEP_MS):
        batch.clear()
        for place, group in enumerate(groups):
            if now_ms - group.born_ms >= LIFE_S * 1000:
                groups[place] = Group(born, now_ms)
                born += 1
            groups[place].write(batch, now_ms, random)
        receiver.receive(batch)
        receiver.tick(now_ms * 1_000_000)
        if (now_ms + STEP_MS) % 60_000 == 0:
            _say(receiver, (now_ms + STEP_MS) // 60_000)


def _say(receiver: Receiver, minute: int) -> None:
    facts = {
        "minute": minute,
        "resident_bytes": accounting.resident_bytes("self"),
        "tracks_open": len(receiver.table),
        "tracks_opened": receiver.tracks_opened,
        "packets": receiver.pipeline.counters().packets,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = Parser(prog="python -m bench.churn", description=__doc__)
    parser.add_argument("--minutes", type=between(1, 10_080), default=60)
    simulate(parser.parse_args().minutes)
