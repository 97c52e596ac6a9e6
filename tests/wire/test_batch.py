from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wirecases import (
    BINDING_REQUEST,
    CALL,
    CASES,
    CLIENT_HELLO,
    EVERYTHING,
    GOODBYE,
    RTP,
    SENDER_REPORT,
    SPEECH,
    STALE,
    STREP,
    columnar,
    make_stale,
    parsed_batch,
    rtp,
    scalar,
    strep,
)

from strep.wire import DropReason, Endpoint, Kind, PacketBatch

pytestmark = pytest.mark.usefixtures("kernel")

ORDINARY = STREP + RTP + SPEECH
SLOT_BYTES = 512


def name(case):
    return case.name


@pytest.mark.parametrize("case", CASES, ids=name)
def test_datagram_alone_in_its_batch(case):
    batch = parsed_batch([(case.datagram, case.length_bytes)])
    (outcome,) = columnar(batch)
    assert (outcome["kind"], outcome["reason"]) == (case.kind, case.reason)
    assert outcome.get("payload") == case.payload
    assert outcome == scalar(case.datagram, case.length_bytes)


@pytest.mark.parametrize("order", [CASES, CASES[::-1]], ids=["in order", "reversed"])
def test_all_datagrams_in_one_batch(order):
    batch = parsed_batch([(case.datagram, case.length_bytes) for case in order])
    assert [(o["kind"], o["reason"], o.get("payload")) for o in columnar(batch)] == [
        (case.kind, case.reason, case.payload) for case in order
    ]


WHOLE = strep(EVERYTHING, extra=b"\x11\x22\x33\x44")


@pytest.mark.parametrize("whole", [WHOLE, ORDINARY, EVERYTHING, RTP + SPEECH], ids=len)
def test_columnar_equals_scalar_at_every_length(whole):
    beginnings = [(whole[:length], None) for length in range(len(whole) + 1)]
    beginnings += [(whole[:length], len(whole)) for length in range(len(whole) + 1)]
    assert columnar(parsed_batch(beginnings)) == [scalar(*beginning) for beginning in beginnings]


@pytest.mark.parametrize("behind", [WHOLE[2:], RTP[2:], b""], ids=["long", "short", "none"])
def test_columnar_equals_scalar_for_every_first_and_second_byte(behind):
    for first in range(256):
        datagrams = [(bytes([first, second]) + behind, None) for second in range(256)]
        assert columnar(parsed_batch(datagrams)) == [scalar(*d) for d in datagrams]


def mutated(packet, changes, end):
    changed = bytearray(packet)
    for position, value in changes:
        changed[position % len(packet)] = value
    return bytes(changed[:end])


PACKETS = st.sampled_from(
    [
        ORDINARY,
        WHOLE,
        EVERYTHING,
        RTP + SPEECH,
        strep(rtp(SPEECH * 3, extension=(1, bytes(8)))),
        strep(rtp(SPEECH, csrcs=range(15), padding=b"\0\2")),
        rtp(SPEECH, padding=b"\0\0\3"),
        strep(bytes.fromhex("80c80006") + bytes(24)),
    ]
)
MUTATED = st.builds(
    mutated,
    PACKETS,
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    st.none() | st.integers(0, 64),
)
LONG = st.builds(
    lambda packet, length: (packet + bytes(length))[:length], PACKETS, st.integers(500, 520)
)
ANY_DATAGRAM = st.one_of(st.binary(max_size=100), MUTATED, MUTATED, LONG)
LENGTHS = st.one_of(st.none(), st.none(), st.integers(0, 600))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(ANY_DATAGRAM, LENGTHS), max_size=40))
def test_columnar_equals_scalar_on_anything(datagrams):
    # on the wire a datagram is never shorter than what there is of it
    datagrams = [(d, None if n is None else max(n, len(d))) for d, n in datagrams]
    expected = []
    for datagram, length_bytes in datagrams:
        length = len(datagram) if length_bytes is None else length_bytes
        expected.append(scalar(datagram[:SLOT_BYTES], length))
    assert columnar(parsed_batch(datagrams, slot_bytes=SLOT_BYTES)) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(ANY_DATAGRAM, min_size=1, max_size=20), st.lists(ANY_DATAGRAM, max_size=20))
def test_a_reused_batch_knows_nothing_of_what_it_held(before, now):
    batch = PacketBatch(20, SLOT_BYTES)
    for datagrams in (before, now):
        batch.clear()
        for datagram in datagrams:
            batch.add(datagram, 0)
        batch.parse()
    assert columnar(batch) == columnar(parsed_batch([(d, None) for d in now]))


@pytest.mark.parametrize(
    "whole",
    [WHOLE, ORDINARY, EVERYTHING, BINDING_REQUEST, CLIENT_HELLO, SENDER_REPORT, strep(GOODBYE)],
    ids=["longer", "ordinary", "plain", "stun", "dtls", "rtcp", "rtcp in strep"],
)
def test_the_rest_of_a_longer_datagram_in_the_same_slot_is_not_read(whole):
    batch = PacketBatch(len(whole), SLOT_BYTES)
    beginnings = [whole[:length] for length in range(len(whole))]
    for datagrams in ([whole] * len(whole), beginnings):
        batch.clear()
        for datagram in datagrams:
            batch.add(datagram, 0)
        batch.parse()
    assert columnar(batch) == [scalar(beginning) for beginning in beginnings]


