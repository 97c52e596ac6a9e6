from __future__ import annotations

from dataclasses import FrozenInstanceError
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wirecases import CALL, RTP, STREP, strep

from strep.wire import Direction, DropReason, Leg, StrepHeader, WireError

HEADERS = st.builds(
    lambda call_leg_id, leg, direction, reserved, extra: StrepHeader(
        call_leg_id=call_leg_id,
        leg=leg,
        direction=direction,
        header_length=24 + len(extra),
        reserved=reserved,
        extra=extra,
    ),
    st.uuids(),
    st.sampled_from(Leg),
    st.sampled_from(Direction),
    st.binary(min_size=6, max_size=6),
    st.binary(max_size=231),
)


def refused(buffer):
    with pytest.raises(WireError) as caught:
        StrepHeader.parse(buffer)
    return caught.value


def test_header_is_read():
    header, rest = StrepHeader.parse(STREP + RTP)
    assert header == StrepHeader(
        call_leg_id=UUID("01234567-89ab-4cde-8f01-23456789abcd"),
        leg=Leg.A,
        direction=Direction.INBOUND,
        version=1,
        header_length=24,
        reserved=bytes(6),
        extra=b"",
    )
    assert rest == RTP


@pytest.mark.parametrize(
    ("first", "leg", "direction"),
    [
        (0xC4, Leg.A, Direction.INBOUND),
        (0xC5, Leg.A, Direction.OUTBOUND),
        (0xC6, Leg.B, Direction.INBOUND),
        (0xC7, Leg.B, Direction.OUTBOUND),
    ],
)
def test_first_byte_names_leg_and_direction(first, leg, direction):
    header, _ = StrepHeader.parse(strep(RTP, first=first))
    assert (header.leg, header.direction) == (leg, direction)
    assert header.pack()[0] == first


def test_longer_header_keeps_what_it_has_more_and_says_where_the_rtp_begins():
    header, rest = StrepHeader.parse(strep(RTP, extra=b"more"))
    assert (header.header_length, header.extra) == (28, b"more")
    assert rest == RTP


def test_reserved_bytes_may_hold_anything():
    assert StrepHeader.parse(strep(reserved=b"\1\2\3\4\5\6"))[0].reserved == b"\1\2\3\4\5\6"


def test_header_is_packed_bit_for_bit():
    assert StrepHeader(CALL).pack() == STREP
    header = StrepHeader(
        CALL, Leg.B, Direction.OUTBOUND, header_length=26, reserved=b"UDPUDP", extra=b"\xaa\xbb"
    )
    assert header.pack() == bytes.fromhex("c71a 554450554450 0123456789ab4cde8f0123456789abcd aabb")


@given(HEADERS, st.binary(max_size=20))
def test_what_is_packed_is_read_back(header, behind):
    assert StrepHeader.parse(header.pack() + behind) == (header, behind)


def test_what_follows_is_a_view():
    datagram = bytearray(STREP + b"\1")
    _, rest = StrepHeader.parse(datagram)
    datagram[24] = 2
    assert rest[0] == 2


def test_header_is_read_from_any_buffer():
    for buffer in (STREP, bytearray(STREP), memoryview(STREP)):
        assert StrepHeader.parse(buffer)[0].call_leg_id == CALL


@pytest.mark.parametrize("length", range(24))
def test_truncated_header_names_the_sizes(length):
    error = refused(STREP[:length])
    assert (error.reason, error.actual, error.required) == (DropReason.SHORT, length, 24)
    assert str(error) == f"the datagram ends after {length} bytes, a STREP header needs 24"


@pytest.mark.parametrize("first", [0x00, 0x16, 0x49, 0x80, 0xBF])
def test_other_first_bits_are_not_strep(first):
    error = refused(bytes([first]) + STREP[1:])
    assert (error.reason, error.actual, error.required) == (DropReason.OTHER, None, None)
    assert str(error) == f"not STREP: the first two bits are {first >> 6:02b}, not 11"


@pytest.mark.parametrize("version", [0, *range(2, 16)])
def test_other_versions_are_refused(version):
    error = refused(bytes([0xC0 | version << 2]) + STREP[1:])
    assert error.reason == DropReason.STREP_VERSION
    assert str(error) == f"STREP version {version}, expected 1"


@pytest.mark.parametrize("header_length", [0, 1, 12, 23])
def test_header_length_below_24_is_refused(header_length):
    error = refused(strep(RTP, header_length=header_length))
    assert (error.reason, error.actual, error.required) == (
        DropReason.HEADER_LENGTH, header_length, 24,
    )  # fmt: skip
    assert str(error) == f"STREP HeaderLen is {header_length}, expected at least 24"


def test_header_length_beyond_the_end_names_what_it_needs():
    error = refused(strep(RTP, header_length=40))
    assert (error.reason, error.actual, error.required) == (DropReason.SHORT, 36, 40)
    assert str(error) == "the datagram ends after 36 bytes, a STREP header needs 40"


def test_header_that_contradicts_itself_is_not_packed():
    with pytest.raises(
        ValueError,
        match=r"^header_length is 24, but the header has 26 bytes \(24 to 255\)$",
    ):
        StrepHeader(CALL, extra=b"ab").pack()
    with pytest.raises(ValueError, match=r"^header_length is 256, but the header has 256 bytes"):
        StrepHeader(CALL, header_length=256, extra=bytes(232)).pack()
    with pytest.raises(ValueError, match=r"^reserved has 5 bytes, expected 6$"):
        StrepHeader(CALL, reserved=bytes(5)).pack()
    with pytest.raises(ValueError, match=r"^version is 16, expected 0 to 15$"):
        StrepHeader(CALL, version=16).pack()


def test_header_does_not_change():
    with pytest.raises(FrozenInstanceError):
        StrepHeader(CALL).leg = Leg.B


def test_directions_have_the_words_of_the_logs():
    assert [direction.label for direction in Direction] == ["inbound", "outbound"]
