"""Readers: one set of tests over all that read a socket, and over IPv4 and IPv6."""

from __future__ import annotations

import select
import socket
import sys
import time
from contextlib import closing
from functools import partial

import pytest
from wirecases import STALE

from strep.receive import readers
from strep.receive.readers import MemoryReader, RecvIntoReader, RecvmmsgReader, open_reader
from strep.receive.sockets import bind
from strep.wire import Endpoint, PacketBatch

pytestmark = pytest.mark.usefixtures("kernel")

MMSG = pytest.param(
    RecvmmsgReader,
    id="recvmmsg",
    marks=pytest.mark.skipif(not readers._SUPPORTED, reason="recvmmsg needs 64-bit Linux"),
)
INTO = pytest.param(RecvIntoReader, id="recv_into")
MERGED = pytest.param(partial(open_reader, merged=True), id="merged")
"""Where there is no compiled kernel, that is the reader that there is without."""
CLOCKS_APART_NS = 500_000_000
"""Room for a pause of this process between reading the one clock and the other."""


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


V4 = pytest.param("127.0.0.1", id="ipv4")
V6 = pytest.param("::1", id="ipv6", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"))


class Wire:
    """A reader and those who send to it."""

    def __init__(self, reader_class, host):
        self.sock = bind(host, 0)
        self.reader = reader_class(self.sock)
        self.senders = []
        self.host = host
        self.sender = self.new_sender()

    @property
    def address(self):
        return self.sock.getsockname()

    def new_sender(self):
        sender = socket.socket(self.sock.family, socket.SOCK_DGRAM)
        sender.bind((self.host, 0))
        self.senders.append(sender)
        return sender

    def send(self, *datagrams, sender=None):
        for datagram in datagrams:
            (sender or self.sender).sendto(datagram, self.address)
        select.select([self.sock], [], [], 5)

    def close(self):
        self.reader.close()
        for sender in self.senders:
            sender.close()


@pytest.fixture(params=[MMSG, INTO, MERGED])
def reader_class(request):
    return request.param


@pytest.fixture(params=[V4, V6])
def wire(reader_class, request):
    wire = Wire(reader_class, request.param)
    yield wire
    wire.close()


@pytest.fixture
def v4_wire(reader_class):
    wire = Wire(reader_class, "127.0.0.1")
    yield wire
    wire.close()


def contents(batch):
    return [bytes(batch.datagram(row)) for row in range(batch.count)]


def endpoint_of(sock):
    return Endpoint.of(*sock.getsockname()[:2]).pack()


def test_datagrams_are_read_in_order(wire):
    batch = PacketBatch(8, 512)
    wire.send(b"first", b"second", b"", b"the fourth")
    assert wire.reader.read(batch) == batch.count == 4
    assert contents(batch) == [b"first", b"second", b"", b"the fourth"]
    assert batch.length_bytes[:4].tolist() == [5, 6, 0, 10]


def test_an_empty_socket_gives_nothing(wire):
    batch = PacketBatch(8, 512)
    batch.add(b"before", 0)
    assert wire.reader.read(batch) == batch.count == 0
    assert wire.reader.errors == 0


def test_sources_and_destination_are_told(wire):
    batch = PacketBatch(8, 512)
    other = wire.new_sender()
    wire.send(b"a")
    wire.send(b"b", sender=other)
    wire.send(b"c")
    assert wire.reader.read(batch) == 3
    assert [s.tobytes() for s in batch.source[:3]] == [
        endpoint_of(wire.sender), endpoint_of(other), endpoint_of(wire.sender),
    ]  # fmt: skip
    assert [d.tobytes() for d in batch.destination[:3]] == [endpoint_of(wire.sock)] * 3
    assert wire.reader.local.tobytes() == Endpoint.of(*wire.address[:2]).pack()


def test_a_datagram_longer_than_its_slot_is_known_by_its_length(wire):
    batch = PacketBatch(4, 512)
    long = bytes(range(256)) * 4
    wire.send(long[:512], long[:513], long, b"after")
    assert wire.reader.read(batch) == 4
    assert batch.length_bytes.tolist() == [512, 513, 1024, 5]
    assert contents(batch) == [long[:512], long[:512], long[:512], b"after"]


def test_what_does_not_fit_the_batch_waits(wire):
    batch = PacketBatch(3, 512)
    sent = [b"%d" % i for i in range(8)]
    wire.send(*sent)
    read = []
    sizes = []
    while wire.reader.read(batch):
        sizes.append(batch.count)
        read += contents(batch)
    assert sizes == [3, 3, 2]
    assert read == sent


def test_a_batch_is_reused(wire):
    batch = PacketBatch(4, 512)
    wire.send(b"a much longer datagram", b"another")
    assert wire.reader.read(batch) == 2
    batch.buffer[:] = STALE
    other = wire.new_sender()
    wire.send(b"short", sender=other)
    assert wire.reader.read(batch) == 1
    assert contents(batch) == [b"short"]
    assert batch.source[0].tobytes() == endpoint_of(other)
    assert batch.destination[0].tobytes() == endpoint_of(wire.sock)


def test_a_reader_can_change_to_another_batch_and_back(wire):
    first, second = PacketBatch(2, 512), PacketBatch(4, 1024)
    for batch, text in ((first, b"one"), (second, b"two"), (first, b"three")):
        wire.send(text)
        assert wire.reader.read(batch) == 1
        assert contents(batch) == [text]
        assert batch.source[0].tobytes() == endpoint_of(wire.sender)
        assert batch.destination[0].tobytes() == endpoint_of(wire.sock)


def test_a_batch_that_memory_filled_before_is_taken_over(wire):
    batch = PacketBatch(2, 512)
    MemoryReader([(b"x", 1, bytes(24), bytes(24))] * 2).read(batch)
    wire.send(b"longer than that")
    assert wire.reader.read(batch) == 1
    assert contents(batch) == [b"longer than that"]
    assert batch.destination[0].tobytes() == endpoint_of(wire.sock)


def test_arrival_is_on_the_monotonic_clock(wire):
    batch = PacketBatch(8, 512)
    for _ in range(3):
        before_ns = time.monotonic_ns()
        wire.send(b"a", b"b", b"c")
        assert wire.reader.read(batch) == 3
        after_ns = time.monotonic_ns()
        arrival_ns = batch.arrival_ns[:3].tolist()
        assert arrival_ns == sorted(arrival_ns)
        assert before_ns - CLOCKS_APART_NS <= arrival_ns[0]
        assert arrival_ns[-1] <= after_ns


@pytest.mark.skipif(not readers._SUPPORTED, reason="recvmmsg needs 64-bit Linux")
def test_arrival_is_the_kernels_and_not_when_it_was_read():
    with closing(Wire(RecvmmsgReader, "127.0.0.1")) as wire:
        batch = PacketBatch(2, 512)
        # The kernel begins to stamp a moment after the first socket of the machine asked for it.
        for _ in range(20):
            wire.send(b"a")
            sent_ns = time.monotonic_ns()
            time.sleep(0.1)
            wire.send(b"b")
            wire.reader.read(batch)
            first_ns, second_ns = batch.arrival_ns.tolist()
            if first_ns <= sent_ns:
                break
        assert first_ns <= sent_ns
        assert second_ns - first_ns >= 90_000_000


@pytest.mark.skipif(not readers._SUPPORTED, reason="recvmmsg needs 64-bit Linux")
def test_arrival_lies_between_now_and_when_the_socket_was_empty():
    wire = Wire(RecvmmsgReader, "127.0.0.1")
    batch, one = PacketBatch(4, 512), PacketBatch(1, 512)
    opened_ns = wire.reader._empty_ns[0]
    assert time.monotonic_ns() - opened_ns >= readers.WAITED_NS
    wire.send(b"a", b"b")
    assert wire.reader.read(one) == 1
    assert wire.reader._empty_ns[0] == opened_ns  # "b" is in it
    before_ns = time.monotonic_ns()
    assert wire.reader.read(batch) == 1
    assert before_ns <= wire.reader._empty_ns[0] <= time.monotonic_ns()
    before_ns = time.monotonic_ns()
    assert wire.reader.read(batch) == 0
    assert before_ns <= wire.reader._empty_ns[0] <= time.monotonic_ns()
    # as where the wall clock steps forwards: all seem to have come long ago
    wire.send(b"c", b"d")
    since_ns = wire.reader._empty_ns[0] = time.monotonic_ns()
    wire.reader.read(batch)
    assert batch.arrival_ns[:2].tolist() == [since_ns] * 2
    # as where it steps backwards: to come yet
    wire.send(b"e")
    wire.reader._empty_ns[0] = 2**62
    before_ns = time.monotonic_ns()
    wire.reader.read(batch)
    assert before_ns <= batch.arrival_ns[0] == wire.reader._empty_ns[0] <= time.monotonic_ns()
    wire.close()


class WithoutTimestamps(socket.socket):
    """A socket of a kernel that tells no arrival times."""

    def setsockopt(self, level, option, value):
        if (level, option) == (socket.SOL_SOCKET, 35):
            raise OSError("no arrival times")
        super().setsockopt(level, option, value)


def test_without_the_kernels_time_arrival_is_when_it_was_read(reader_class):
    sock = WithoutTimestamps(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    reader = reader_class(sock)
    batch = PacketBatch(2, 512)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"a", sock.getsockname())
    select.select([sock], [], [], 5)
    before_ns = time.monotonic_ns()
    assert reader.read(batch) == 1
    assert before_ns <= batch.arrival_ns[0] <= time.monotonic_ns()
    reader.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_datagrams_without_room_are_counted_by_the_kernel(v4_wire):
    v4_wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    assert v4_wire.reader.kernel_drops == 0
    v4_wire.send(*[bytes(196)] * 200)
    batch = PacketBatch(256, 512)
    read = v4_wire.reader.read(batch)
    assert 0 < read < 200
    assert v4_wire.reader.kernel_drops == 200 - read


def test_port_unreachable_is_counted_and_reading_goes_on(v4_wire):
    gone = v4_wire.new_sender()
    address = gone.getsockname()
    gone.close()
    batch = PacketBatch(4, 512)
    # only a connected socket hears of it
    v4_wire.sock.connect(address)
    v4_wire.sock.send(b"is there anybody?")
    select.select([v4_wire.sock], [], [], 5)
    assert v4_wire.reader.read(batch) == batch.count == 0
    assert v4_wire.reader.errors == 1
    assert v4_wire.reader.read(batch) == 0
    assert v4_wire.reader.errors == 1
    with bind(*address) as back:
        v4_wire.send(b"now there is", sender=back)
        assert v4_wire.reader.read(batch) == 1
    assert contents(batch) == [b"now there is"]


def test_closing_closes_the_socket(v4_wire):
    v4_wire.reader.close()
    assert v4_wire.sock.fileno() == -1


def test_sources_are_right_however_many_there_are(v4_wire, monkeypatch):
    monkeypatch.setattr(readers, "MAX_CACHED_ENDPOINTS", 2)
    batch = PacketBatch(16, 512)
    senders = [v4_wire.new_sender() for _ in range(5)]
    order = [0, 1, 0, 2, 3, 0, 4, 1]
    for i in order:
        v4_wire.send(b"x", sender=senders[i])
    assert v4_wire.reader.read(batch) == 8
    expected = [endpoint_of(senders[i]) for i in order]
    assert [s.tobytes() for s in batch.source[:8]] == expected


@pytest.mark.skipif(not readers._SUPPORTED, reason="recvmmsg needs 64-bit Linux")
def test_both_readers_fill_a_batch_alike():
    batches = []
    for reader_class in (RecvmmsgReader, RecvIntoReader):
        wire = Wire(reader_class, "127.0.0.1")
        batch = PacketBatch(4, 512)
        wire.send(b"\xc4" * 100, b"", b"\x80" * 600)
        wire.reader.read(batch)
        batch.parse()
        batches.append((batch.reason[:3].tolist(), batch.kind[:3].tolist(), contents(batch)))
        wire.close()
    assert batches[0] == batches[1]


def test_the_best_reader_is_chosen(monkeypatch):
    monkeypatch.delenv("STREP_READER", raising=False)
    with bind("127.0.0.1", 0) as sock:
        expected = RecvmmsgReader if readers._SUPPORTED else RecvIntoReader
        assert type(open_reader(sock)) is expected
        monkeypatch.setenv("STREP_READER", "recv_into")
        assert type(open_reader(sock)) is RecvIntoReader
        monkeypatch.setenv("STREP_READER", "recvmmsg")
        assert type(open_reader(sock)) is expected


def test_without_recvmmsg_the_portable_reader_is_chosen(monkeypatch):
    monkeypatch.setattr(readers, "_SUPPORTED", False)
    with bind("127.0.0.1", 0) as sock:
        assert type(open_reader(sock)) is RecvIntoReader
        with pytest.raises(OSError, match=r"^recvmmsg needs 64-bit Linux$"):
            RecvmmsgReader(sock)


def test_memory_gives_out_what_it_has_a_batch_at_a_time():
    source, destination = Endpoint.of("192.0.2.1", 1).pack(), Endpoint.of("192.0.2.2", 2).pack()
    reader = MemoryReader([(b"a", 1), (b"bc", 2, source, destination), (b"def", 3)])
    batch = PacketBatch(2, 512)
    assert reader.read(batch) == 2
    assert contents(batch) == [b"a", b"bc"]
    assert batch.arrival_ns.tolist() == [1, 2]
    assert batch.source[1].tobytes() == source
    assert batch.destination[1].tobytes() == destination
    assert batch.source[0].tobytes() == bytes(24)
    assert reader.read(batch) == 1
    assert contents(batch) == [b"def"]
    assert batch.source[0].tobytes() == bytes(24)
    assert reader.read(batch) == 0
    reader.close()


def test_memory_of_exactly_one_batch_is_empty_afterwards():
    reader = MemoryReader((b"a", i) for i in range(2))
    batch = PacketBatch(2, 512)
    assert [reader.read(batch) for _ in range(3)] == [2, 0, 0]
