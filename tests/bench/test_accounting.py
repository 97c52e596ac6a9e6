from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from bench import accounting
from bench.accounting import CpuTime, SocketState

pytestmark = pytest.mark.skipif(not accounting.AVAILABLE, reason="reads Linux's /proc")


def test_cpu_time_of_a_busy_process_is_what_it_burnt():
    before = accounting.cpu_time([os.getpid()])
    began_s = time.process_time()
    while time.process_time() - began_s < 0.2:
        pass
    used = accounting.cpu_time([os.getpid()]).since(before)
    assert used.run_s == pytest.approx(0.2, abs=0.05)
    assert used.user_s + used.system_s == pytest.approx(used.run_s)


def test_split_is_brought_to_the_exact_sum():
    used = CpuTime(0.31, 0.11, 0.418).since(CpuTime(0.01, 0.01, 0.014))
    assert used.run_s == pytest.approx(0.404)
    assert used.user_s == pytest.approx(0.303)
    assert used.system_s == pytest.approx(0.101)


def test_ticks_stand_in_where_threads_have_ended():
    assert CpuTime(0.5, 0.25, 0.1).since(CpuTime(0.25, 0.0, 0.2)) == CpuTime(0.25, 0.25, 0.5)


def test_time_without_a_tick_counts_as_system_time():
    assert CpuTime(0.01, 0.0, 0.013).since(CpuTime(0.01, 0.0, 0.01)).user_s == 0.0


def test_descendants_are_found_to_the_last():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        deadline_s = time.monotonic() + 5
        while not (found := accounting.descendants(process.pid)):
            assert time.monotonic() < deadline_s
        assert process.pid in accounting.descendants(os.getpid())
        assert found[0] in accounting.descendants(os.getpid())
        process.communicate(b"\n")
    assert accounting.descendants(process.pid) == []


def test_process_that_has_ended_counts_as_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert accounting.cpu_time([process.pid]) == CpuTime()


def test_resident_memory_grows_by_what_is_touched():
    before = accounting.resident_bytes("self")
    block = np.ones(64 * 2**20, np.uint8)
    assert accounting.resident_bytes(os.getpid()) - before > 0.9 * len(block)


def test_socket_tells_what_it_holds_and_has_lost():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        assert accounting.bound_ports([port, port]) == 1
        assert accounting.udp_sockets([port]) == SocketState(0, 0)
        for _ in range(50):
            udp.sendto(bytes(200), ("127.0.0.1", port))
        state = accounting.udp_sockets([port])
        assert state.queued_bytes > 0
        assert state.drops > 0
        for _ in range(50 - state.drops):
            udp.recv(2048)
        assert accounting.udp_sockets([port]) == SocketState(0, state.drops)
    assert accounting.bound_ports([port]) == 0


def test_core_time_goes_on():
    core = min(os.sched_getaffinity(0))
    assert accounting.core_time(core).busy_s > 0
    with pytest.raises(ValueError, match="there is no core 9999"):
        accounting.core_time(9999)


def test_backlog_drops_are_counted():
    assert accounting.backlog_drops() >= 0