def test_a_full_slot_is_whole_and_one_byte_more_is_truncated():
    whole = (ORDINARY + bytes(600))[:SLOT_BYTES]
    batch = parsed_batch([(whole, None), (whole + b"\0", None)], slot_bytes=SLOT_BYTES)
    assert batch.reason.tolist() == [DropReason.ACCEPTED, DropReason.TRUNCATED]
    assert batch.payload_bytes[0] == SLOT_BYTES - 36
    assert batch.length_bytes.tolist() == [512, 513]
    assert [len(batch.datagram(row)) for row in (0, 1)] == [512, 512]


def test_only_ordinary_datagrams_take_the_short_way():
    batch = PacketBatch(3, SLOT_BYTES)
    batch.add(ORDINARY, 0)
    batch.add(b"\xc7" + ORDINARY[1:], 0)
    assert batch.parse() is True
    batch.add(strep(rtp(csrcs=(1,))), 0)
    assert batch.parse() is False
    assert batch.reason.tolist() == [0, 0, 0]


def test_nothing_parses_to_nothing():
    batch = PacketBatch(1, SLOT_BYTES)
    assert batch.parse() is True
    assert batch.rtp("ssrc").tolist() == []
    assert columnar(batch) == []


def test_columns_hold_every_field():
    batch = parsed_batch([(WHOLE, None), (EVERYTHING, None), (b"\xc6" + ORDINARY[1:], None)])
    assert batch.kind.tolist() == [Kind.STREP, Kind.RTP, Kind.STREP]
    assert batch.strep("header_length")[[0, 2]].tolist() == [28, 24]
    assert batch.strep("leg")[[0, 2]].tolist() == [0, 1]
    assert batch.strep("direction")[[0, 2]].tolist() == [0, 0]
    assert batch.rtp("version").tolist() == [2, 2, 2]
    assert batch.rtp("padding").tolist() == [1, 1, 0]
    assert batch.rtp("extension").tolist() == [1, 1, 0]
    assert batch.rtp("csrc_count").tolist() == [2, 2, 0]
    assert batch.rtp("marker").tolist() == [1, 1, 0]
    assert batch.rtp("payload_type").tolist() == [8, 8, 0]
    assert batch.rtp("sequence").tolist() == [0x0102] * 3
    assert batch.rtp("timestamp").tolist() == [0x03040506] * 3
    assert batch.rtp("ssrc").tolist() == [0x0A0B0C0D] * 3
    assert batch.payload_offset.tolist() == [56, 28, 36]
    assert batch.payload_bytes.tolist() == [4, 4, 4]
    assert [batch.leg_id(row) for row in (0, 2)] == [CALL, CALL]


def test_call_leg_id_is_two_words_in_memory_order():
    batch = parsed_batch([(ORDINARY, None)])
    assert batch.call_leg_id[:, 0].tobytes() == CALL.bytes
    assert batch.call_leg_id.dtype == np.uint64


def test_unknown_field_is_a_key_error():
    batch = parsed_batch([(ORDINARY, None)])
    with pytest.raises(KeyError, match="loss"):
        batch.rtp("loss")
    with pytest.raises(KeyError, match="ssrc"):
        batch.strep("ssrc")


def test_what_is_added_stands_in_its_slot():
    batch = PacketBatch(2, SLOT_BYTES)
    make_stale(batch)
    source, destination = Endpoint.of("192.0.2.1", 4000), Endpoint.of("2001:db8::2", 5000)
    batch.add(b"abc", 17, source.pack(), destination.pack())
    batch.add(memoryview(b"defg"), 18, length_bytes=99)
    assert batch.count == 2
    assert batch.length_bytes.tolist() == [3, 99]
    assert batch.arrival_ns.tolist() == [17, 18]
    assert batch.source[0].tobytes() == source.pack()
    assert batch.destination[0].tobytes() == destination.pack()
    assert batch.source[1].tobytes() == batch.destination[1].tobytes() == bytes(24)
    assert [bytes(batch.datagram(row)) for row in (0, 1)] == [b"abc", b"defg"]
    assert (batch.buffer[0, 3:] == STALE).all()


def test_full_batch_takes_no_more():
    batch = PacketBatch(1, SLOT_BYTES)
    batch.add(b"a", 0)
    with pytest.raises(IndexError):
        batch.add(b"b", 0)
    assert (batch.count, bytes(batch.datagram(0))) == (1, b"a")


def test_cleared_batch_begins_anew():
    batch = PacketBatch(1, SLOT_BYTES)
    batch.add(b"a", 0)
    batch.clear()
    assert batch.count == 0
    batch.add(b"b", 0)
    assert bytes(batch.datagram(0)) == b"b"


@pytest.mark.parametrize(
    ("capacity", "slot_bytes", "message"),
    [
        (0, 512, "capacity is 0, expected at least 1"),
        (1, 511, "slot_bytes is 511, expected a multiple of 8 from 512 up"),
        (1, 504, "slot_bytes is 504, expected a multiple of 8 from 512 up"),
        (1, 516, "slot_bytes is 516, expected a multiple of 8 from 512 up"),
    ],
)
def test_batch_of_an_impossible_size_is_refused(capacity, slot_bytes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        PacketBatch(capacity, slot_bytes)


def test_slots_hold_60_ms_of_g711_with_both_headers_and_all_csrcs_by_default():
    batch = PacketBatch()
    assert batch.capacity == 2048
    assert batch.slot_bytes == 24 + 12 + 15 * 4 + 480
