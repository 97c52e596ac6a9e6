"""Pairs of ports, with real sockets on loopback."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import closing
from uuid import UUID

import pytest
from controlled import free_ports
from recordingsink import RecordingSink
from wirecases import rtp

from pipeline.dispatch import Dispatcher
from strep.portpairs import PortPairs
from strep.receive.drain import Drain
from strep.receive.receiver import Receiver
from strep.receive.sockets import bind

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")


class Rig:
    def __init__(self):
        self.sink = RecordingSink()
        self.receiver = Receiver(Dispatcher({"recording": self.sink}))
        self.drain = Drain(self.receiver, [])
        self.pairs = PortPairs(self.receiver, self.drain, "127.0.0.1")
        low = int(free_ports(2).partition("-")[0])
        self.one, self.two = (low, low + 1), (low + 2, low + 3)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, port, number=0):
        packet = rtp(bytes([number + 1]) * 160, sequence=number, timestamp=160 * number, ssrc=1)
        self.sender.sendto(packet, ("127.0.0.1", port))

    def receive(self, datagrams):
        """Drain the ports until so many datagrams were received in all."""
        deadline = time.monotonic() + 5
        while self.receiver.read < datagrams:
            assert time.monotonic() < deadline
            self.drain.drain()

    @property
    def tracks(self):
        return [(t.call_leg_id, t.leg, t.direction) for t in self.sink.opened.values()]

    def close(self):
        self.drain.stop()
        self.sender.close()


@pytest.fixture
def rig():
    with closing(Rig()) as made:
        yield made


def test_first_port_is_inbound_and_the_second_outbound(rig):
    rig.pairs.open(rig.one, CALL)
    rig.pairs.open(rig.two, OTHER)
    for port in (*rig.one, *rig.two):
        rig.send(port)
    rig.receive(4)
    assert rig.tracks == [
        (CALL, "A", "inbound"),
        (CALL, "A", "outbound"),
        (OTHER, "A", "inbound"),
        (OTHER, "A", "outbound"),
    ]


def test_what_came_before_the_closing_is_received_and_the_ports_are_free(rig):
    rig.pairs.open(rig.one, CALL)
    rig.send(rig.one[0])
    rig.pairs.close(rig.one)
    assert rig.tracks == [(CALL, "A", "inbound")]
    for port in rig.one:
        bind("127.0.0.1", port).close()
    rig.pairs.close(rig.one)
    # its numbers are used again, for another leg
    rig.pairs.open(rig.one, OTHER)
    rig.send(rig.one[1])
    rig.receive(2)
    assert rig.tracks[1:] == [(OTHER, "A", "outbound")]


@pytest.mark.parametrize("taken", [0, 1])
def test_where_one_port_is_taken_neither_is_opened(rig, taken):
    with bind("127.0.0.1", rig.one[taken]):
        with pytest.raises(OSError, match="Address already in use"):
            rig.pairs.open(rig.one, CALL)
        bind("127.0.0.1", rig.one[1 - taken]).close()
    assert rig.drain.ports == []
    rig.pairs.open(rig.one, CALL)


def test_opened_again_it_stays_as_it_is_or_is_the_other_legs(rig):
    rig.pairs.open(rig.one, CALL)
    rig.send(rig.one[0])
    rig.pairs.open(rig.one, CALL)
    rig.receive(1)
    rig.pairs.open(rig.one, OTHER)
    rig.send(rig.one[0])
    rig.receive(2)
    assert rig.tracks == [(CALL, "A", "inbound"), (OTHER, "A", "inbound")]
    assert len(rig.drain.ports) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts drops")
def test_drops_of_open_and_closed_pairs_are_counted(rig):
    rig.pairs.open(rig.one, CALL)
    sock = rig.drain.ports[0].reader.sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(100):
        rig.send(rig.one[0], number)
    drops = rig.pairs.kernel_drops
    assert 0 < drops < 100
    rig.pairs.close(rig.one)
    assert rig.pairs.kernel_drops == drops
    assert rig.receiver.read == 100 - drops
