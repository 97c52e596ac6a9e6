from __future__ import annotations

import errno
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from strep.receive import sockets
from strep.receive.sockets import (
    ListenError,
    ReceiveBuffer,
    bind,
    enable_timestamps,
    enlarge_receive_buffer,
    kernel_drops,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")


@pytest.fixture
def udp():
    with bind("127.0.0.1", 0) as sock:
        yield sock


@pytest.fixture
def elsewhere(monkeypatch):
    """Run as on a system other than Linux."""
    monkeypatch.setattr(sockets, "sys", SimpleNamespace(platform="darwin"))


class Unprivileged(socket.socket):
    """A socket of which Linux gives no more than this to a process without privileges."""

    most_bytes = 100_000

    def setsockopt(self, level, option, value):
        if (level, option) == (socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33)):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
            value = min(value, self.most_bytes)
        super().setsockopt(level, option, value)


class Stubborn(socket.socket):
    """A socket that refuses to be set anything."""

    def setsockopt(self, *_):
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")


def test_bound_socket_receives_and_never_waits(udp):
    host, port = udp.getsockname()
    assert host == "127.0.0.1"
    assert port > 0
    assert not udp.getblocking()
    with pytest.raises(BlockingIOError):
        udp.recv(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (host, port))
    udp.settimeout(5)
    assert udp.recv(10) == b"hello"


def test_name_is_resolved():
    with bind("localhost", 0) as sock:
        assert sock.getsockname()[0] in {"127.0.0.1", "::1"}


def test_ipv6_socket_leaves_the_port_to_ipv4():
    try:
        sock = bind("::1", 0)
    except ListenError as error:
        pytest.skip(str(error))
    with sock:
        assert sock.family == socket.AF_INET6
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_port_in_use_is_said_in_a_sentence(udp):
    port = udp.getsockname()[1]
    with pytest.raises(
        ListenError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"
    ):
        bind("127.0.0.1", port)


def test_address_of_another_machine_is_said_in_a_sentence():
    # RFC 5737: an address that is nobody's
    with pytest.raises(ListenError, match=r"^cannot listen on 192\.0\.2\.1:9000: .*address"):
        bind("192.0.2.1", 9000)


def test_name_of_no_host_is_said_in_a_sentence():
    with pytest.raises(ListenError, match=r"^cannot listen on no host:9000: \w+"):
        bind("no host", 9000)


@pytest.mark.parametrize("host", ["a" * 64, "two..dots"])
def test_what_no_name_can_be_is_said_in_a_sentence(host):
    with pytest.raises(
        ListenError, match=rf"^cannot listen on {re.escape(host)}:9000: not a host name$"
    ):
        bind(host, 9000)


def test_enough_room_needs_no_warning():
    assert ReceiveBuffer(65_536, 65_536).warning is None
    assert ReceiveBuffer(65_536, 65_537).warning is None


def test_clamped_buffer_is_told_with_the_remedy_on_linux(monkeypatch):
    monkeypatch.setattr(sockets, "sys", SimpleNamespace(platform="linux"))
    assert ReceiveBuffer(33_554_432, 212_992).warning == (
        "the receive buffer was clamped to 212992 of 33554432 bytes "
        "(5 ms of 100,000 packets per second); "
        "raise it with: sysctl -w net.core.rmem_max=33554432"
    )


@pytest.mark.usefixtures("elsewhere")
def test_clamped_buffer_is_told_with_the_remedy_elsewhere():
    assert ReceiveBuffer(33_554_432, 8_388_608).warning == (
        "the receive buffer was clamped to 8388608 of 33554432 bytes "
        "(202 ms of 100,000 packets per second); "
        "raise it with: sysctl -w kern.ipc.maxsockbuf=33554432"
    )


def test_receive_buffer_is_enlarged(udp):
    given = enlarge_receive_buffer(udp, 98_304)
    assert given == ReceiveBuffer(98_304, 98_304)
    assert given.warning is None
    doubled = 2 if sys.platform == "linux" else 1
    assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 98_304 * doubled


def test_without_privileges_the_receive_buffer_is_clamped():
    with Unprivileged(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        given = enlarge_receive_buffer(sock, 400_000)
    assert given == ReceiveBuffer(400_000, 100_000)
    assert "clamped to 100000 of 400000 bytes" in given.warning


@LINUX
def test_with_privileges_the_receive_buffer_goes_beyond_the_limit(udp):
    wanted = int(Path("/proc/sys/net/core/rmem_max").read_text()) + 100_000
    given = enlarge_receive_buffer(udp, wanted)
    if given.actual_bytes < wanted:
        pytest.skip("this process may not set SO_RCVBUFFORCE")
    assert given == ReceiveBuffer(wanted, wanted)


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_what_is_read_back_is_what_was_set():
    with Unprivileged(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        given = enlarge_receive_buffer(sock, 400_000)
        assert given.actual_bytes == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


@LINUX
def test_linux_gives_arrival_times(udp):
    assert enable_timestamps(udp)
    assert udp.getsockopt(socket.SOL_SOCKET, 35) == 1


def test_a_socket_without_arrival_times_says_so():
    with Stubborn(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not enable_timestamps(sock)


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_there_are_neither_arrival_times_nor_drops(udp):
    assert not enable_timestamps(udp)
    assert kernel_drops(udp) == 0


@LINUX
def test_kernel_counts_what_found_no_room(udp):
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert kernel_drops(udp) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(bytes(196), udp.getsockname())
    held = 0
    while True:
        try:
            udp.recv(1)
        except BlockingIOError:
            break
        held += 1
    assert 0 < held < 100
    assert kernel_drops(udp) == 100 - held


def test_closed_socket_has_no_drops(udp):
    udp.close()
    assert kernel_drops(udp) == 0
