from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wirecases import ACCEPTED, CALL, CASES, EVERYTHING, RTP, SPEECH, STREP, strep

from strep.wire import Direction, DropReason, Kind, Leg, RtpHeader, StrepHeader, WireError
from strep.wire.datagram import Datagram, classify

DENIED = [case for case in CASES if case.reason != DropReason.ACCEPTED]


def name(case):
    return case.name


def refused(datagram, length_bytes=None):
    with pytest.raises(WireError) as caught:
        Datagram.parse(datagram, length_bytes=length_bytes)
    return caught.value


@pytest.mark.parametrize("case", ACCEPTED, ids=name)
def test_accepted_datagram_gives_its_payload(case):
    parsed = Datagram.parse(case.datagram, length_bytes=case.length_bytes)
    assert parsed.payload == case.payload
    assert (parsed.strep is None) == (case.kind == Kind.RTP)
    assert classify(case.datagram) == case.kind


@pytest.mark.parametrize("case", DENIED, ids=name)
def test_denied_datagram_gives_reason_and_sizes(case):
    error = refused(case.datagram, case.length_bytes)
    assert (error.reason, error.actual, error.required) == (
        case.reason, case.actual, case.required,
    )  # fmt: skip
    assert classify(case.datagram) == case.kind


def test_every_reason_of_the_wire_has_a_case():
    of_tracks = {
        DropReason.TRACKS_FULL,
        DropReason.STRAY,
        DropReason.UNKNOWN_LEG,
        DropReason.DRAINING,
        DropReason.OTHER_SOURCE,
        DropReason.SOURCE_NOT_ALLOWED,
        DropReason.TOO_MANY_NEW,
    }
    assert {case.reason for case in CASES} == set(DropReason) - of_tracks


def test_both_headers_are_read():
    parsed = Datagram.parse(b"\xc7" + STREP[1:] + RTP + SPEECH)
    assert parsed.strep == StrepHeader(CALL, Leg.B, Direction.OUTBOUND)
    assert parsed.rtp == RtpHeader(0, 0x0102, 0x03040506, 0x0A0B0C0D)
    assert parsed.payload == SPEECH


def test_plain_rtp_has_no_strep_header():
    parsed = Datagram.parse(RTP + SPEECH)
    assert parsed.strep is None
    assert parsed.rtp == RtpHeader(0, 0x0102, 0x03040506, 0x0A0B0C0D)


def test_payload_is_a_view():
    datagram = bytearray(STREP + RTP + b"\1")
    payload = Datagram.parse(datagram).payload
    datagram[36] = 2
    assert payload[0] == 2


@pytest.mark.parametrize(
    ("datagram", "length_bytes", "sentence"),
    [
        (b"", None, "an empty datagram"),
        (b"SIP/2.0 200 OK", None, "SIP, expected STREP or RTP"),
        (bytes(4), None, "T38, expected STREP or RTP"),
        (RTP, 172, "only 12 of the datagram's 172 bytes are there"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(datagram, length_bytes, sentence):
    assert str(refused(datagram, length_bytes)) == sentence


WHOLE = strep(EVERYTHING, extra=b"\x11\x22\x33\x44")


def expected_reason(length):
    """Why the first `length` bytes of `WHOLE` are not accepted as a datagram of that length.

    STREP 28, RTP 12, two CSRCs 8, extension 8, payload 4, padding 3.
    """
    if length < 28 + 12:
        return DropReason.SHORT
    if length < 28 + 12 + 8:
        return DropReason.CSRC
    if length < 28 + 12 + 8 + 8:
        return DropReason.EXTENSION
    return DropReason.PADDING


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_datagram_that_ends_early_says_which_part_is_cut(length):
    assert len(WHOLE) == 63
    assert refused(WHOLE[:length]).reason == expected_reason(length)


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_datagram_of_which_not_all_is_there_is_truncated(length):
    error = refused(WHOLE[:length], length_bytes=63)
    assert (error.reason, error.actual, error.required) == (DropReason.TRUNCATED, length, 63)


def test_a_whole_datagram_of_its_own_length_is_accepted():
    assert Datagram.parse(WHOLE, length_bytes=63).payload == SPEECH


def test_labels_are_the_names_in_small_letters():
    assert [kind.label for kind in Kind] == ["strep", "rtp", "rtcp", "t38", "sip", "other"]
    assert [reason.label for reason in DropReason] == [
        "accepted", "short", "truncated", "strep_version", "header_length", "rtp_version", "csrc",
        "extension", "padding", "rtcp", "t38", "sip", "other", "tracks_full",
        "stray", "unknown_leg", "draining", "other_source", "source_not_allowed", "too_many_new",
    ]  # fmt: skip


@given(st.binary(max_size=100), st.none() | st.integers(0, 200))
def test_nothing_but_wire_errors_is_raised_on_any_bytes(datagram, length_bytes):
    with suppress(WireError):
        parsed = Datagram.parse(datagram, length_bytes=length_bytes)
        assert classify(datagram) in {Kind.STREP, Kind.RTP}
        assert parsed.rtp.payload_type not in range(64, 96)
