from __future__ import annotations

import gzip
import io
import struct
import tracemalloc

import pytest
from capturefile import (
    block,
    datagram,
    enhanced_packet,
    ethernet,
    interface,
    obsolete_packet,
    pcap,
    pcapng,
    section,
    simple_packet,
)
from hypothesis import given
from hypothesis import strategies as st

from strep.receive.frames import MAX_INTERFACES, DamageError, open_frames

NOON_NS = 1_700_000_000_123_456_789
FRAME_A, FRAME_B = b"first frame", b"second"
ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
TSRESOL, TSOFFSET = 9, 14


def open_bytes(content):
    return open_frames(io.BufferedReader(io.BytesIO(content)))


def frames_of(content):
    return list(open_bytes(content).read())


def damage_of(content):
    """What could be read, and the sentence about the rest."""
    frames = []
    with pytest.raises(DamageError) as caught:
        frames.extend(open_bytes(content).read())
    return str(caught.value)


def frames_until_damage(content):
    frames = []
    try:
        for frame in open_bytes(content).read():
            frames.append(frame)  # noqa: PERF402 -- those before the error are wanted
    except DamageError as damage:
        return frames, str(damage)
    return frames, None


@ORDERS
def test_pcap_in_microseconds(order):
    content = pcap([(NOON_NS, FRAME_A), (NOON_NS + 20_000_000, FRAME_B)], order=order)
    assert frames_of(content) == [
        (1, 1_700_000_000_123_456_000, b"first frame"),
        (1, 1_700_000_000_143_456_000, b"second"),
    ]


@ORDERS
def test_pcap_in_nanoseconds(order):
    content = pcap([(NOON_NS, FRAME_A)], order=order, unit_ns=1, link_type=113)
    assert frames_of(content) == [(113, 1_700_000_000_123_456_789, b"first frame")]


def test_pcap_of_the_last_possible_time_fits_64_bits():
    content = pcap([]) + struct.pack("<4I", 0xFFFFFFFF, 0xFFFFFFFF, 1, 1) + b"x"
    assert frames_of(content) == [(1, 4_294_971_589_967_295_000, b"x")]


def test_pcap_frame_check_sequence_flags_are_no_part_of_the_link_type():
    content = bytearray(pcap([(0, FRAME_A)]))
    content[20:24] = struct.pack("<I", 0x24000001)
    assert frames_of(bytes(content)) == [(1, 0, FRAME_A)]


def test_pcap_without_packets_has_none():
    assert frames_of(pcap([])) == []


def test_pcap_keeps_what_the_snaplen_left():
    assert frames_of(pcap([(0, FRAME_A), (0, FRAME_B)], snaplen=7)) == [
        (1, 0, b"first f"),
        (1, 0, b"second"),
    ]


@ORDERS
def test_pcapng_in_microseconds_unless_told_otherwise(order):
    content = pcapng([(NOON_NS, FRAME_A), (NOON_NS, FRAME_B)], order=order, link_type=101)
    assert frames_of(content) == [
        (101, 1_700_000_000_123_456_000, b"first frame"),
        (101, 1_700_000_000_123_456_000, b"second"),
    ]


@ORDERS
@pytest.mark.parametrize(
    ("resolution", "ticks", "arrival_ns"),
    [
        pytest.param(0, 1_700_000_000, 1_700_000_000_000_000_000, id="seconds"),
        pytest.param(3, 1_700_000_000_123, 1_700_000_000_123_000_000, id="milliseconds"),
        pytest.param(9, NOON_NS, NOON_NS, id="nanoseconds"),
        pytest.param(12, 5_123_999, 5_123, id="picoseconds"),
        pytest.param(127, 2**64 - 1, 0, id="the_finest"),
        pytest.param(0x80 | 10, 1025, 1_000_976_562, id="binary_fractions"),
        pytest.param(0x80 | 0, 7, 7_000_000_000, id="binary_seconds"),
    ],
)
def test_pcapng_resolution_of_times(order, resolution, ticks, arrival_ns):
    options = [(1, b"a comment"), (TSRESOL, bytes([resolution]))]
    content = (
        section(order=order)
        + interface(options=options, order=order)
        + enhanced_packet(ticks, FRAME_A, order=order)
    )
    assert frames_of(content) == [(1, arrival_ns, FRAME_A)]


