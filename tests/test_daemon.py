"""What the daemon opens before it has workers; the rest is in test_cli and test_workers."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import structlog
from loopback import needs_steering

from strep.config import Listener, Settings, parse_address
from strep.daemon import open_sockets, usable_cores
from strep.receive import steering
from strep.receive.sockets import ListenError, bind

CALL = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"


@pytest.fixture
def stack():
    with ExitStack() as opened:
        yield opened


def settings(*listen, workers, **bound):
    media = [{"listen": parse_address(address)} for address in listen]
    media[-1] |= bound
    return Settings(
        media=[Listener.model_validate(each) for each in media],
        workers=workers,
        receive_buffer_bytes=65_536,
    )


def port_of(sock):
    return sock.getsockname()[1]


def test_one_worker_has_a_socket_for_each_listener(stack):
    (row,) = open_sockets(settings("127.0.0.1:0", "127.0.0.1:0", workers=1), stack)
    assert len({port_of(sock) for sock in row}) == 2
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 65_536 for sock in row)


def test_several_workers_have_a_row_each_on_the_same_ports(stack):
    needs_steering()
    wanted = settings(
        "127.0.0.1:0", "127.0.0.1:0", workers=3, call_leg_id=CALL, direction="inbound"
    )
    rows = open_sockets(wanted, stack)
    assert [len(row) for row in rows] == [2, 2, 2]
    for column in zip(*rows, strict=True):
        assert len({port_of(sock) for sock in column}) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for ssrc in range(10):
            sender.sendto(b"\x80" + bytes(10) + bytes([ssrc]), rows[0][1].getsockname())
    # worker 1 of 3 is that of the call leg, whatever the source of the packets
    assert len(rows[1][1].recv(100)) == 12


@pytest.mark.parametrize("cause", ["another system", "the kernel refuses"])
def test_without_steering_one_worker_receives_all_and_one_warning_says_so(
    stack, monkeypatch, cause
):
    if cause == "another system":
        monkeypatch.setattr(steering, "sys", SimpleNamespace(platform="darwin"))
    else:
        monkeypatch.setattr(steering, "SO_ATTACH_REUSEPORT_CBPF", 9999)
    with structlog.testing.capture_logs() as lines:
        rows = open_sockets(settings("127.0.0.1:0", "127.0.0.1:0", workers=4), stack)
    assert [len(row) for row in rows] == [2]
    (line,) = lines
    assert line["event"] == ("packets cannot be steered to several workers: one receives them all")
    assert (line["log_level"], line["workers"]) == ("warning", 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_port_in_use_leaves_nothing_open(stack, workers):
    with bind("127.0.0.1", 0) as free, bind("127.0.0.1", 0) as taken:
        free_port = port_of(free)
        free.close()
        wanted = settings(f"127.0.0.1:{free_port}", f"127.0.0.1:{port_of(taken)}", workers=workers)
        with pytest.raises(ListenError, match="Address already in use"):
            open_sockets(wanted, stack)
    bind("127.0.0.1", free_port).close()


def test_auto_is_a_worker_for_each_core_that_may_be_used(stack, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert usable_cores() == 1
    assert len(open_sockets(settings("127.0.0.1:0", workers="auto"), stack)) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()
