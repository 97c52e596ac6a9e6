"""Makes call.pcap: three seconds of the shipped conversation as STREP, with a few packets lost.

Run from the project's root: PYTHONPATH=tests python tests/data/make_call.py
"""

from pathlib import Path
from uuid import UUID

from capturefile import datagram, ethernet, pcap

from strep.media import packetize
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
START_NS = 1_767_225_600_000_000_000  # 2026-01-01
LOST = {(0, 40), (0, 41), (1, 90)}

frames = []
for direction, voice in ((Direction.INBOUND, "caller"), (Direction.OUTBOUND, "agent")):
    packets = packetize(
        load_voice(voice)[4 * 8000 : 7 * 8000],
        payload_type=0,
        ssrc=0x1000 + direction,
        first_sequence=65_500,
        first_timestamp=1000,
        strep=StrepHeader(CALL, direction=direction),
    )
    frames += [
        (START_NS + i * 20_000_000 + direction * 3_000_000, ethernet(datagram(bytes(packet))))
        for i, packet in enumerate(packets)
        if (direction, i) not in LOST
    ]
Path(__file__).with_name("call.pcap").write_bytes(pcap(sorted(frames)))
