"""What the service manager is told."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import urllib.request

import pytest
import structlog
from loopback import DEADLINE_S, Serve

from strep.servicemanager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket, and what NOTIFY_SOCKET says of it."""
    if request.param == "path":
        name = address = str(tmp_path / "notify")
    else:
        if not sys.platform.startswith("linux"):
            pytest.skip("abstract names are Linux's")
        address = f"@strep-test-{secrets.token_hex(8)}"
        name = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(DEADLINE_S)
        yield sock, address


def lines(sock):
    return sock.recv(4096).decode().split("\n")


def test_each_thing_is_a_datagram(manager):
    sock, address = manager
    told = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    assert (told.is_there, told.watchdog_s, told.period_s) == (True, 30.0, 10.0)
    told.ready("receiving")
    assert lines(sock) == ["READY=1", "STATUS=receiving"]
    told.alive("2 tracks open", is_well=True)
    assert lines(sock) == ["WATCHDOG=1", "STATUS=2 tracks open"]
    told.alive("0 of 2 workers up", is_well=False)
    assert lines(sock) == ["STATUS=0 of 2 workers up"]
    told.reloading()
    first, second = lines(sock)
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
    told.stopping("draining")
    assert lines(sock) == [
        "STOPPING=1", "EXTEND_TIMEOUT_USEC=75000000", "WATCHDOG=1", "STATUS=draining",
    ]  # fmt: skip
    told.close()
    told.alive("nobody hears it", is_well=True)


def test_without_a_service_manager_nobody_is_told():
    told = ServiceManager.of({})
    assert (told.is_there, told.watchdog_s) == (False, None)
    told.ready("receiving")


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_time_without_a_sign_of_life(variables, watchdog_s):
    assert ServiceManager.of(variables).watchdog_s == watchdog_s


def test_service_manager_that_is_gone_harms_nothing(tmp_path):
    told = ServiceManager(str(tmp_path / "nobody"), 1.0)
    told.alive("well", is_well=True)
    told.close()


def test_address_of_another_kind_is_said():
    with structlog.testing.capture_logs() as said:
        assert not ServiceManager.of({"NOTIFY_SOCKET": "vsock:2:1234"}).is_there
    assert [line["socket"] for line in said] == ["vsock:2:1234"]


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_daemon_tells_its_whole_life(manager, tmp_path):
    sock, address = manager
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
    arguments = ("--drain-timeout-s", "10", "--workers", "2")
    with Serve(tmp_path, *arguments, env=env) as serve:
        assert lines(sock) == ["READY=1", "STATUS=receiving"]
        well = ["WATCHDOG=1", "STATUS=0 tracks open, 2 of 2 workers up"]
        assert [lines(sock), lines(sock), lines(sock)] == [well] * 3
        # a worker that does not answer: no more signs of life, until it does
        with urllib.request.urlopen(f"http://{serve.http}/healthz", timeout=5) as answer:
            pid = json.load(answer)["workers"][1]["pid"]
        os.kill(pid, signal.SIGSTOP)
        while (told := lines(sock)) == well:
            pass
        assert told == ["STATUS=0 tracks open, 1 of 2 workers up"]
        os.kill(pid, signal.SIGCONT)
        while (told := lines(sock)) != well:
            assert "WATCHDOG=1" not in told
        assert serve.stop() == 0
    told = []
    sock.settimeout(0)
    try:
        while True:
            told.append(lines(sock))
    except BlockingIOError:
        pass
    assert told[-1][0] == "STOPPING=1"
    assert told[-1][-1] == "STATUS=finishing recordings"
