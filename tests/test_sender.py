from __future__ import annotations

import asyncio
import errno
import math
import socket

import numpy as np
import pytest
import uvloop

from strep.sender import MAX_BURST, _send, send_paced


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        yield udp


@pytest.fixture
def closed_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return udp.getsockname()


def received(listener):
    """Return (datagram, source port) of all that has come; loopback delivers while sending."""
    arrived = []
    while True:
        try:
            datagram, (_, port) = listener.recvfrom(2048)
        except BlockingIOError:
            return arrived
        arrived.append((datagram, port))


def test_datagrams_arrive_in_order_and_whole(run, listener):
    datagrams = [b"%03d" % index * (index + 1) for index in range(20)]
    due_s = np.arange(20) * 0.02
    report = run(send_paced(datagrams, due_s, listener.getsockname(), speed=20.0))
    assert [datagram for datagram, _ in received(listener)] == datagrams
    assert (report.sent, report.refused) == (20, 0)


def test_rows_of_an_array_are_datagrams(run, listener):
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    run(send_paced(rows, [0.0, 0.0, 0.0], listener.getsockname()))
    assert [datagram.hex() for datagram, _ in received(listener)] == [
        "00010203",
        "04050607",
        "08090a0b",
    ]


def test_nothing_is_sent_before_it_is_due(run, listener):
    seen = []

    def count_arrivals(sent):
        seen.append((sent, len(received(listener))))

    to = listener.getsockname()
    report = run(send_paced([b"1", b"2"], [0.0, 4.0], to, speed=100.0, progress=count_arrivals))
    assert seen == [(1, 1), (2, 1)]
    assert report.duration_s >= 0.04
    assert 0 <= report.worst_lateness_s <= report.duration_s


def test_lateness_is_told(run, listener):
    report = run(send_paced([b"1", b"2"], [-1.0, 0.0], listener.getsockname()))
    assert 1.0 <= report.worst_lateness_s < 2.0


def test_infinite_speed_sends_in_bursts_of_64(run, listener):
    progress = []
    to = listener.getsockname()
    datagrams = [b"x"] * 150
    run(send_paced(datagrams, np.arange(150), to, speed=math.inf, progress=progress.append))
    assert progress == [64, 128, 150]
    assert len(received(listener)) == 150


def test_datagram_due_before_its_predecessor_goes_right_behind_it(run, listener):
    report = run(send_paced([b"1", b"2", b"3"], [0.02, 0.0, 0.01], listener.getsockname()))
    assert [datagram for datagram, _ in received(listener)] == [b"1", b"2", b"3"]
    assert report.duration_s >= 0.02


def test_each_source_keeps_a_port_of_its_own(run, listener):
    datagrams = [b"a1", b"b1", b"a2", b"b2"]
    run(send_paced(datagrams, [0.0] * 4, listener.getsockname(), sources=[7, 3, 7, 3]))
    ports = dict(received(listener))
    assert sorted(ports) == sorted(datagrams)
    assert ports[b"a1"] == ports[b"a2"] != ports[b"b1"] == ports[b"b2"]


def test_localhost_is_reached_at_its_ipv4_address(run, listener):
    run(send_paced([b"here"], [0.0], ("localhost", listener.getsockname()[1])))
    assert [datagram for datagram, _ in received(listener)] == [b"here"]


def test_no_datagrams_are_sent_in_no_time(run, listener):
    report = run(send_paced([], [], listener.getsockname()))
    assert (report.sent, report.duration_s, report.worst_lateness_s) == (0, 0.0, 0.0)


def test_refused_datagrams_are_counted_and_the_rest_still_sent(run, closed_port):
    report = run(send_paced([b"x"] * 5, np.arange(5) * 0.001, closed_port))
    assert report.sent == 5
    assert report.refused == 5


def test_listener_that_comes_late_gets_what_is_sent_from_then_on(run, closed_port):
    datagrams = [bytes([number]) for number in range(MAX_BURST + 2)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)

        def listen(sent):
            if sent == MAX_BURST:
                udp.bind(closed_port)

        report = run(send_paced(datagrams, np.zeros(len(datagrams)), closed_port, progress=listen))
        assert [datagram for datagram, _ in received(udp)] == datagrams[MAX_BURST:]
    assert (report.sent, report.refused) == (MAX_BURST + 2, MAX_BURST)


class FullBuffer(socket.socket):
    """A socket whose buffer is full for the first two attempts, which loopback cannot be made."""

    errors = (errno.ENOBUFS, errno.EAGAIN)

    def send(self, data):
        if self.errors:
            code, *self.errors = self.errors
            raise OSError(code, "the buffer is full")
        return super().send(data)


def test_full_buffer_is_waited_for(run, listener):
    with FullBuffer(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(listener.getsockname())
        assert run(_send(udp, b"at last")) == 0
    assert [datagram for datagram, _ in received(listener)] == [b"at last"]


def test_datagram_too_large_for_udp_is_an_error(run, listener):
    with pytest.raises(OSError, match=r"[Mm]essage too long"):
        run(send_paced([bytes(70_000)], [0.0], listener.getsockname()))


@pytest.mark.parametrize(
    ("due_s", "options", "message"),
    [
        ([0.0], {}, r"2 datagrams have due times of shape \(1,\)"),
        ([0.0, 0.0], {"sources": [1]}, r"sources of shape \(1,\)"),
        ([0.0, math.nan], {}, "due times are expected as finite seconds"),
        ([0.0, 0.0], {"speed": 0.0}, "speed is 0.0, expected more than 0"),
        ([0.0, 0.0], {"speed": math.nan}, "speed is nan, expected more than 0"),
    ],
)
def test_wrong_arguments_are_named(run, due_s, options, message):
    with pytest.raises(ValueError, match=message):
        run(send_paced([b"1", b"2"], due_s, ("127.0.0.1", 9), **options))
