"""The receive loop, on a real event loop with real sockets; the only tests that wait."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import closing
from uuid import UUID

import pytest
from recordingsink import RecordingSink
from structlog.testing import capture_logs
from wirecases import rtp, strep

from pipeline.dispatch import Dispatcher
from strep.receive import drain as drain_module
from strep.receive import readers, receiver
from strep.receive.drain import Drain, Port
from strep.receive.readers import RecvIntoReader, open_reader
from strep.receive.receiver import Binding, Receiver
from strep.receive.sockets import bind
from strep.wire import Direction, Leg, PacketBatch

CALL = UUID("01234567-89ab-4cde-8f01-23456789abcd")
OTHER_CALL = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
DEADLINE_S = 5


def audio(number):
    return bytes([number & 0xFF]) * 160


def plain(number):
    return rtp(audio(number), sequence=number, timestamp=number * 160, ssrc=1)


def forked(number, call=CALL):
    return strep(plain(number), call)


class Rig:
    """A drain over ports on loopback, and a socket that sends to them."""

    new_loop = staticmethod(asyncio.new_event_loop)

    def __init__(
        self, *bindings, capacity=1024, receiver_class=Receiver, reader=open_reader, **options
    ):
        self.sink = RecordingSink()
        self.receiver = receiver_class(Dispatcher({"recording": self.sink}), **options)
        self.sockets = [bind("127.0.0.1", 0) for _ in bindings or [None]]
        self.addresses = [sock.getsockname() for sock in self.sockets]
        self.ports = [
            Port(reader(sock), self.receiver.bind(binding) if binding else 0)
            for sock, binding in zip(self.sockets, bindings or [None], strict=True)
        ]
        batch = PacketBatch(capacity, 512)
        self.drain = Drain(self.receiver, self.ports, tick_ms=5, batch=batch)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, *datagrams, port=0):
        for datagram in datagrams:
            self.sender.sendto(datagram, self.addresses[port])

    def run(self, scenario):
        """Run the loop while `scenario` goes on."""

        async def started_and_stopped():
            self.drain.start()
            try:
                await scenario(self)
            finally:
                self.stop()

        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            runner.run(asyncio.wait_for(started_and_stopped(), 2 * DEADLINE_S))

    def stop(self):
        if self.sockets[0].fileno() != -1:
            self.drain.stop()

    def close(self):
        self.stop()
        self.receiver.stop()
        self.sender.close()


@pytest.fixture(autouse=True, params=["asyncio", "uvloop"])
def loop_kind(request, monkeypatch):
    """Hold on the event loop of the standard library and on the daemon's."""
    module = pytest.importorskip(request.param)
    monkeypatch.setattr(Rig, "new_loop", staticmethod(module.new_event_loop))


async def until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.fixture(params=[open_reader, RecvIntoReader], ids=["best", "recv_into"])
def reader(request):
    return request.param


def test_packets_reach_the_sink(reader):
    async def run(rig):
        rig.send(forked(100), forked(101))
        await until(lambda: rig.receiver.read == 2)
        rig.send(forked(102))
        await until(lambda: rig.receiver.read == 3)

    with closing(Rig(reader=reader)) as rig:
        rig.run(run)
        assert rig.sink.payloads() == [audio(100), audio(101), audio(102)]


def test_time_passes_for_what_waits_behind_a_hole():
    async def run(rig):
        rig.send(forked(100), forked(102))
        await until(lambda: len(rig.sink.payloads()) == 2 if rig.sink.opened else False)

    with closing(Rig(reorder_ms=20)) as rig:
        rig.run(run)
        assert rig.sink.payloads() == [audio(100), audio(102)]


