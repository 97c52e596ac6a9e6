"""The same packets over every reader give the same tracks, sample for sample."""

from __future__ import annotations

import hashlib
import socket
import time
from functools import partial
from itertools import groupby, islice
from uuid import UUID

import numpy as np
import pytest
from capturefile import datagram as udp_datagram
from capturefile import ethernet, pcap

from pipeline.codecs import PCMA, PCMU
from pipeline.dispatch import Dispatcher
from pipeline.sinks.base import Sink
from strep.media import packetize
from strep.receive.capture import CaptureReader
from strep.receive.readers import MemoryReader, RecvIntoReader, RecvmmsgReader, open_reader
from strep.receive.receiver import Receiver
from strep.receive.sockets import bind, enlarge_receive_buffer
from strep.voices import load_voice
from strep.wire import Direction, Leg, PacketBatch, RtpHeader, StrepHeader

pytestmark = pytest.mark.usefixtures("kernel")

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OTHER_CALL = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
CALLER, AGENT = load_voice("caller")[: 8000 * 4], load_voice("agent")[: 8000 * 4]
SLOT_BYTES = 1600
UDP_SEGMENT = 103
MS = 1_000_000


class Mono(Sink):
    """Puts each track together in memory."""

    threaded = False

    def __init__(self):
        self.pcm = {}
        self.tracks = {}

    def open(self, track):
        self.pcm[track.row] = np.zeros(0, np.int16)

    def write(self, block):
        for i, row in enumerate(block.rows.tolist()):
            end = block.position[i] + block.samples
            if end > len(self.pcm[row]):
                self.pcm[row] = np.pad(self.pcm[row], (0, end - len(self.pcm[row])))
            self.pcm[row][block.position[i] : end] = block.pcm[i]

    def close(self, track, summary):
        key = (track.call_leg_id, track.leg, track.direction)
        digest = hashlib.sha256(self.pcm[track.row].tobytes()).hexdigest()
        self.tracks.setdefault(key, []).append((len(self.pcm[track.row]), digest, summary))


def run(reader, *, expected, finished):
    """Receive until `expected` datagrams were read, reusing one batch filled with 0xA5."""
    sink = Mono()
    # long enough for a slow machine between two reads
    receiver = Receiver(Dispatcher({"mono": sink}), reorder_ms=5000)
    batch = PacketBatch(capacity=64, slot_bytes=SLOT_BYTES)
    deadline = time.monotonic() + 10
    while receiver.read < expected and not (finished and receiver.read and not batch.count):
        batch.buffer[:] = 0xA5
        reader.read(batch)
        receiver.receive(batch)
        if batch.count:
            receiver.tick(int(batch.arrival_ns[: batch.count].max()))
        assert time.monotonic() < deadline
    receiver.stop()
    reader.close()
    assert receiver.read == expected == sum(receiver.datagrams.values())
    return sink.tracks, {k: n for k, n in receiver.datagrams.items() if n}


def over_memory(datagrams, _):
    reader = MemoryReader((d, i * MS) for i, d in enumerate(datagrams))
    return run(reader, expected=len(datagrams), finished=True)


def over_capture(datagrams, folder):
    path = folder / "call.pcap"
    path.write_bytes(pcap([(i * MS, ethernet(udp_datagram(d))) for i, d in enumerate(datagrams)]))
    return run(CaptureReader(path), expected=len(datagrams), finished=True)


def one_by_one(datagrams, sender):
    for d in datagrams:
        sender.send(d)


def in_runs(datagrams, sender):
    """Send neighbours of one length together: they reach the socket merged, where it wants that."""
    for size, alike in groupby(datagrams, key=len):
        for run in batched(alike, 40):
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
            sender.send(b"".join(run))
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)


def batched(items, most):
    items = iter(items)
    while taken := list(islice(items, most)):
        yield taken


