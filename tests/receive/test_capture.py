from __future__ import annotations

import gzip
import os
import threading

import pytest
from capturefile import (
    DESTINATION,
    SOURCE,
    datagram,
    enhanced_packet,
    ethernet,
    interface,
    ipv4,
    pcap,
    pcapng,
    section,
    udp,
)
from hypothesis import given
from hypothesis import strategies as st

from strep.receive.capture import CaptureError, CaptureReader
from strep.wire.batch import PacketBatch
from strep.wire.classify import DropReason
from strep.wire.endpoint import Endpoint

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000
TCP = ethernet(ipv4(bytes(20), protocol=6))
ARP = bytes(12) + b"\x08\x06" + bytes(46)


def frame(payload):
    return ethernet(datagram(payload))


def paced(payloads, step_ns=20 * MS):
    """(arrival_ns, frame) of each payload, one every `step_ns`."""
    return [(START_NS + n * step_ns, frame(payload)) for n, payload in enumerate(payloads)]


@pytest.fixture
def capture(tmp_path):
    """Write a capture file, return its path."""

    def write(content, name="call.pcap"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def rows_of(batch):
    return [
        (bytes(batch.buffer[row, : batch.length_bytes[row]]), int(batch.arrival_ns[row]))
        for row in range(batch.count)
    ]


def read_all(reader, batch=None):
    """Read to the end; return one list of (payload, arrival_ns) per batch."""
    batch = batch or PacketBatch()
    batches = []
    while count := reader.read(batch):
        assert count == batch.count
        batches.append(rows_of(batch))
    assert reader.exhausted
    return batches


def payloads_of(path):
    with CaptureReader(path) as reader:
        return [payload for batch in read_all(reader) for payload, _ in batch], reader


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(pcap, id="pcap"),
        pytest.param(pcapng, id="pcapng"),
        pytest.param(lambda frames: gzip.compress(pcap(frames)), id="pcap.gz"),
        pytest.param(lambda frames: gzip.compress(pcapng(frames)), id="pcapng.gz"),
    ],
)
def test_datagrams_come_with_time_and_addresses(capture, write):
    batch = PacketBatch()
    with CaptureReader(capture(write(paced([b"one", b"three"])))) as reader:
        assert reader.read(batch) == 2
        assert rows_of(batch) == [(b"one", START_NS), (b"three", START_NS + 20 * MS)]
        assert batch.length_bytes[:2].tolist() == [3, 5]
        assert [Endpoint.unpack(batch.source[row].tobytes()) for row in range(2)] == [SOURCE] * 2
        assert Endpoint.unpack(batch.destination[1].tobytes()) == DESTINATION
        assert reader.read(batch) == 0
        assert batch.count == 0
        assert (reader.exhausted, reader.datagrams, reader.skipped) == (True, 2, {})
        assert reader.cut is None


def test_addresses_of_ipv6_are_kept(capture):
    source, destination = Endpoint.of("2001:db8::7", 16384), Endpoint.of("2001:db8::8", 16386)
    path = capture(pcap([(0, ethernet(datagram(b"v6", source, destination)))]))
    batch = PacketBatch()
    with CaptureReader(path) as reader:
        reader.read(batch)
    assert Endpoint.unpack(batch.source[0].tobytes()) == source
    assert Endpoint.unpack(batch.destination[0].tobytes()) == destination


def test_batch_ends_at_its_capacity(capture):
    payloads = [bytes([n]) for n in range(7)]
    with CaptureReader(capture(pcap(paced(payloads)))) as reader:
        batches = read_all(reader, PacketBatch(capacity=3))
    assert [[payload for payload, _ in batch] for batch in batches] == [
        [b"\0", b"\1", b"\2"],
        [b"\3", b"\4", b"\5"],
        [b"\6"],
    ]


def test_batch_holds_nothing_later_than_the_window_after_its_first(capture):
    payloads = [bytes([n]) for n in range(5)]
    path = capture(pcap(paced(payloads, 20 * MS)))
    with CaptureReader(path, window_ns=40 * MS) as reader:
        batches = read_all(reader)
    assert [[payload for payload, _ in batch] for batch in batches] == [
        [b"\0", b"\1", b"\2"],
        [b"\3", b"\4"],
    ]


def test_datagram_behind_the_window_counts_when_it_is_handed_out(capture):
    path = capture(pcap(paced([b"a", b"b"], 60_000 * MS)))
    batch = PacketBatch()
    with CaptureReader(path) as reader:
        assert (reader.read(batch), reader.datagrams, reader.exhausted) == (1, 1, False)
        assert (reader.read(batch), reader.datagrams) == (1, 2)
        assert rows_of(batch) == [(b"b", START_NS + 60_000 * MS)]