@ORDERS
def test_pcapng_offset_of_times_is_in_signed_seconds(order):
    content = section(order=order)
    for number, offset_s in enumerate([1_700_000_000, -1]):
        option = (TSOFFSET, struct.pack(order + "q", offset_s))
        content += interface(options=[option], order=order)
        content += enhanced_packet(3, FRAME_A, number=number, order=order)
    assert frames_of(content) == [
        (1, 1_700_000_000_000_003_000, FRAME_A),
        (1, -999_997_000, FRAME_A),
    ]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([(0, b""), (TSRESOL, b"\x09")], id="behind_the_end_of_options"),
        pytest.param([(TSRESOL, b"\x09\x09")], id="resolution_of_two_bytes"),
        pytest.param([(TSOFFSET, b"\x09\x09")], id="offset_of_two_bytes"),
    ],
)
def test_pcapng_options_that_do_not_hold_leave_microseconds(options):
    content = section() + interface(options=options) + enhanced_packet(1, FRAME_A)
    assert frames_of(content) == [(1, 1000, FRAME_A)]


def test_pcapng_option_longer_than_its_block_is_passed_over():
    broken = block(1, struct.pack("<HHIHH", 1, 0, 0, TSRESOL, 60000) + b"\x09")
    assert frames_of(section() + broken + enhanced_packet(1, FRAME_A)) == [(1, 1000, FRAME_A)]


@ORDERS
def test_pcapng_obsolete_packets_and_simple_packets(order):
    content = (
        section(order=order)
        + interface(113, order=order)
        + interface(101, options=[(TSRESOL, b"\x09")], order=order)
        + simple_packet(FRAME_A, order=order)
        + obsolete_packet(5, FRAME_A, number=1, order=order)
        + simple_packet(FRAME_B, order=order)
    )
    assert frames_of(content) == [
        (113, 0, FRAME_A),
        (101, 5, FRAME_A),
        (113, 5, FRAME_B),  # without a time of its own
    ]


def test_pcapng_simple_packet_is_as_long_as_the_snaplen_left_it():
    cut = simple_packet(FRAME_A[:7], on_wire=11)
    assert frames_of(section() + interface(snaplen=7) + cut) == [(1, 0, b"first f")]


def test_pcapng_simple_packet_is_no_longer_than_its_block():
    assert frames_of(section() + interface() + simple_packet(b"1234", on_wire=1500)) == [
        (1, 0, b"1234")
    ]


def test_pcapng_sections_have_byte_orders_and_interfaces_of_their_own():
    content = (
        pcapng([(1000, FRAME_A)], order="<", link_type=1)
        + pcapng([(2000, FRAME_B)], order=">", link_type=101)
        + section()
        + enhanced_packet(3, FRAME_A)
    )
    frames, damage = frames_until_damage(content)
    assert frames == [(1, 1000, FRAME_A), (101, 2000, FRAME_B)]
    assert damage == (
        f"the block at byte {len(content) - len(enhanced_packet(3, FRAME_A))} is of interface 0, "
        "expected one of the 0 described so far"
    )


def test_pcapng_unknown_blocks_are_skipped():
    unknown = block(0x0BAD, b"of no concern here") + block(4, bytes(400)) + block(5, b"")
    content = section() + unknown + interface() + unknown + enhanced_packet(1, FRAME_A) + unknown
    assert frames_of(content) == [(1, 1000, FRAME_A)]


def test_pcapng_packet_options_are_no_part_of_the_frame():
    options = struct.pack("<HH", 1, 8) + b"comment!"
    content = section() + interface() + enhanced_packet(1, FRAME_A, options=options)
    assert frames_of(content) == [(1, 1000, FRAME_A)]


def test_link_types_are_those_named_so_far():
    file = open_bytes(section() + interface(1) + enhanced_packet(1, FRAME_A) + interface(127))
    assert file.link_types == set()
    frames = file.read()
    next(frames)
    assert file.link_types == {1}
    assert list(frames) == []
    assert file.link_types == {1, 127}


@pytest.mark.parametrize(
    "content", [pcap([(1000, FRAME_A)]), pcapng([(1000, FRAME_A)])], ids=["pcap", "pcapng"]
)
def test_gzip_is_read_through(content):
    assert frames_of(gzip.compress(content)) == [(1, 1000, FRAME_A)]