def over_socket(make_reader, family, send=one_by_one):
    def deliver(datagrams, _):
        sock = bind("127.0.0.1" if family == socket.AF_INET else "::1", 0)
        enlarge_receive_buffer(sock, 2**22)
        reader = make_reader(sock)
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.connect(sock.getsockname())
            send(datagrams, sender)
        return run(reader, expected=len(datagrams), finished=False)

    return deliver


TRANSPORTS = {
    "memory": over_memory,
    "capture": over_capture,
    "recvmmsg": over_socket(RecvmmsgReader, socket.AF_INET),
    "recvmmsg-ipv6": over_socket(RecvmmsgReader, socket.AF_INET6),
    "recvmmsg-merged": over_socket(partial(open_reader, merged=True), socket.AF_INET, send=in_runs),
    "recv_into": over_socket(RecvIntoReader, socket.AF_INET),
    "recv_into-ipv6": over_socket(RecvIntoReader, socket.AF_INET6),
}


@pytest.fixture(params=TRANSPORTS)
def deliver(request, tmp_path):
    if request.param.startswith("recvmmsg") and not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("recvmmsg is Linux only")
    return lambda datagrams: TRANSPORTS[request.param](datagrams, tmp_path)


def stream(codes, *, direction=Direction.INBOUND, leg=Leg.A, call=CALL, payload_type=0, **more):
    options = {"ssrc": 7, "first_sequence": 65_500, "first_timestamp": 2**32 - 800} | more
    header = StrepHeader(call, leg=leg, direction=direction)
    return [bytes(d) for d in packetize(codes, payload_type=payload_type, strep=header, **options)]


def pcm_of(codes, table):
    samples = table[codes]
    return len(samples), hashlib.sha256(samples.tobytes()).hexdigest()


def mulaw(codes):
    return pcm_of(codes, PCMU.table)


def test_two_party_call_arrives_whole(deliver):
    inbound = stream(CALLER)
    outbound = stream(AGENT, direction=Direction.OUTBOUND, ssrc=8, first_sequence=3)
    datagrams = [d for pair in zip(inbound, outbound, strict=True) for d in pair]
    tracks, counts = deliver(datagrams)
    assert counts == {"accepted": 400}
    assert set(tracks) == {(CALL, "A", "inbound"), (CALL, "A", "outbound")}
    assert tracks[CALL, "A", "inbound"][0][:2] == mulaw(CALLER)
    assert tracks[CALL, "A", "outbound"][0][:2] == mulaw(AGENT)


def test_legs_and_calls_on_one_port_are_kept_apart(deliver):
    streams = [
        stream(CALLER[:8000], leg=Leg.A),
        stream(AGENT[:8000], leg=Leg.B),
        stream(CALLER[8000:16000], call=OTHER_CALL),
    ]
    tracks, _ = deliver([d for group in zip(*streams, strict=True) for d in group])
    assert tracks[CALL, "A", "inbound"][0][:2] == mulaw(CALLER[:8000])
    assert tracks[CALL, "B", "inbound"][0][:2] == mulaw(AGENT[:8000])
    assert tracks[OTHER_CALL, "A", "inbound"][0][:2] == mulaw(CALLER[8000:16000])


def test_reordered_and_repeated_packets_end_up_in_their_places(deliver):
    packets = stream(CALLER)
    datagrams = [packets[0]]
    for i in range(1, len(packets) - 1, 2):
        datagrams += [packets[i + 1], packets[i], packets[i]]
    datagrams += packets[-1:]
    tracks, _ = deliver(datagrams)
    length, digest, summary = tracks[CALL, "A", "inbound"][0]
    assert (length, digest) == mulaw(CALLER)
    assert (summary.packets, summary.reordered, summary.duplicate) == (299, 99, 99)
    assert (summary.lost, summary.late) == (0, 0)