def test_times_that_step_back_are_kept_as_they_are(capture):
    times_ns = [START_NS, START_NS - 5 * MS, START_NS + 1 * MS, START_NS - 3_600_000 * MS]
    path = capture(pcap([(time_ns, frame(b"x")) for time_ns in times_ns]))
    with CaptureReader(path) as reader:
        (batch,) = read_all(reader)
    assert [arrival_ns for _, arrival_ns in batch] == times_ns


def test_frames_without_datagram_are_counted_by_reason(capture):
    frames = [
        TCP, frame(b"kept"), ARP, ARP, ethernet(ipv4(udp(b"x"), flags_and_offset=0x2000)),
        ethernet(ipv4(udp(b"x", length=3))), b"short",
    ]  # fmt: skip
    payloads, reader = payloads_of(capture(pcap([(START_NS, each) for each in frames])))
    assert payloads == [b"kept"]
    assert reader.datagrams == 1
    assert reader.skipped == {"not_udp": 1, "not_ip": 2, "fragment": 1, "malformed": 1, "short": 1}


def test_capture_without_datagrams_is_read_to_its_end(capture):
    payloads, reader = payloads_of(capture(pcap([(START_NS, TCP)] * 3)))
    assert (payloads, reader.skipped, reader.cut) == ([], {"not_udp": 3}, None)


def test_frames_of_one_unknown_interface_among_known_ones_are_counted(capture):
    content = (
        section()
        + interface(127)
        + interface(1)
        + enhanced_packet(1, b"802.11", number=0)
        + enhanced_packet(1, frame(b"kept"), number=1)
    )
    payloads, reader = payloads_of(capture(content))
    assert (payloads, reader.skipped) == ([b"kept"], {"link_type": 1})


def test_datagram_cut_by_the_snaplen_has_its_length_on_the_wire(capture):
    path = capture(pcap([(START_NS, frame(bytes(range(160))))], snaplen=42 + 100))
    batch = PacketBatch()
    with CaptureReader(path) as reader:
        reader.read(batch)
    assert bytes(batch.buffer[0, :100]) == bytes(range(100))
    assert batch.length_bytes[0] == 160


def test_datagram_cut_by_the_snaplen_is_never_audio(capture):
    rtp = bytes.fromhex("80 00 00 01  00 00 00 a0  01 02 03 04") + bytes(160)
    path = capture(pcap([(START_NS, frame(rtp))], snaplen=42 + 100))
    batch = PacketBatch()
    with CaptureReader(path) as reader:
        reader.read(batch)
    batch.parse()
    assert DropReason(batch.reason[0]) is DropReason.TRUNCATED


def test_datagram_larger_than_the_slot_has_its_length_on_the_wire(capture):
    path = capture(pcap([(START_NS, frame(b"\x80" * 1500))]))
    batch = PacketBatch(slot_bytes=512)
    with CaptureReader(path) as reader:
        reader.read(batch)
    assert bytes(batch.buffer[0]) == b"\x80" * 512
    assert batch.length_bytes[0] == 1500


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("write", [pcap, pcapng])
def test_capture_cut_anywhere_keeps_what_came_before_and_says_where(capture, write, order):
    frames = paced([b"a", b"bb", b"ccc"])
    ends = [len(write(frames[:n], order=order)) for n in range(4)]
    content = write(frames, order=order)
    for size in range(ends[0], ends[-1] + 1):
        path = capture(content[:size])
        payloads, reader = payloads_of(path)
        whole = sum(end <= size for end in ends) - 1
        assert payloads == [b"a", b"bb", b"ccc"][:whole]
        if size in ends:
            assert reader.cut is None
        else:
            what = "packet" if write is pcap else "block"
            frames_word = "frame" if whole == 1 else "frames"
            assert reader.cut == (
                f"{path}, after {whole} {frames_word}: the file ends at byte {size}, "
                f"in the middle of the {what} that begins at byte {ends[whole]}"
            )


def test_frames_before_the_cut_include_those_without_datagram(capture):
    path = capture(pcap([(START_NS, TCP), (START_NS, frame(b"a")), (START_NS, TCP)])[:-1])
    _, reader = payloads_of(path)
    assert reader.cut.startswith(f"{path}, after 2 frames: the file ends at byte ")


def test_gzip_stream_cut_in_the_middle_keeps_what_came_before(capture):
    payloads = [os.urandom(100) for _ in range(100)]
    path = capture(gzip.compress(pcap(paced(payloads)))[:9000])
    found, reader = payloads_of(path)
    assert found == payloads[: len(found)]
    assert len(found) > 50
    assert reader.cut.startswith(
        f"{path}, after {len(found)} frames: the gzip stream breaks off near byte 9000 ("
    )


