"""A call of four hours on a simulated clock, whose sender runs 100 ppm fast."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import soundfile

from pipeline.codecs import PCMU
from pipeline.dispatch import Dispatcher
from pipeline.sinks.load import load
from strep.receive.receiver import Receiver
from strep.wire import Direction, PacketBatch, RtpHeader, StrepHeader

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
HOURS = 4
SPURT_S = 20
"""A second of talk every so often; between them nothing is sent (DTX), as on a real call."""
PPM = 100
RATE_HZ = 8000
FRAME = 160


def spurts(direction, *, ppm, code, ssrc):
    """Yield (arrival_ns, datagram, sample on the sender's clock) of one side."""
    header = StrepHeader(CALL, direction=direction).pack()
    sequence = 65_000
    for spurt in range(HOURS * 3600 // SPURT_S):
        for k in range(5):
            arrival_s = spurt * SPURT_S + k * 0.02
            sample = round(arrival_s * RATE_HZ * (1 + ppm / 1e6) / FRAME) * FRAME
            rtp = RtpHeader(0, sequence & 0xFFFF, (2**32 - 8000 + sample) % 2**32, ssrc).pack()
            yield round(arrival_s * 1e9), header + rtp + bytes([code]) * FRAME, sample
            sequence += 1


def test_channels_of_a_four_hour_call_stay_where_their_timestamps_say(tmp_path):
    fast = list(spurts(Direction.INBOUND, ppm=PPM, code=0x10, ssrc=1))
    true = list(spurts(Direction.OUTBOUND, ppm=0, code=0x90, ssrc=2))
    closed = []
    sink = load("wav", {"directory": tmp_path})
    dispatcher = Dispatcher(
        {"wav": sink},
        on_closed=lambda _, summary, results: closed.append((summary, results)),
        wait_when_full=True,
    )
    receiver = Receiver(dispatcher)
    dispatcher.start()
    batch = PacketBatch()
    sizes = []
    arrivals = sorted(fast + true, key=lambda entry: entry[0])
    for start in range(0, len(arrivals), 10):
        batch.clear()
        for arrival_ns, datagram, _ in arrivals[start : start + 10]:
            batch.add(datagram, arrival_ns)
        receiver.receive(batch)
        receiver.tick(arrivals[min(start + 10, len(arrivals)) - 1][0])
        pipeline = receiver.pipeline
        sizes.append(
            (pipeline.bank.rows, len(pipeline.bank.pool.payload), pipeline.counters().held)
        )
    receiver.stop()

    assert set(sizes) == {(64, 0, 0)}, "something grew"
    assert len(closed) == 2
    for summary, _ in closed:
        assert (summary.lost, summary.late, summary.resets) == (0, 0, 0)
    (path,) = tmp_path.glob("*.wav")
    with soundfile.SoundFile(path) as recording:
        assert recording.frames == fast[-1][2] + FRAME
        for entries, channel, code in ((fast, 0, 0x10), (true, 1, 0x90)):
            level = PCMU.table[code]
            for _, _, sample in entries[:: len(entries) // 50] + entries[-1:]:
                recording.seek(sample)
                assert (recording.read(FRAME, dtype="int16")[:, channel] == level).all()
    # after four hours the fast side is ahead by what its clock gained, to within a packet
    gained = fast[-1][2] - true[-1][2]
    assert abs(gained - HOURS * 3600 * RATE_HZ * PPM / 1e6) <= FRAME
    assert not list(Path(tmp_path).glob("*.part"))