def test_lost_packets_leave_silence_of_their_length(deliver):
    packets = stream(CALLER)
    tracks, _ = deliver(packets[:50] + packets[53:])
    expected = CALLER.copy()
    expected[50 * 160 : 53 * 160] = 0xFF
    length, digest, summary = tracks[CALL, "A", "inbound"][0]
    assert (length, digest) == mulaw(expected)
    assert (summary.lost, summary.silence_samples, summary.losses) == (3, 480, ((8000, 3),))


def test_new_source_in_mid_call_keeps_the_track_going(deliver):
    first = stream(CALLER[:8000])
    second = stream(CALLER[8000:], ssrc=99, first_sequence=1234, first_timestamp=5_000_000)
    tracks, counts = deliver(first + second)
    assert len(tracks[CALL, "A", "inbound"]) == 1
    length, _, summary = tracks[CALL, "A", "inbound"][0]
    assert counts == {"accepted": 200}
    assert (summary.resets, summary.ssrcs, summary.packets) == (1, (7, 99), 200)
    assert length >= len(CALLER)


def test_payload_type_may_change_in_mid_track(deliver):
    first = stream(CALLER[:8000])
    second = stream(CALLER[8000:16000], payload_type=8, first_sequence=14, first_timestamp=7200)
    tracks, _ = deliver(first + second)
    expected = np.concatenate([PCMU.table[CALLER[:8000]], PCMA.table[CALLER[8000:16000]]])
    length, digest, summary = tracks[CALL, "A", "inbound"][0]
    assert (length, digest) == (16_000, hashlib.sha256(expected.tobytes()).hexdigest())
    assert summary.codecs == ("PCMU", "PCMA")


def test_unusual_headers_carry_the_same_audio(deliver):
    plain = stream(CALLER[:800], first_sequence=100, first_timestamp=0)
    unusual = []
    for i, d in enumerate(plain):
        payload = d[36:]
        rtp = RtpHeader(0, 100 + i, 160 * i, 7).pack()
        if i == 1:
            rtp = RtpHeader(
                0, 100 + i, 160 * i, 7, csrcs=(1, 2), extension=(0xBEDE, bytes(8))
            ).pack()
        if i == 2:
            rtp = bytes([rtp[0] | 0x20]) + rtp[1:]
            payload += bytes(3) + b"\x04"
        extra = b"\x5a\x5a\x5a\x5a" if i == 3 else b""
        unusual.append(
            StrepHeader(CALL, header_length=24 + len(extra), extra=extra).pack() + rtp + payload
        )
    tracks, counts = deliver(unusual)
    assert counts == {"accepted": 5}
    assert tracks[CALL, "A", "inbound"][0][:2] == mulaw(CALLER[:800])


def test_what_is_no_audio_is_counted_by_its_reason_and_harms_nothing(deliver):
    packets = stream(CALLER)
    strep = StrepHeader(CALL).pack()
    rtp = RtpHeader(0, 1, 2, 7).pack()
    junk = {
        "short": strep[:20],
        "truncated": strep + rtp + bytes(SLOT_BYTES),
        "strep_version": bytes([0xC8]) + strep[1:] + rtp,
        "header_length": bytes([0xC4, 23]) + strep[2:] + rtp,
        "rtp_version": strep + b"\x40" + rtp[1:],
        "csrc": strep + b"\x8f" + rtp[1:],
        "extension": strep + b"\x90" + rtp[1:],
        "padding": strep + b"\xa0" + rtp[1:] + b"\x09",
        "rtcp": strep + b"\x80\xc8" + rtp[2:],
        "t38": b"\x00\x01" + bytes(20),
        "sip": b"OPTIONS sip:a@b SIP/2.0\r\n\r\n",
        "other": bytes.fromhex("000100002112a442") + bytes(12),
    }
    datagrams = [d for i, p in enumerate(packets) for d in (p, list(junk.values())[i % 12])]
    tracks, counts = deliver(datagrams)
    assert counts == {"accepted": 200} | {
        reason: 17 if i < 200 % 12 else 16 for i, reason in enumerate(junk)
    }
    assert tracks[CALL, "A", "inbound"][0][:2] == mulaw(CALLER)