def test_error_of_the_disk_ends_the_capture_and_is_told(capture, tmp_path):
    path = capture(pcap(paced([bytes(1000)] * 400)))  # more than is read at once
    folder = os.open(tmp_path, os.O_RDONLY)
    with CaptureReader(path) as reader:
        os.dup2(folder, reader._file.fileno())  # a folder cannot be read
        os.close(folder)
        assert sum(map(len, read_all(reader))) == 247
        assert reader.cut == f"{path}, after 247 frames: Is a directory"


def test_progress_goes_from_0_to_1_by_what_was_read_of_the_file(capture):
    content = pcap(paced([b"0123456789"] * 10))
    batch = PacketBatch(capacity=5)
    with CaptureReader(capture(content)) as reader:
        assert reader.progress == 24 / len(content)
        reader.read(batch)
        assert reader.progress == (24 + 5 * 68) / len(content)
        reader.read(batch)
        assert reader.progress == 1.0
        assert not reader.exhausted
        assert reader.read(batch) == 0
    assert reader.progress == 1.0


def test_progress_of_a_compressed_capture_stays_within_0_and_1(capture):
    path = capture(gzip.compress(pcap(paced([os.urandom(500) for _ in range(2000)]))))
    batch = PacketBatch()
    progress = []
    with CaptureReader(path) as reader:
        while reader.read(batch):
            progress.append(reader.progress)
    assert progress == sorted(progress)
    assert 0 < progress[0] < 0.5
    assert reader.progress == 1.0


def test_pipe_is_read_without_progress_until_its_end(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = pcap(paced([b"a", b"b"]))
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    with CaptureReader(path) as reader:
        assert reader.progress == 0.0
        (batch,) = read_all(reader)
        assert reader.progress == 1.0
    writer.join()
    assert [payload for payload, _ in batch] == [b"a", b"b"]


def test_missing_capture_is_told(tmp_path):
    path = tmp_path / "none.pcap"
    with pytest.raises(CaptureError) as caught:
        CaptureReader(path)
    assert str(caught.value) == f"cannot read capture {path}: No such file or directory"


def test_folder_in_place_of_a_capture_is_told(tmp_path):
    with pytest.raises(CaptureError) as caught:
        CaptureReader(tmp_path)
    assert str(caught.value) == f"cannot read capture {tmp_path}: Is a directory"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(
            b"not a capture",
            "it begins with 6e 6f 74 20, expected pcap or pcapng, plain or compressed by gzip",
            id="text",
        ),
        pytest.param(
            b"",
            "it is empty, expected pcap or pcapng, plain or compressed by gzip",
            id="empty",
        ),
        pytest.param(
            pcap([])[:20],
            "the file ends at byte 20, in the middle of the header that begins at byte 0",
            id="cut_within_the_header",
        ),
        pytest.param(
            pcap([(0, b"x")], link_type=127),
            "it has link type 127, expected Ethernet (1), raw IP (12, 14, 101, 228, 229), "
            "Linux cooked (113, 276) or BSD loopback (0, 108)",
            id="unknown_link_type",
        ),
    ],
)
def test_what_is_no_capture_for_us_is_told_at_once(capture, content, why):
    path = capture(content)
    with pytest.raises(CaptureError) as caught:
        CaptureReader(path)
    assert str(caught.value) == f"cannot read capture {path}: {why}"


def test_pcapng_of_unknown_link_types_only_is_told_at_its_end(capture):
    content = section() + interface(127) + interface(105) + enhanced_packet(1, b"802.11")
    path = capture(content)
    with CaptureReader(path) as reader, pytest.raises(CaptureError) as caught:
        reader.read(PacketBatch())
    assert str(caught.value).startswith(
        f"cannot read capture {path}: it has link type 105, 127, expected Ethernet (1), "
    )


HEADERS = [
    pcap([], order=order, unit_ns=unit_ns, link_type=link_type)
    for order in "<>"
    for unit_ns in (1000, 1)
    for link_type in (0, 1, 101, 113, 276)
] + [section(order=order) + interface(order=order) for order in "<>"]
PACKET = enhanced_packet(1, frame(b"x" * 6))


@given(
    header=st.sampled_from(HEADERS),
    rest=st.lists(st.binary(max_size=60) | st.just(PACKET), max_size=6).map(b"".join),
)
def test_arbitrary_bytes_behind_a_header_raise_nothing_but_capture_error(
    tmp_path_factory, header, rest
):
    path = tmp_path_factory.getbasetemp() / "arbitrary.pcap"
    path.write_bytes(header + rest)
    batch = PacketBatch(capacity=4)
    with CaptureReader(path) as reader:
        try:
            while reader.read(batch):
                pass
        except CaptureError:
            return
        assert reader.exhausted
        assert reader.datagrams <= len(rest) // 16
