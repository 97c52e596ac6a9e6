"""Whatever a sender and the network do, a recording is as long as the call and nothing slips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import P, columns
from trackmaker import track

from pipeline.codecs import PCMU
from pipeline.dispatch import Dispatcher
from pipeline.pipeline import Pipeline
from pipeline.sinks.base import Sink
from pipeline.sinks.wav import WavSink

pytestmark = pytest.mark.usefixtures("kernel")

FRAME = 160
JITTER_MS = 30
ACTS = st.one_of(
    st.tuples(st.just("talk"), st.integers(1, 30)),
    st.tuples(st.just("lose"), st.integers(1, 5)),
    st.tuples(st.just("swap"), st.just(0)),
    st.tuples(st.just("pause"), st.integers(1, 3000)),
    st.tuples(st.just("hold"), st.integers(1300, 20_000)),
    st.tuples(st.just("stall"), st.integers(1300, 4000)),
    st.tuples(st.just("source"), st.integers(0, 2**31)),
    st.tuples(st.just("leap"), st.integers(20_000, 2**30)),
    st.tuples(st.just("leap"), st.integers(-(2**30), -8001)),
)


@dataclass
class Sent:
    """A packet, and what its sender knows of it."""

    packet: P
    sample: int
    """Of the sender's own clock since its first packet."""
    piece: int
    """How often the relation of timestamps to time had been broken before."""


def sent(acts, ppm, seed):  # noqa: C901 -- one branch for each act
    """Return the packets that arrive, in their order, of a sender that does all this."""
    random = np.random.default_rng(seed)
    packets = []
    sample, offset, sequence, ssrc, piece = 0, seed, 65_500, 1, 0
    arrived_ms = stalled_until_ms = 0.0

    def talk(count, *, is_lost=False):
        nonlocal sample, sequence, arrived_ms
        for _ in range(count):
            spoken_ms = sample / 8 / (1 + ppm / 1e6)
            arrival_ms = max(spoken_ms + random.uniform(0, JITTER_MS), stalled_until_ms, arrived_ms)
            codes = random.integers(0, 256, FRAME).astype(np.uint8)
            packet = P(
                sequence=sequence,
                timestamp=sample + offset,
                ssrc=ssrc,
                arrival_ms=arrival_ms,
                payload=codes.tobytes(),
            )
            if not is_lost:
                arrived_ms = arrival_ms
                packets.append(Sent(packet, sample, piece))
            sample, sequence = sample + FRAME, sequence + 1

    talk(5)
    for act, value in acts:
        if act == "talk":
            talk(value)
        elif act == "lose":
            talk(value, is_lost=True)
        elif act == "swap":
            talk(2)
            one, other = packets[-2:]
            packets[-2:] = [
                replace(other, packet=replace(other.packet, arrival_ms=one.packet.arrival_ms)),
                replace(one, packet=replace(one.packet, arrival_ms=other.packet.arrival_ms)),
            ]
        elif act == "pause":
            sample += 8 * value
        elif act == "stall":
            stalled_until_ms = sample / 8 / (1 + ppm / 1e6) + value
            talk(value // 20)
        else:
            piece += 1
            if act == "hold":
                sample, offset = sample + 8 * value, offset - 8 * value
            elif act == "leap":
                offset += value
            else:
                ssrc, sequence, offset = ssrc + 1, value & 0xFFFF, value
            talk(15)
        talk(15)
    return packets


class Places(Sink):
    """Keeps where frames stand, by their payload."""

    threaded = False

    def __init__(self):
        self.position = {}

    def write(self, block):
        for i, position in enumerate(block.position.tolist()):
            self.position[block.payload[i].tobytes()] = position


@settings(max_examples=40, deadline=None)
@given(
    acts=st.lists(ACTS, max_size=10),
    ppm=st.sampled_from([0, -100, 100]),
    seed=st.integers(0, 10_000),
    size=st.sampled_from([1, 7, 50, 1000]),
)
def test_samples_stand_where_they_were_spoken(acts, ppm, seed, size, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    arrived = sent(acts, ppm, seed)
    places = Places()
    dispatcher = Dispatcher({"places": places, "wav": WavSink(directory=folder, layout="mono")})
    dispatcher.start()
    pipeline = Pipeline(dispatcher)
    pipeline.open(track(), sequence=arrived[0].packet.sequence & 0xFFFF)
    for start in range(0, len(arrived), size):
        part = [each.packet for each in arrived[start : start + size]]
        pipeline.push(columns(part))
        pipeline.tick(part[-1].arrival_ns)
    pipeline.close(0, "end")
    dispatcher.stop()

    (path,) = folder.glob("*.wav")
    recorded, _ = soundfile.read(path, dtype="int16")
    assert set(places.position) == {each.packet.payload for each in arrived}
    shift = {}
    for each in arrived:
        position = places.position[each.packet.payload]
        codes = np.frombuffer(each.packet.payload, np.uint8)
        # nothing that was received is missing, cut or covered
        assert (recorded[position : position + FRAME] == PCMU.table[codes]).all()
        shift.setdefault(each.piece, set()).add(position - each.sample)
    # to the sample, where the timestamps tell; within the network's jitter, where they cannot
    assert all(len(shifts) == 1 for shifts in shift.values())
    for piece, (shifts,) in enumerate(shift.values()):
        assert abs(shifts) <= 2 * JITTER_MS * 8 * piece
    last = max(each.sample for each in arrived) + FRAME
    assert abs(len(recorded) - last) <= max(2 * JITTER_MS * 8 * len(shift), FRAME)
