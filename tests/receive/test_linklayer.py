from __future__ import annotations

import struct

import pytest
from capturefile import (
    DESTINATION,
    DESTINATION_V6,
    SOURCE,
    SOURCE_V6,
    datagram,
    ethernet,
    ethertype,
    ipv4,
    ipv6,
    udp,
)
from hypothesis import given
from hypothesis import strategies as st

from strep.receive import linklayer
from strep.receive.linklayer import LINK_TYPES, NoDatagramError, SkipReason, find_datagram

PAYLOAD = b"forked media"
V4 = datagram(PAYLOAD)
V6 = datagram(PAYLOAD, SOURCE_V6, DESTINATION_V6)

HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION_OPTIONS = 0, 43, 44, 59, 60


def cooked_v1(packet):
    return struct.pack("!HHH8s", 0, 1, 6, b"\x02\0\0\0\0\1") + ethertype(packet) + packet


def cooked_v2(packet):
    return ethertype(packet) + struct.pack("!HIHBB8s", 0, 3, 1, 0, 6, b"\x02\0\0\0\0\1") + packet


def extension(next_header, words=0, fill=b"\xee"):
    """An IPv6 extension header of 8 + 8 * words bytes."""
    return bytes([next_header, words]) + fill * (6 + 8 * words)


def fragment_header(next_header, offset_and_more):
    return struct.pack("!BBHI", next_header, 0xEE, offset_and_more, 7)


def reason_of(link_type, frame):
    with pytest.raises(NoDatagramError) as caught:
        find_datagram(link_type, frame)
    return caught.value.reason


EITHER = [
    (V4, SOURCE, DESTINATION),
    (V6, SOURCE_V6, DESTINATION_V6),
]
FRAMINGS = [
    pytest.param(1, ethernet, id="ethernet"),
    pytest.param(12, bytes, id="raw_12"),
    pytest.param(14, bytes, id="raw_14"),
    pytest.param(101, bytes, id="raw"),
    pytest.param(113, cooked_v1, id="linux_cooked_v1"),
    pytest.param(276, cooked_v2, id="linux_cooked_v2"),
]


@pytest.mark.parametrize(("packet", "source", "destination"), EITHER, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("link_type", "framed"), FRAMINGS)
def test_datagram_is_found_in_every_link_layer(link_type, framed, packet, source, destination):
    assert find_datagram(link_type, framed(packet)) == (
        PAYLOAD, source.pack(), destination.pack(), 12,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("link_type", "family", "packet"),
    [
        pytest.param(0, "02 00 00 00", V4, id="null_little_ipv4"),
        pytest.param(0, "00 00 00 02", V4, id="null_big_ipv4"),
        pytest.param(0, "18 00 00 00", V6, id="null_netbsd_ipv6"),
        pytest.param(0, "1c 00 00 00", V6, id="null_freebsd_ipv6"),
        pytest.param(0, "1e 00 00 00", V6, id="null_macos_ipv6"),
        pytest.param(0, "00 00 00 1e", V6, id="null_big_ipv6"),
        pytest.param(0, "0a 00 00 00", V6, id="null_linux_ipv6"),
        pytest.param(0, "17 00 00 00", V6, id="null_windows_ipv6"),
        pytest.param(108, "00 00 00 02", V4, id="loop_ipv4"),
        pytest.param(108, "00 00 00 18", V6, id="loop_ipv6"),
    ],
)
def test_bsd_loopback_is_read_whatever_the_systems_number_of_the_family(link_type, family, packet):
    payload, _, _, length = find_datagram(link_type, bytes.fromhex(family) + packet)
    assert (payload, length) == (PAYLOAD, 12)


@pytest.mark.parametrize(("link_type", "packet"), [(228, V4), (229, V6)], ids=["ipv4", "ipv6"])
def test_link_types_of_one_ip_version_are_read(link_type, packet):
    assert find_datagram(link_type, packet)[0] == PAYLOAD


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param((0x8100,), id="802.1Q"),
        pytest.param((0x88A8, 0x8100), id="QinQ"),
        pytest.param((0x9100, 0x8100), id="old_QinQ"),
        pytest.param((0x8100,) * 5, id="five"),
    ],
)
@pytest.mark.parametrize("packet", [V4, V6], ids=["ipv4", "ipv6"])
def test_vlan_tags_are_passed_over(tags, packet):
    assert find_datagram(1, ethernet(packet, tags=tags))[0] == PAYLOAD


