from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.media import datagrams, packetize
from strep.wire.header import Direction, Leg, StrepHeader
from strep.wire.rtp import RtpHeader

STREP = StrepHeader(
    UUID("00112233-4455-6677-8899-aabbccddeeff"), leg=Leg.B, direction=Direction.OUTBOUND
)


def codes_of(*values):
    return np.array(values, np.uint8)


def packets_of(codes, **changes):
    options = {
        "payload_type": 0,
        "ssrc": 0x01020304,
        "first_sequence": 100,
        "first_timestamp": 5000,
    }
    return packetize(codes, **(options | changes))


def test_one_packet_without_strep_is_these_bytes():
    (datagram,) = packets_of(codes_of(*range(1, 9)), packet_ms=1)
    assert datagram.tobytes().hex(" ", 4) == "80000064 00001388 01020304 01020304 05060708"


def test_one_packet_with_strep_is_these_bytes():
    (datagram,) = packets_of(codes_of(*[7] * 8), packet_ms=1, payload_type=8, strep=STREP)
    assert datagram.tobytes().hex(" ", 4) == (
        "c7180000 00000000 00112233 44556677 8899aabb ccddeeff "
        "80080064 00001388 01020304 07070707 07070707"
    )


def test_sequence_and_timestamp_wrap():
    datagrams = packets_of(
        np.zeros(480, np.uint8), first_sequence=0xFFFF, first_timestamp=0xFFFFFFFF - 159
    )
    headers = [RtpHeader.parse(row.tobytes())[0] for row in datagrams]
    assert [header.sequence for header in headers] == [0xFFFF, 0, 1]
    assert [header.timestamp for header in headers] == [0xFFFFFF60, 0, 160]
    assert not any(header.marker for header in headers)


@pytest.mark.parametrize(("payload_type", "silence"), [(0, 0xFF), (8, 0xD5)])
def test_short_last_packet_is_filled_up_with_silence(payload_type, silence):
    datagrams = packets_of(np.full(163, 9, np.uint8), payload_type=payload_type)
    assert datagrams.shape == (2, 172)
    assert datagrams[1, 12:].tolist() == [9] * 3 + [silence] * 157


def test_no_codes_make_no_packets():
    assert packets_of(np.zeros(0, np.uint8), strep=STREP).shape == (0, 196)


@given(codes=st.binary(max_size=700), packet_ms=st.integers(1, 60), with_strep=st.booleans())
def test_payloads_in_order_are_the_codes(codes, packet_ms, with_strep):
    datagrams = packets_of(
        np.frombuffer(codes, np.uint8), packet_ms=packet_ms, strep=STREP if with_strep else None
    )
    payloads = b""
    for index, datagram in enumerate(datagrams):
        rest = memoryview(datagram.tobytes())
        if with_strep:
            strep, rest = StrepHeader.parse(rest)
            assert strep == STREP
        rtp, payload = RtpHeader.parse(rest)
        assert rtp == RtpHeader(0, 100 + index, 5000 + 8 * packet_ms * index, 0x01020304)
        payloads += payload
    padding = -len(codes) % (8 * packet_ms)
    assert payloads == codes + b"\xff" * padding


def test_fields_are_one_for_all_or_one_for_each():
    payloads = np.array([[1, 2], [3, 4]], np.uint8)
    rows = datagrams(
        payloads, payload_type=[0, 101], ssrc=0xAABBCCDD, sequence=[0xFFFF, 0x10000],
        timestamp=2**32 + 5, marker=[False, True],
    )  # fmt: skip
    assert [row.tobytes().hex(" ", -4) for row in rows] == [
        "8000ffff 00000005 aabbccdd 0102",
        "80e50000 00000005 aabbccdd 0304",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payload_type": 18}, r"payload_type is 18, expected 0 \(PCMU\) or 8 \(PCMA\)"),
        ({"packet_ms": 0}, "packet_ms is 0, expected 1 to 120"),
        ({"packet_ms": 121}, "packet_ms is 121, expected 1 to 120"),
        ({"first_sequence": 65536}, "sequence is 65536, expected 0 to 65535"),
        ({"first_timestamp": -1}, "timestamp is -1, expected 0 to 4294967295"),
        ({"ssrc": 2**32}, "ssrc is 4294967296, expected 0 to 4294967295"),
    ],
)
def test_value_that_fits_no_packet_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        packets_of(np.zeros(160, np.uint8), **changes)