def test_ports_are_all_drained_each_with_its_binding():
    async def run(rig):
        rig.send(plain(1), port=0)
        rig.send(plain(7), port=1)
        rig.send(forked(9, OTHER_CALL), port=2)
        await until(lambda: rig.receiver.read == 3)
        rig.send(plain(2), port=0)
        rig.send(plain(8), port=1)
        await until(lambda: rig.receiver.read == 5)

    inbound = Binding(CALL, Leg.A, Direction.INBOUND)
    outbound = Binding(CALL, Leg.A, Direction.OUTBOUND)
    with closing(Rig(inbound, outbound, None)) as rig:
        rig.run(run)
        heard = {
            (track.call_leg_id, track.direction): rig.sink.payloads(*key)
            for key, track in rig.sink.opened.items()
        }
        assert heard == {
            (CALL, "inbound"): [audio(1), audio(2)],
            (CALL, "outbound"): [audio(7), audio(8)],
            (OTHER_CALL, "inbound"): [audio(9)],
        }
        destinations = [track.destination for track in rig.sink.opened.values()]
        assert sorted(destinations) == sorted(f"127.0.0.1:{port}" for _, port in rig.addresses)


def test_unbound_flows_of_several_ports_stay_apart_and_keep_their_tracks():
    async def run(rig):
        for number in (1, 2, 3):
            rig.send(plain(number), port=0)
            rig.send(plain(number + 100), port=1)
            await until(lambda: rig.receiver.read == 2 * number)  # noqa: B023 -- awaited here

    with closing(Rig(None, None)) as rig:
        rig.run(run)
        assert len(rig.sink.opened) == 2
        assert sorted(rig.sink.payloads(row) for row in (0, 1)) == [
            [audio(1), audio(2), audio(3)], [audio(101), audio(102), audio(103)],
        ]  # fmt: skip


def test_without_packets_the_loop_goes_idle_and_a_packet_wakes_it_at_once(monkeypatch):
    monkeypatch.setattr(drain_module, "IDLE_AFTER_NS", 20_000_000)
    # the timer alone would come too late
    monkeypatch.setattr(drain_module, "IDLE_TICK_S", 10 * DEADLINE_S)

    async def run(rig):
        assert not rig.drain.is_idle
        for number in (100, 101):
            await until(lambda: rig.drain.is_idle)
            rig.send(forked(number))
            await until(lambda: rig.receiver.read == number - 99)  # noqa: B023 -- awaited here

    with closing(Rig()) as rig:
        rig.run(run)
        assert rig.sink.payloads() == [audio(100), audio(101)]


def test_while_packets_come_the_loop_stays_awake(monkeypatch):
    idle_after_s = 0.1
    monkeypatch.setattr(drain_module, "IDLE_AFTER_NS", round(idle_after_s * 1e9))

    async def run(rig):
        for number in range(20):
            rig.send(forked(number))
            sent_s = time.monotonic()
            await asyncio.sleep(0.01)
            # but for a machine that stood still meanwhile
            assert not rig.drain.is_idle or time.monotonic() - sent_s > idle_after_s

    with closing(Rig()) as rig:
        rig.run(run)


def test_time_passes_while_the_loop_is_idle(monkeypatch):
    monkeypatch.setattr(drain_module, "IDLE_AFTER_NS", 10_000_000)
    monkeypatch.setattr(drain_module, "IDLE_TICK_S", 0.02)
    monkeypatch.setattr(receiver, "HOUSEKEEPING_NS", 0)

    async def run(rig):
        rig.send(forked(100))
        await until(lambda: rig.receiver.read == 1)
        await until(lambda: rig.drain.is_idle)
        await until(lambda: rig.sink.closed)

    with closing(Rig(idle_timeout_s=0.05)) as rig:
        rig.run(run)
        assert rig.sink.closed[0, 1].reason == "idle"


def test_a_flood_leaves_other_tasks_their_turn(monkeypatch):
    monkeypatch.setattr(drain_module, "MAX_BATCHES", 2)
    seen = []

    async def run(rig):
        while rig.receiver.read < 60:
            seen.append(rig.receiver.read)
            await asyncio.sleep(0)

    with closing(Rig(capacity=5)) as rig:
        rig.send(*(forked(n) for n in range(60)))
        rig.run(run)
        assert rig.sink.payloads() == [audio(n) for n in range(60)]
    # at most ten datagrams between one turn of this task and the next
    assert sorted(set(seen)) == [10, 20, 30, 40, 50]