def test_gzip_in_several_members_is_one_capture():
    content = pcap([(1000, FRAME_A), (2000, FRAME_B)])
    assert len(frames_of(gzip.compress(content[:30]) + gzip.compress(content[30:]))) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"RIFF....WAVE", "it begins with 52 49 46 46", id="wav"),
        pytest.param(b"\xd4\xc3", "it begins with d4 c3", id="two_bytes"),
        pytest.param(gzip.compress(b"RIFF"), "it begins with 52 49 46 46", id="gzip_of_wav"),
        pytest.param(gzip.compress(b""), "it is empty", id="gzip_of_nothing"),
    ],
)
def test_what_is_no_capture_is_told_with_what_is_expected(content, sentence):
    with pytest.raises(DamageError) as caught:
        open_bytes(content)
    assert str(caught.value) == (
        f"{sentence}, expected pcap or pcapng, plain or compressed by gzip"
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("unit_ns", [1000, 1])
def test_pcap_cut_within_its_header_is_told_at_once(order, unit_ns):
    content = pcap([], order=order, unit_ns=unit_ns)
    for size in range(4, 24):
        with pytest.raises(DamageError) as caught:
            open_bytes(content[:size])
        assert str(caught.value) == (
            f"the file ends at byte {size}, in the middle of the header that begins at byte 0"
        )


@ORDERS
def test_pcapng_cut_within_its_section_header_is_told_at_once(order):
    content = section(order=order)
    for size in range(4, 28):
        with pytest.raises(DamageError) as caught:
            open_bytes(content[:size])
        assert str(caught.value) == (
            f"the file ends at byte {size}, in the middle of the block that begins at byte 0"
        )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(
            pcap([]) + struct.pack("<4I", 0, 0, 262_145, 262_145),
            "the packet at byte 24 has 262145 bytes, expected at most 262144",
            id="pcap_packet",
        ),
        pytest.param(
            pcap([]) + struct.pack("<4I", 0, 0, 0xFFFFFFFF, 1),
            "the packet at byte 24 has 4294967295 bytes, expected at most 262144",
            id="pcap_packet_of_4_GiB",
        ),
        pytest.param(
            section() + struct.pack("<III", 6, 0xFFFFFFFC, 0),
            "the block at byte 28 has 4294967292 bytes, expected at most 1048576",
            id="block_of_4_GiB",
        ),
        pytest.param(
            section() + struct.pack("<III", 0x0BAD, 0xFFFFFFFC, 0),
            "the file ends at byte 40, in the middle of the block that begins at byte 28",
            id="unknown_block_of_4_GiB",
        ),
        pytest.param(
            section() + struct.pack("<III", 6, 0, 0),
            "the block at byte 28 has 0 bytes, expected a multiple of 4 from 32 up",
            id="block_of_0_bytes",
        ),
        pytest.param(
            section() + struct.pack("<III", 0x0BAD, 0, 0),
            "the block at byte 28 has 0 bytes, expected a multiple of 4 from 12 up",
            id="unknown_block_of_0_bytes",
        ),
        pytest.param(
            section() + struct.pack("<III", 0x0BAD, 14, 0),
            "the block at byte 28 has 14 bytes, expected a multiple of 4 from 12 up",
            id="block_of_14_bytes",
        ),
        pytest.param(
            section() + block(6, bytes(12)),
            "the block at byte 28 has 24 bytes, expected a multiple of 4 from 32 up",
            id="packet_without_fields",
        ),
        pytest.param(
            section() + interface()[:-4] + struct.pack("<I", 24),
            "the block at byte 28 ends with 18 00 00 00, expected its length again",
            id="lengths_that_differ",
        ),
        pytest.param(
            section() + interface() + block(6, struct.pack("<5I", 0, 0, 0, 9, 9) + bytes(8)),
            "the block at byte 48 holds a packet of 9 bytes, expected at most 8",
            id="packet_longer_than_its_block",
        ),
        pytest.param(
            section() + interface() + enhanced_packet(0, FRAME_A, number=1),
            "the block at byte 48 is of interface 1, expected one of the 1 described so far",
            id="unknown_interface",
        ),
        pytest.param(
            section() + simple_packet(FRAME_A),
            "the block at byte 28 is of interface 0, expected one of the 0 described so far",
            id="simple_packet_without_interface",
        ),
        pytest.param(
            section() + interface() + enhanced_packet(2**63 // 1000 + 1, FRAME_A),
            "the block at byte 48 has the time 9223372036854776000 ns, expected one of 64 bits",
            id="time_beyond_64_bits",
        ),
        pytest.param(
            section() + struct.pack("<III", 0x0A0D0D0A, 28, 0x12345678),
            "the block at byte 28 has the byte-order magic 78563412, expected 1a2b3c4d",
            id="second_section_without_byte_order",
        ),
    ],
)
def test_damage_is_told_with_its_place(content, sentence):
    assert damage_of(content) == sentence