def test_tag_inside_linux_cooked_is_passed_over():
    frame = bytes(14) + bytes.fromhex("81 00 00 64 08 00") + V4
    assert find_datagram(113, frame)[0] == PAYLOAD


@pytest.mark.parametrize("packet", [V4, V6], ids=["ipv4", "ipv6"])
def test_padding_of_the_frame_stays_out_of_the_datagram(packet):
    payload, _, _, length = find_datagram(1, ethernet(packet, padding=b"\xaa" * 18))
    assert (payload, length) == (PAYLOAD, 12)


def test_bytes_of_the_ip_packet_behind_the_udp_length_stay_out_of_the_datagram():
    assert find_datagram(101, ipv4(udp(PAYLOAD) + b"more"))[0] == PAYLOAD


def test_datagram_without_payload_is_a_datagram():
    assert find_datagram(1, ethernet(datagram(b"")))[0::3] == (b"", 0)


@pytest.mark.parametrize("packet", [V4, V6], ids=["ipv4", "ipv6"])
def test_cut_frame_gives_the_bytes_that_are_there_and_the_length_on_the_wire(packet):
    for missing in range(13):
        payload, _, _, length = find_datagram(1, ethernet(packet)[: -missing or None])
        assert (payload, length) == (PAYLOAD[: 12 - missing], 12)


@pytest.mark.parametrize("packet", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("link_type", "framed"), FRAMINGS)
def test_frame_that_ends_before_its_udp_header_does_is_short(link_type, framed, packet):
    frame = framed(packet)
    for size in range(len(frame) - len(PAYLOAD)):
        assert reason_of(link_type, frame[:size]) is SkipReason.SHORT


def test_short_loopback_frame_is_short():
    assert [reason_of(0, b"\x02\0\0\0"[:size]) for size in range(5)] == [SkipReason.SHORT] * 5


@pytest.mark.parametrize("words", [1, 10])
def test_ipv4_options_are_passed_over(words):
    packet = ipv4(udp(PAYLOAD), options=b"\x01" * 4 * words)
    assert find_datagram(1, ethernet(packet)) == (PAYLOAD, SOURCE.pack(), DESTINATION.pack(), 12)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ipv4(udp(PAYLOAD), flags_and_offset=0x2000), id="first_ipv4"),
        pytest.param(ipv4(udp(PAYLOAD), flags_and_offset=0x2001), id="middle_ipv4"),
        pytest.param(ipv4(udp(PAYLOAD), flags_and_offset=0x0001), id="last_ipv4"),
        pytest.param(ipv6(fragment_header(17, 1) + udp(PAYLOAD), next_header=44), id="first_ipv6"),
        pytest.param(ipv6(fragment_header(17, 8) + udp(PAYLOAD), next_header=44), id="last_ipv6"),
    ],
)
def test_fragment_is_no_datagram(packet):
    assert reason_of(1, ethernet(packet)) is SkipReason.FRAGMENT


def test_reserved_bit_and_dont_fragment_are_no_fragment():
    assert find_datagram(101, ipv4(udp(PAYLOAD), flags_and_offset=0xC000))[0] == PAYLOAD


@pytest.mark.parametrize(
    ("next_header", "headers"),
    [
        pytest.param(HOP_BY_HOP, extension(17), id="hop_by_hop"),
        pytest.param(ROUTING, extension(17, words=2), id="routing"),
        pytest.param(DESTINATION_OPTIONS, extension(17, words=1), id="destination_options"),
        pytest.param(FRAGMENT, fragment_header(17, 0), id="atomic_fragment"),
        pytest.param(
            HOP_BY_HOP,
            extension(DESTINATION_OPTIONS)
            + extension(ROUTING, words=3)
            + extension(FRAGMENT)
            + fragment_header(DESTINATION_OPTIONS, 0)
            + extension(17),
            id="all",
        ),
    ],
)
def test_ipv6_extension_headers_are_passed_over(next_header, headers):
    packet = ipv6(headers + udp(PAYLOAD), next_header=next_header)
    assert find_datagram(1, ethernet(packet)) == (
        PAYLOAD, SOURCE_V6.pack(), DESTINATION_V6.pack(), 12,
    )  # fmt: skip


