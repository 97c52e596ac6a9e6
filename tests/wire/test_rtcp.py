"""RTCP: what each field is, and that nothing that is sent does harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wirecases import GOODBYE, SENDER_REPORT

from strep.wire import DropReason, WireError
from strep.wire.rtcp import Description, Goodbye, Report, ReportBlock, SenderInfo, parse

BLOCK = bytes.fromhex("0000beef 40fffffe 00010203 00000050 b2c31122 00018000")
RECEIVER_REPORT = bytes.fromhex("81c90007 0a0b0c0d") + BLOCK


def test_a_sender_report_tells_both_clocks_and_what_was_sent():
    assert parse(SENDER_REPORT) == (
        Report(
            ssrc=0x0A0B0C0D,
            sender=SenderInfo(ntp=0xE6A1B2C3_11223344, rtp_timestamp=0xA0, packets=1, octets=0xA0),
            blocks=(),
        ),
    )


def test_a_block_tells_what_arrived():
    assert parse(RECEIVER_REPORT) == (
        Report(
            ssrc=0x0A0B0C0D,
            sender=None,
            blocks=(
                ReportBlock(
                    ssrc=0xBEEF,
                    fraction_lost=0.25,
                    cumulative_lost=-2,
                    highest_sequence=0x10203,
                    jitter=80,
                    last_report=0xB2C31122,
                    since_report_s=1.5,
                ),
            ),
        ),
    )


def test_a_compound_packet_is_taken_apart_in_order():
    packets = parse(SENDER_REPORT + RECEIVER_REPORT + GOODBYE)
    assert [type(packet) for packet in packets] == [Report, Report, Goodbye]


@pytest.mark.parametrize(
    ("chunks", "count", "names"),
    [
        ("0a0b0c0d 0103614062 00 0000", 1, ["a@b"]),
        ("0a0b0c0d 0103614062 0602ff00 00 0000", 1, ["a@b"]),
        ("0a0b0c0d 0101ff 00  0000beef 010163 00", 2, ["\ufffd", "c"]),
        ("0a0b0c0d 00000000", 1, []),
        ("", 0, []),
    ],
)
def test_names_of_sources(chunks, count, names):
    content = bytes.fromhex(chunks)
    packet = struct.pack("!BBH", 0x80 | count, 202, len(content) // 4) + content
    assert [each.cname for each in parse(packet)] == names
    assert all(isinstance(each, Description) for each in parse(packet))


def test_a_goodbye_may_say_why():
    assert parse(GOODBYE) == (Goodbye((0x0A0B0C0D,), ""),)
    assert parse(bytes.fromhex("81cb0002 0a0b0c0d 03627965")) == (Goodbye((0x0A0B0C0D,), "bye"),)
    assert parse(bytes.fromhex("80cb0000")) == (Goodbye((), ""),)


@pytest.mark.parametrize(
    "hexadecimal",
    [
        "80cc0001 00000001",  # APP
        "80cf0002 0a0b0c0d 04000000",  # XR
        "81ce0002 0a0b0c0d 0000beef",  # picture loss indication
        "81c90008 0a0b0c0d 0000beef 00000000 00000000 00000000 00000000 00000000 deadbeef",
    ],
)
def test_what_is_not_known_is_left_alone(hexadecimal):
    assert all(isinstance(each, Report) for each in parse(bytes.fromhex(hexadecimal)))


def test_padding_of_the_last_packet_is_left_out():
    assert parse(bytes.fromhex("a1cb0002 0a0b0c0d 00000004")) == (Goodbye((0x0A0B0C0D,), ""),)


@pytest.mark.parametrize(
    ("hexadecimal", "actual", "required"),
    [
        ("", 0, 4),
        ("80c8", 2, 4),
        ("80c80006 0a0b0c0d", 8, 28),
        ("80c80001 0a0b0c0d", 4, 24),
        ("82c90007" + RECEIVER_REPORT.hex()[8:], 28, 52),
        ("81cb0000", 0, 4),
        ("81cb0002 0a0b0c0d 04627965", 4, 5),
        ("81ce0001 0a0b0c0d", 4, 8),
        ("81ca0000", 0, 4),
        ("81ca0002 0a0b0c0d 01056162", 4, 7),
        ("81ca0002 0a0b0c0d 01026162", 8, 9),
        ("a0cb0001 00000005", 4, 5),
        ("a0cb0001 00000003", 4, 3),
        ("a0cb0000", 0, 0),
    ],
)
def test_what_runs_past_its_end_is_refused_with_both_sizes(hexadecimal, actual, required):
    with pytest.raises(WireError) as caught:
        parse(bytes.fromhex(hexadecimal))
    assert caught.value.reason == DropReason.RTCP
    assert (caught.value.actual, caught.value.required) == (actual, required)


@pytest.mark.parametrize("hexadecimal", ["40c80000", "a0cb0001 00000004" + GOODBYE.hex()])
def test_another_version_and_padding_in_the_middle_are_refused(hexadecimal):
    with pytest.raises(WireError):
        parse(bytes.fromhex(hexadecimal))


def blocks():
    word = st.integers(0, 2**32 - 1)
    return st.lists(st.tuples(*[word] * 6), max_size=31)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), blocks(), st.binary(max_size=8))
def test_reports_come_back_as_they_were_made(ssrc, rows, extension):
    extension += bytes(-len(extension) % 4)
    words = 1 + 6 * len(rows) + len(extension) // 4
    packet = struct.pack("!BBHI", 0x80 | len(rows), 201, words, ssrc)
    packet += b"".join(struct.pack("!6I", *row) for row in rows) + extension
    (report,) = parse(packet)
    assert report.ssrc == ssrc
    assert [(b.ssrc, b.highest_sequence, b.jitter, b.last_report) for b in report.blocks] == [
        (row[0], row[2], row[3], row[4]) for row in rows
    ]
    for block, row in zip(report.blocks, rows, strict=True):
        assert int(block.fraction_lost * 256) == row[1] >> 24
        assert block.cumulative_lost & 0xFFFFFF == row[1] & 0xFFFFFF
        assert -(2**23) <= block.cumulative_lost < 2**23


def harmless(content):
    try:
        packets = parse(content)
    except WireError:
        pass
    else:
        assert sum(len(getattr(each, "cname", "")) for each in packets) <= len(content)


@settings(max_examples=150)
@given(st.binary(max_size=120))
def test_nothing_raises_anything_else(content):
    harmless(content)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 63),
            st.sampled_from([200, 201, 202, 203, 204, 205, 206, 207]),
            st.integers(-1, 1),
            st.binary(max_size=60).map(lambda b: b + bytes(-len(b) % 4)),
        ),
        max_size=4,
    )
)
def test_nor_what_looks_like_rtcp(parts):
    content = b"".join(
        struct.pack("!BBH", 0x80 | count, kind, max(0, len(body) // 4 + more)) + body
        for count, kind, more, body in parts
    )
    harmless(content)
