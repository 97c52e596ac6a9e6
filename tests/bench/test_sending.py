from __future__ import annotations

import socket
import sys

import numpy as np
import pytest

from bench.sending import Sender, is_loopback
from strep.receive.sockets import enable_merging


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("192.0.2.1", False),
     ("2001:db8::1", False), ("192.0.2.255", False)],
)  # fmt: skip
def test_loopback_is_told_from_other_addresses(host, expected):
    assert is_loopback(host) is expected


def test_several_ports_are_never_sent_segments():
    sender = Sender("127.0.0.1", [20_000, 20_001])
    assert sender.method != "segment"
    sender.close()


def test_nothing_is_sent_of_nothing():
    sender = Sender("127.0.0.1", [20_000])
    assert sender.send(np.empty((0, 196), np.uint8)) == 0
    sender.close()


@pytest.mark.parametrize("method", ["segment", "sendmmsg", "send"])
def test_ipv6_is_reached(method):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        udp.settimeout(1)
        sender = Sender("::1", [udp.getsockname()[1]], method=method)
        assert sender.send(np.arange(24, dtype=np.uint8).reshape(3, 8)) == 3
        sender.close()
        assert [udp.recv(100)[0] for _ in range(3)] == [0, 8, 16]


@pytest.mark.skipif(sys.platform != "linux", reason="UDP_SEGMENT is Linux only")
def test_no_more_leave_together_than_are_to():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(1)
        enable_merging(udp)
        sender = Sender("127.0.0.1", [udp.getsockname()[1]], method="segment", most_segments=3)
        assert sender.send(np.arange(56, dtype=np.uint8).reshape(7, 8)) == 7
        sender.close()
        assert [len(udp.recv(1000)) for _ in range(3)] == [24, 24, 8]


def test_datagram_that_cannot_be_sent_is_counted_and_the_others_are_sent():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        for method in ("sendmmsg", "send"):
            sender = Sender("127.0.0.1", [udp.getsockname()[1]], method=method)
            assert sender.send(np.zeros((2, 70_000), np.uint8)) == 0
            assert sender.errors == {"EMSGSIZE": 2}
            sender.close()