def test_interfaces_of_a_section_are_capped():
    content = section() + interface() * MAX_INTERFACES
    assert frames_of(content) == []
    assert damage_of(content + interface()) == (
        f"the block at byte {len(content)} describes one more interface, expected at most 65536"
    )


def test_large_unknown_block_is_skipped_without_being_held():
    large = block(0x0BAD, bytes(16 << 20))
    content = gzip.compress(section() + large + interface() + enhanced_packet(1, FRAME_A), 1)
    del large
    tracemalloc.start()
    assert frames_of(content) == [(1, 1000, FRAME_A)]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2 << 20


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("write", [pcap, pcapng])
def test_file_cut_anywhere_gives_all_frames_before_the_cut(write, order):
    frames = [(1000 * n, bytes([n]) * (10 + n)) for n in range(4)]
    head = len(write([], order=order))
    ends = [len(write(frames[:n], order=order)) for n in range(5)]
    content = write(frames, order=order)
    for size in range(head, len(content) + 1):
        found, damage = frames_until_damage(content[:size])
        whole = sum(end <= size for end in ends) - 1
        assert found == [(1, arrival_ns, frame) for arrival_ns, frame in frames[:whole]]
        if size in ends:
            assert damage is None
        else:
            what = "packet" if write is pcap else "block"
            assert damage == (
                f"the file ends at byte {size}, in the middle of the {what} that begins at byte "
                f"{ends[whole]}"
            )


def test_gzip_stream_cut_anywhere_gives_frames_from_the_start_and_says_so():
    frames = [(1000 * n, bytes([n, 255 - n]) * 40) for n in range(20)]
    content = gzip.compress(pcap(frames))
    expected = [(1, arrival_ns, frame) for arrival_ns, frame in frames]
    found_at = []
    for size in range(60, len(content)):
        found, damage = frames_until_damage(content[:size])
        assert found == expected[: len(found)]
        assert damage.startswith(f"the gzip stream breaks off near byte {size} (")
        found_at.append(len(found))
    assert found_at == sorted(found_at)
    assert found_at[-1] == 20


def test_gzip_stream_that_breaks_off_keeps_frames_far_before_the_end():
    frames = [(1000 * n, bytes([n % 251]) * 200) for n in range(20_000)]
    content = gzip.compress(pcap(frames), 1)
    found, damage = frames_until_damage(content[:-9])
    assert len(found) == 20_000
    assert damage.startswith("the gzip stream breaks off near byte ")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda stream: stream[:-8] + bytes(8), id="checksum"),
        pytest.param(lambda stream: stream[:40] + b"\xff" * 40 + stream[80:], id="codes"),
        pytest.param(lambda stream: stream + b"garbage", id="garbage_behind"),
    ],
)
def test_damaged_gzip_stream_is_told(spoil):
    frames = [(1000 * n, bytes([n, 255 - n, n // 2]) * 9) for n in range(50)]
    _, damage = frames_until_damage(spoil(gzip.compress(pcap(frames))))
    assert damage.startswith("the gzip stream breaks off near byte ")


HEADERS = [pcap([], order=order, unit_ns=unit_ns) for order in "<>" for unit_ns in (1000, 1)] + [
    section(order=order) + interface(order=order) for order in "<>"
]


@given(header=st.sampled_from(HEADERS), rest=st.binary(max_size=300))
def test_arbitrary_bytes_behind_a_header_raise_nothing_but_damage(header, rest):
    frames, _ = frames_until_damage(header + rest)
    assert sum(len(frame) for _, _, frame in frames) <= len(rest)


SAMPLE = (
    section()
    + interface(options=[(TSRESOL, b"\x09"), (TSOFFSET, bytes(8))])
    + enhanced_packet(1, ethernet(datagram(b"payload")))
    + obsolete_packet(1, ethernet(datagram(b"payload")))
    + block(0x0BAD, b"unknown")
    + simple_packet(ethernet(datagram(b"payload")))
    + pcapng([(1, FRAME_A)], order=">")
)


@given(
    changes=st.dictionaries(
        st.integers(28, len(SAMPLE) - 1),
        st.integers(0, 255) | st.sampled_from([0, 4, 128, 255]),
        min_size=1,
        max_size=4,
    )
)
def test_changed_bytes_raise_nothing_but_damage(changes):
    content = bytearray(SAMPLE)
    for at, value in changes.items():
        content[at] = value
    frames, _ = frames_until_damage(bytes(content))
    assert all(-(2**63) <= arrival_ns < 2**63 for _, arrival_ns, _ in frames)