def test_ipv6_extension_header_that_runs_past_the_end_is_short():
    packet = ipv6(extension(17, words=255)[:8] + udp(PAYLOAD), next_header=HOP_BY_HOP)
    assert reason_of(101, packet) is SkipReason.SHORT


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ipv4(bytes(20), protocol=6), id="tcp_ipv4"),
        pytest.param(ipv4(bytes(8) + V4, protocol=1), id="icmp_that_quotes_udp"),
        pytest.param(ipv6(bytes(20), next_header=6), id="tcp_ipv6"),
        pytest.param(ipv6(extension(NO_NEXT), next_header=NO_NEXT), id="no_next_header"),
        pytest.param(ipv6(extension(6) + bytes(20), next_header=0), id="tcp_behind_options"),
    ],
)
def test_other_transport_is_not_udp(packet):
    assert reason_of(1, ethernet(packet)) is SkipReason.NOT_UDP


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(1, bytes(12) + b"\x08\x06" + bytes(28), id="arp"),
        pytest.param(1, bytes(12) + b"\x00\x26" + bytes(3), id="short_802.3_length"),
        pytest.param(1, bytes(12) + b"\x81\x00\x00\x64\x08\x06" + bytes(28), id="arp_in_vlan"),
        pytest.param(113, bytes(14) + b"\x00\x04" + bytes(28), id="cooked_802.2"),
        pytest.param(276, b"\x08\x06" + bytes(46), id="cooked_v2_arp"),
        pytest.param(0, b"\x07\0\0\0" + bytes(28), id="null_osi"),
        pytest.param(108, b"\0\0\0\x07" + bytes(28), id="loop_osi"),
    ],
)
def test_other_network_layer_is_not_ip(link_type, frame):
    assert reason_of(link_type, frame) is SkipReason.NOT_IP


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        pytest.param(101, b"\x50" + V4[1:], id="version_5"),
        pytest.param(1, ethernet(V4).replace(b"\x08\0\x45", b"\x08\0\x65"), id="ipv4_says_6"),
        pytest.param(1, ethernet(V6).replace(b"\x86\xdd\x60", b"\x86\xdd\x40"), id="ipv6_says_4"),
        pytest.param(101, b"\x44" + V4[1:], id="ipv4_header_of_16_bytes"),
        pytest.param(101, ipv4(udp(PAYLOAD, length=7)), id="udp_length_7"),
        pytest.param(101, ipv4(udp(PAYLOAD, length=0)), id="udp_length_0"),
        pytest.param(101, ipv4(udp(PAYLOAD, length=21)), id="udp_longer_than_ipv4"),
        pytest.param(101, ipv4(udp(PAYLOAD), total_length=19), id="total_length_19"),
        pytest.param(101, ipv6(udp(PAYLOAD, length=21)), id="udp_longer_than_ipv6"),
        pytest.param(101, ipv6(udp(PAYLOAD), payload_length=19), id="payload_length_19"),
        pytest.param(
            101, ipv6(extension(17) + udp(PAYLOAD), next_header=0, payload_length=20),
            id="extension_header_beside_the_payload_length",
        ),
    ],
)  # fmt: skip
def test_contradicting_headers_are_malformed(link_type, frame):
    assert reason_of(link_type, frame) is SkipReason.MALFORMED


@pytest.mark.parametrize(
    "packet",
    [ipv4(udp(PAYLOAD), total_length=0), ipv6(udp(PAYLOAD), payload_length=0)],
    ids=["ipv4", "ipv6"],
)
def test_ip_length_left_to_the_network_card_is_not_held_against_the_datagram(packet):
    assert find_datagram(1, ethernet(packet))[0] == PAYLOAD


def test_unknown_link_type_is_told():
    assert reason_of(127, ethernet(V4)) is SkipReason.LINK_TYPE


def test_reasons_are_these_words():
    assert [reason.value for reason in SkipReason] == [
        "not_ip", "not_udp", "fragment", "short", "malformed", "link_type",
    ]  # fmt: skip


def result_of(function, *arguments):
    try:
        return function(*arguments)
    except NoDatagramError as error:
        return error.reason


@given(link_type=st.sampled_from(sorted(LINK_TYPES)), frame=st.binary(max_size=120))
def test_arbitrary_frames_raise_nothing_but_no_datagram(link_type, frame):
    result_of(find_datagram, link_type, frame)


@given(
    changes=st.dictionaries(st.integers(12, 53), st.integers(0, 255), max_size=3),
    size=st.integers(42, 54),
)
def test_ordinary_frame_is_read_in_one_look_as_it_is_layer_by_layer(changes, size):
    frame = bytearray(ethernet(V4)[:size])
    for at, value in changes.items():
        frame[at % size] = value
    frame = bytes(frame)
    try:
        expected = result_of(linklayer._by_ethertype, frame, 12, 14)
    except struct.error:
        expected = SkipReason.SHORT
    assert result_of(find_datagram, 1, frame) == expected
