from __future__ import annotations

import re
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wirecases import EVERYTHING, GOODBYE, RTP, SENDER_REPORT, SPEECH, rtp

from strep.wire import DropReason, RtpHeader, WireError
from strep.wire.rtp import is_rtcp_payload_type

UINT16, UINT32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
AUDIO_PAYLOAD_TYPES = st.integers(0, 63) | st.integers(96, 127)
EXTENSIONS = st.tuples(
    UINT16, st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
)
HEADERS = st.builds(
    RtpHeader,
    payload_type=AUDIO_PAYLOAD_TYPES,
    sequence=UINT16,
    timestamp=UINT32,
    ssrc=UINT32,
    marker=st.booleans(),
    csrcs=st.lists(UINT32, max_size=15).map(tuple),
    extension=st.none() | EXTENSIONS,
)


def refused(buffer):
    with pytest.raises(WireError) as caught:
        RtpHeader.parse(buffer)
    return caught.value


def test_bare_header_is_read():
    header, payload = RtpHeader.parse(RTP + SPEECH)
    assert header == RtpHeader(
        payload_type=0,
        sequence=0x0102,
        timestamp=0x03040506,
        ssrc=0x0A0B0C0D,
        marker=False,
        csrcs=(),
        extension=None,
    )
    assert payload == SPEECH


def test_header_with_everything_is_read():
    packet = bytes.fromhex(
        "b2880102 03040506 0a0b0c0d"  # P, X, two CSRCs; marked, PCMA
        "00000001 00000002"
        "bede0001 1000aa00"
        "ff7e7d7c"
        "000003"
    )
    header, payload = RtpHeader.parse(packet)
    assert header == RtpHeader(
        payload_type=8,
        sequence=0x0102,
        timestamp=0x03040506,
        ssrc=0x0A0B0C0D,
        marker=True,
        csrcs=(1, 2),
        extension=(0xBEDE, bytes.fromhex("1000aa00")),
    )
    assert payload == bytes.fromhex("ff7e7d7c")
    assert packet == EVERYTHING


def test_header_is_packed_bit_for_bit():
    assert RtpHeader(0, 0x0102, 0x03040506, 0x0A0B0C0D).pack() == RTP
    header = RtpHeader(
        101, 65535, 2**32 - 1, 1, marker=True, csrcs=(2, 3), extension=(0xBEDE, b"abcd")
    )
    assert header.pack() == bytes.fromhex(
        "92e5ffff ffffffff 00000001 00000002 00000003 bede0001 61626364"
    )


@given(HEADERS, st.binary(max_size=20))
def test_what_is_packed_is_read_back(header, payload):
    assert RtpHeader.parse(header.pack() + payload) == (header, payload)


@given(HEADERS, st.binary(max_size=20), st.integers(1, 255))
def test_padding_is_cut_off(header, payload, padding_bytes):
    packet = bytearray(header.pack() + payload + bytes(padding_bytes - 1) + bytes([padding_bytes]))
    packet[0] |= 0x20
    assert RtpHeader.parse(packet) == (header, payload)


def test_payload_is_a_view():
    packet = bytearray(RTP + b"\1")
    _, payload = RtpHeader.parse(packet)
    packet[12] = 2
    assert payload[0] == 2


@pytest.mark.parametrize("length", range(12))
def test_truncated_header_names_the_sizes(length):
    error = refused(RTP[:length])
    assert (error.reason, error.actual, error.required) == (DropReason.SHORT, length, 12)
    assert str(error) == f"the packet ends after {length} bytes, an RTP header needs 12"


@pytest.mark.parametrize("version", [0, 1, 3])
def test_other_versions_are_refused_however_short(version):
    for length in (1, 12, 16):
        error = refused(rtp(SPEECH, version=version)[:length])
        assert error.reason == DropReason.RTP_VERSION
        assert str(error) == f"RTP version {version}, expected 2"


@pytest.mark.parametrize("packet_type", range(192, 224))
def test_rtcp_is_refused_however_short(packet_type):
    packet = bytes([0x80, packet_type]) + SENDER_REPORT[2:]
    for length in (2, 8, 11, 12, 28):
        error = refused(packet[:length])
        assert error.reason == DropReason.RTCP
        assert str(error) == f"RTCP (packet type {packet_type}), expected RTP"


def test_goodbye_is_no_audio():
    assert refused(GOODBYE).reason == DropReason.RTCP


def test_exactly_the_payload_types_64_to_95_are_rtcp():
    assert [t for t in range(128) if is_rtcp_payload_type(t)] == list(range(64, 96))


@pytest.mark.parametrize("payload_type", [0, 8, 63, 96, 101, 127])
@pytest.mark.parametrize("marker", [0, 1])
def test_payload_types_around_rtcp_are_accepted(payload_type, marker):
    header, _ = RtpHeader.parse(rtp(SPEECH, payload_type=payload_type, marker=marker))
    assert (header.payload_type, header.marker) == (payload_type, bool(marker))


@pytest.mark.parametrize(
    ("packet", "reason", "what", "actual", "required"),
    [
        (rtp(csrcs=range(15))[:-1], DropReason.CSRC, "the list of CSRCs", 71, 72),
        (rtp(csrcs=(1,))[:12], DropReason.CSRC, "the list of CSRCs", 12, 16),
        (rtp(extension=(1, b""))[:12], DropReason.EXTENSION, "the header extension", 12, 16),
        (rtp(extension=(1, bytes(4)))[:19], DropReason.EXTENSION, "the header extension", 19, 20),
    ],
)
def test_parts_that_run_past_the_end_name_the_sizes(packet, reason, what, actual, required):
    error = refused(packet)
    assert (error.reason, error.actual, error.required) == (reason, actual, required)
    assert str(error) == (
        f"{what} runs past the end: the packet has {actual} bytes, needs {required}"
    )


@pytest.mark.parametrize(
    ("behind", "actual", "required"),
    [(b"", 0, 0), (b"\0", 1, 0), (b"\2", 1, 2), (b"ab\xff", 3, 255)],
)
def test_padding_must_fit_the_payload(behind, actual, required):
    error = refused(b"\xa0" + RTP[1:] + behind)
    assert (error.reason, error.actual, error.required) == (DropReason.PADDING, actual, required)
    assert str(error) == (
        f"{required} bytes of padding in {actual} bytes of payload, expected 1 to {actual}"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payload_type": 128}, "payload_type is 128, expected 0 to 127"),
        ({"sequence": 65536}, "sequence is 65536, expected 0 to 65535"),
        ({"timestamp": -1}, "timestamp is -1, expected 0 to 4294967295"),
        ({"ssrc": 2**32}, "ssrc is 4294967296, expected 0 to 4294967295"),
        ({"csrcs": (0,) * 16}, "csrc_count is 16, expected 0 to 15"),
        ({"extension": (1, b"abc")}, "the extension has 3 bytes, expected a multiple of 4"),
    ],
)
def test_header_that_does_not_fit_is_not_packed(changes, message):
    header = RtpHeader(**{"payload_type": 0, "sequence": 0, "timestamp": 0, "ssrc": 0, **changes})
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        header.pack()


def test_header_does_not_change():
    with pytest.raises(FrozenInstanceError):
        RtpHeader(0, 0, 0, 0).sequence = 1
