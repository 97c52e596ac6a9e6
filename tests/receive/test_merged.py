"""Datagrams that the kernel hands over merged are the same as when it does not."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from uuid import UUID

import numpy as np
import pytest
import soundfile
import structlog
from hypothesis import given
from hypothesis import strategies as st
from loopback import Serve

import strep_kernel
from bench.sending import Sender
from pipeline.codecs import PCMU
from strep.media import packetize
from strep.receive import readers
from strep.receive.readers import MergedReader, RecvmmsgReader, open_reader
from strep.receive.sockets import bind
from strep.voices import load_voice
from strep.wire import Endpoint, PacketBatch, StrepHeader

pytestmark = pytest.mark.skipif(
    not readers._SUPPORTED or strep_kernel.load() is None,
    reason="needs 64-bit Linux and the compiled kernel",
)

UDP_SEGMENT = 103


class Wire(ExitStack):
    """A reader, and a sender whose datagrams reach the kernel in runs."""

    def __init__(self, reader_class=MergedReader, host="127.0.0.1"):
        super().__init__()
        self.sock = self.enter_context(bind(host, 0))
        self.reader = reader_class(self.sock)
        self.sender = self.enter_context(socket.socket(self.sock.family, socket.SOCK_DGRAM))
        self.sender.bind((host, 0))
        self.sender.connect(self.sock.getsockname())

    def send_run(self, *datagrams):
        """Send a run of datagrams that are of one length, but for a shorter last one."""
        self.sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(datagrams[0]))
        self.sender.send(b"".join(datagrams))
        self.sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)

    def send(self, *datagrams):
        for datagram in datagrams:
            self.sender.send(datagram)

    def read_all(self, capacity, slot_bytes=512):
        """Return (datagrams as they are kept, lengths, sizes of the batches)."""
        select.select([self.sock], [], [], 5)
        batch = PacketBatch(capacity, slot_bytes)
        kept, lengths, sizes = [], [], []
        while self.reader.read(batch):
            kept += [bytes(batch.datagram(row)) for row in range(batch.count)]
            lengths += batch.length_bytes[: batch.count].tolist()
            sizes.append(batch.count)
        return kept, lengths, sizes


def numbered(count, size):
    return [i.to_bytes(2) * (size // 2) for i in range(count)]


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def wire(request):
    try:
        wire = Wire(host=request.param)
    except OSError:
        pytest.skip("no IPv6 here")
    with wire:
        yield wire


def test_a_run_is_cut_apart(wire):
    run = [*numbered(7, 196), b"the last"]
    wire.send(b"before")
    wire.send_run(*run)
    wire.send(b"", b"behind")
    kept, lengths, sizes = wire.read_all(64)
    assert kept == [b"before", *run, b"", b"behind"]
    assert lengths == [6, *[196] * 7, 8, 0, 6]
    assert sizes == [11]
    assert wire.reader.merged == 8


def test_each_datagram_of_a_run_has_its_source_destination_and_time(wire):
    batch = PacketBatch(8, 512)
    before_ns = time.monotonic_ns()
    wire.send_run(*numbered(3, 100))
    select.select([wire.sock], [], [], 5)
    assert wire.reader.read(batch) == 3
    own = [Endpoint.of(*sock.getsockname()[:2]).pack() for sock in (wire.sender, wire.sock)]
    assert [s.tobytes() for s in batch.source[:3]] == [own[0]] * 3
    assert [d.tobytes() for d in batch.destination[:3]] == [own[1]] * 3
    first_ns, *others_ns = batch.arrival_ns[:3].tolist()
    assert others_ns == [first_ns] * 2
    assert before_ns - 500_000_000 <= first_ns <= time.monotonic_ns()


def test_what_of_a_run_does_not_fit_the_batch_comes_next(wire):
    run = numbered(10, 180)
    wire.send_run(*run)
    wire.send(b"behind")
    kept, _, sizes = wire.read_all(4)
    assert sizes == [4, 4, 3]
    assert kept == [*run, b"behind"]


def test_a_batch_that_is_filled_to_the_last_slot_leaves_nothing_behind(wire):
    wire.send_run(*numbered(8, 180))
    assert wire.read_all(4)[2] == [4, 4]
    wire.send_run(*numbered(3, 90))
    assert wire.read_all(4)[0] == numbered(3, 90)


def test_a_single_datagram_where_a_run_was_is_one():
    with Wire() as wire:
        wire.send_run(*numbered(5, 20))
        assert len(wire.read_all(64)[0]) == 5
        whole = bytes(range(100))
        wire.send(whole)
        assert wire.read_all(64)[0] == [whole]


def test_more_pieces_than_are_read_at_a_time():
    with Wire() as wire:
        sent = []
        for i in range(readers.MOST_PIECES + 3):
            run = [bytes([i]) * 60, bytes([i]) * 60, bytes([i])]
            wire.send_run(*run)
            sent += run
        kept, _, sizes = wire.read_all(1024)
        assert kept == sent
        assert sizes == [len(sent)]


def test_a_run_of_datagrams_longer_than_a_slot_is_known_by_their_lengths():
    with Wire() as wire:
        run = numbered(3, 700)
        wire.send_run(*run)
        kept, lengths, _ = wire.read_all(8)
        assert kept == [datagram[:512] for datagram in run]
        assert lengths == [700] * 3


def test_the_longest_run():
    with Wire() as wire:
        run = numbered(64, 1000)
        wire.send_run(*run)
        assert wire.read_all(2048, 1024)[0] == run


RUN = st.tuples(st.integers(1, 30), st.integers(1, 300), st.integers(0, 299))


@given(runs=st.lists(RUN, min_size=1, max_size=6), capacity=st.integers(1, 70))
def test_merged_or_not_the_same_is_read(runs, capacity):
    """Runs of (datagrams, length of each, length of a last one); what a receive buffer can hold."""
    read = []
    for reader_class in (MergedReader, RecvmmsgReader):
        with Wire(reader_class) as wire:
            for number, (count, size, rest) in enumerate(runs):
                run = [bytes([number, i % 256])[:size].ljust(size, b"x") for i in range(count)]
                wire.send_run(*run, b"y" * min(rest, size))
            read.append(wire.read_all(capacity))
    assert read[0] == read[1]


def test_without_the_compiled_kernel_datagrams_are_read_one_by_one(monkeypatch):
    monkeypatch.setattr(strep_kernel, "_compiled", None)
    with bind("127.0.0.1", 0) as sock, structlog.testing.capture_logs() as log:
        assert type(open_reader(sock, merged=True)) is RecvmmsgReader
    assert [(entry["event"], entry["reason"]) for entry in log] == [
        (
            "datagrams are not read merged",
            "merged datagrams need 64-bit Linux and the compiled kernel",
        )
    ]


def test_where_the_system_cannot_merge_datagrams_are_read_one_by_one():
    class Old(socket.socket):
        def setsockopt(self, level, option, value):
            if (level, option) == (socket.IPPROTO_UDP, 104):
                raise OSError(92, "Protocol not available")
            super().setsockopt(level, option, value)

    with Old(socket.AF_INET, socket.SOCK_DGRAM) as sock, structlog.testing.capture_logs() as log:
        sock.bind(("127.0.0.1", 0))
        assert type(open_reader(sock, merged=True)) is RecvmmsgReader
    assert [entry["reason"] for entry in log] == ["Protocol not available"]


def test_daemon_records_calls_whose_packets_come_merged_bit_for_bit(tmp_path):
    """Packets of 20 calls in turn, one port: each run of the sender holds all of them."""
    calls = [UUID(int=0x428C31B6_7AF4_4BCB_B7F5_5013EF965700 + i) for i in range(20)]
    codes = [np.roll(load_voice("caller")[:8000], 160 * i) for i in range(len(calls))]
    forks = [
        packetize(
            codes[i], payload_type=0, ssrc=i, first_sequence=7 * i, first_timestamp=0,
            strep=StrepHeader(call),
        )
        for i, call in enumerate(calls)
    ]  # fmt: skip
    with Serve(tmp_path, "--merge-datagrams", "--sink", "wav") as serve:
        sender = Sender(*serve.to[:1], [serve.to[1]], method="segment")
        sent = sum(sender.send(np.stack(packets)) for packets in zip(*forks, strict=True))
        sender.close()
        assert sent == 50 * len(calls)
        serve.wait_for("strep_packets_total", sent)
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_datagrams_read_total"] == sent
    assert metrics["strep_datagrams_merged_total"] == sent
    for call, expected in zip(calls, codes, strict=True):
        (path,) = tmp_path.glob(f"*{call}*.wav")
        pcm = soundfile.read(path, dtype="int16")[0]
        assert np.array_equal(pcm[:, 0], PCMU.table[expected])