def test_one_drain_is_bounded_and_tells_that_there_is_more(monkeypatch):
    monkeypatch.setattr(drain_module, "MAX_BATCHES", 2)
    with closing(Rig(None, None, capacity=4)) as rig:
        rig.send(*(forked(n) for n in range(10)))
        rig.send(forked(1, OTHER_CALL), port=1)
        assert rig.drain.drain() is True
        assert rig.receiver.read == 8 + 1
        assert rig.drain.drain() is False
        assert rig.receiver.read == 11
        assert rig.drain.drain() is False


@pytest.mark.skipif(not readers._SUPPORTED, reason="needs the kernel's arrival times")
def test_time_goes_only_as_far_as_what_was_read(monkeypatch):
    monkeypatch.setattr(drain_module, "MAX_BATCHES", 1)
    with closing(Rig(capacity=2, reorder_ms=100)) as rig:
        rig.send(*(forked(n) for n in (100, 102, 101, 103)))
        # when they are read at last, the packet that is missing has been there for long
        time.sleep(0.15)
        assert rig.drain.drain() is True
        assert rig.sink.payloads() == [audio(100)]
        rig.drain.drain()
        assert rig.sink.payloads() == [audio(n) for n in (100, 101, 102, 103)]


def test_stopping_drains_what_is_left_and_closes_the_sockets(monkeypatch):
    monkeypatch.setattr(drain_module, "MAX_BATCHES", 1)

    async def run(rig):
        rig.send(*(forked(n) for n in range(10)))
        rig.stop()
        read = rig.receiver.read
        await asyncio.sleep(0.02)
        assert rig.receiver.read == read

    with closing(Rig(capacity=4)) as rig:
        rig.run(run)
        assert rig.sink.payloads() == [audio(n) for n in range(10)]
        assert [sock.fileno() for sock in rig.sockets] == [-1]


def test_stopping_an_idle_loop_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(drain_module, "IDLE_AFTER_NS", 0)

    async def run(rig):
        watched = rig.sockets[0].fileno()
        await until(lambda: rig.drain.is_idle)
        rig.stop()
        assert not asyncio.get_running_loop().remove_reader(watched)
        assert not rig.drain.is_idle

    with closing(Rig()) as rig:
        rig.run(run)


def test_a_drain_that_never_started_can_be_stopped():
    with closing(Rig()) as rig:
        rig.send(forked(100))
        rig.drain.stop()
        assert rig.sink.payloads() == [audio(100)]


class FailingOnce(Receiver):
    """A receiver with a defect."""

    def receive(self, batch):
        super().receive(batch)
        if self.read == 1:
            raise ZeroDivisionError("a defect")


def test_a_defect_is_logged_and_the_loop_goes_on():
    async def run(rig):
        rig.send(forked(100))
        await until(lambda: rig.receiver.read == 1)
        rig.send(forked(101))
        await until(lambda: rig.receiver.read == 2)

    with closing(Rig(receiver_class=FailingOnce)) as rig, capture_logs() as logs:
        rig.run(run)
        assert rig.sink.payloads() == [audio(100), audio(101)]
    assert [(log["event"], log["log_level"], log["exc_info"]) for log in logs] == [
        ("receive loop", "error", True)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_drops_of_all_ports_are_added_up():
    with closing(Rig(None, None)) as rig:
        assert rig.drain.kernel_drops == 0
        for port, sock in enumerate(rig.sockets):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            rig.send(*[forked(1)] * 100, port=port)
        dropped = [port.reader.kernel_drops for port in rig.ports]
        assert min(dropped) > 0
        assert rig.drain.kernel_drops == sum(dropped)
        rig.drain.drain()
        assert rig.receiver.read + rig.drain.kernel_drops == 200
