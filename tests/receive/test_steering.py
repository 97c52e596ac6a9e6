"""Real sockets on one port: the kernel's choice and Python's are the same."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from types import SimpleNamespace
from uuid import UUID

import pytest

from strep.receive import steering
from strep.receive.sockets import ListenError, bind
from strep.receive.steering import (
    SteeringError,
    bind_group,
    program,
    worker_of,
    worker_of_stream,
)
from strep.wire import Direction, Leg, RtpHeader, StrepHeader

NODE = 0x02420A0F7768
CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")


def random_ids(count):
    generator = random.Random(7)
    return [UUID(int=generator.getrandbits(128), version=4) for _ in range(count)]


def time_based_ids(count, step):
    """UUIDs of version 1 as one node makes them, one every `step` times 100 ns."""
    first = 0x1EA_F9E0_2DC6FC34
    return [
        UUID(
            fields=(
                time & 0xFFFFFFFF,
                time >> 32 & 0xFFFF,
                time >> 48 | 0x1000,
                0xB6,
                0x8E,
                NODE,
            )
        )
        for time in range(first, first + count * step, step)
    ]


@pytest.fixture
def group():
    """Bind a group on loopback; skip where the kernel does not steer."""
    opened = []

    def open_group(workers, *, host="127.0.0.1", **more):
        try:
            sockets = bind_group(host, 0, workers, **more)
        except SteeringError as error:
            pytest.skip(f"no steering here: {error}")
        opened.extend(sockets)
        return sockets

    yield open_group
    for sock in opened:
        sock.close()


def received_by(sockets, datagram):
    """Send a datagram to the group; return the index of the socket that has it."""
    to = sockets[0].getsockname()
    with socket.socket(sockets[0].family, socket.SOCK_DGRAM) as sender:
        sender.sendto(datagram, to)
    got = []
    for index, sock in enumerate(sockets):
        try:
            assert sock.recv(2000) == datagram
        except BlockingIOError:
            continue
        got.append(index)
    (index,) = got
    return index


def strep(call_leg_id, leg=Leg.A, direction=Direction.INBOUND):
    return StrepHeader(call_leg_id, leg=leg, direction=direction).pack() + rtp(1)


def rtp(ssrc):
    return RtpHeader(0, 1, 2, ssrc).pack() + bytes(160)


def test_each_worker_is_chosen_by_these_call_legs():
    # pinned: which worker has a call is the same in every run
    assert [worker_of(CALL, workers) for workers in (1, 2, 3, 4, 8, 256)] == [0, 1, 1, 3, 3, 51]
    assert [worker_of_stream(ssrc, 4) for ssrc in (0, 1, 2, 3, 0xFFFFFFFF)] == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_kernel_and_python_choose_the_same_worker(group, workers):
    sockets = group(workers)
    ids = random_ids(50) + time_based_ids(50, 10_000)
    assert [received_by(sockets, strep(i)) for i in ids] == [worker_of(i, workers) for i in ids]
    ssrcs = [random.Random(3).getrandbits(32) for _ in range(20)] + [0, 1, 2, 2**32 - 1]
    assert [received_by(sockets, rtp(s)) for s in ssrcs] == [
        worker_of_stream(s, workers) for s in ssrcs
    ]


def test_ipv6_is_steered_as_well(group):
    try:
        sockets = group(3, host="::1")
    except ListenError as error:
        pytest.skip(str(error))
    ids = random_ids(20)
    assert [received_by(sockets, strep(i)) for i in ids] == [worker_of(i, 3) for i in ids]


def test_both_directions_of_both_legs_reach_one_worker(group):
    sockets = group(8)
    for call_leg_id in random_ids(20):
        reached = {
            received_by(sockets, strep(call_leg_id, leg, direction))
            for leg in Leg
            for direction in Direction
        }
        assert len(reached) == 1


def test_header_length_version_and_reserved_bytes_change_nothing(group):
    sockets = group(8)
    rest = bytes([0xFF, 1, 2, 3, 4, 5, 6]) + CALL.bytes
    assert received_by(sockets, bytes([0xFF]) + rest) == worker_of(CALL, 8)


@pytest.mark.parametrize("first", [b"\xc4", b"\x80"])
@pytest.mark.parametrize("length", [0, 1, 8, 11])
def test_what_is_too_short_to_tell_goes_to_worker_0(group, first, length):
    assert received_by(group(4), (first + b"\xa5" * 22)[:length]) == 0


def test_strep_that_ends_within_its_call_leg_id_goes_to_worker_0(group):
    sockets = group(4)
    assert worker_of(CALL, 4) == 3
    assert received_by(sockets, strep(CALL)[:23]) == 0
    assert received_by(sockets, strep(CALL)[:24]) == 3


def test_port_of_a_call_leg_steers_its_rtp_to_one_worker_and_strep_by_its_own(group):
    sockets = group(4, rtp_to=worker_of(CALL, 4))
    for datagram in (rtp(1), rtp(2), rtp(3), b"\x80", b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"):
        assert received_by(sockets, datagram) == 3 == worker_of(CALL, 4)
    assert received_by(sockets, b"") == 0
    for call_leg_id in random_ids(10):
        assert received_by(sockets, strep(call_leg_id)) == worker_of(call_leg_id, 4)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(random_ids(20_000), id="version-4"),
        pytest.param(time_based_ids(20_000, 1), id="version-1, one every 100 ns"),
        pytest.param(time_based_ids(20_000, 10_000), id="version-1, one every ms"),
        pytest.param(time_based_ids(20_000, 10_000_000), id="version-1, one every second"),
        pytest.param(time_based_ids(20_000, 2**32), id="version-1, time_low never changes"),
    ],
)
@pytest.mark.parametrize("workers", range(2, 9))
def test_each_worker_gets_its_share_of_calls_to_within_a_tenth(ids, workers):
    shares = Counter(worker_of(call_leg_id, workers) for call_leg_id in ids)
    for worker in range(workers):
        assert shares[worker] * workers == pytest.approx(20_000, rel=0.1)


def test_each_worker_gets_its_share_of_plain_rtp_to_within_a_tenth():
    shares = Counter(worker_of_stream(ssrc, 4) for ssrc in range(20_000))
    for worker in range(4):
        assert shares[worker] * 4 == pytest.approx(20_000, rel=0.1)


def test_program_is_short_enough_for_the_kernel_at_any_number_of_workers():
    assert {len(program(workers)) // 8 for workers in (2, 256)} == {50}
    assert len(program(256, rtp_to=255)) // 8 == 38


def test_port_that_another_group_has_is_refused_and_not_shared(group):
    host, port = group(2)[0].getsockname()
    for open_again in (lambda: bind_group(host, port, 2), lambda: bind(host, port)):
        with pytest.raises(ListenError, match="Address already in use"):
            open_again()


def test_what_came_before_the_program_was_attached_is_discarded(monkeypatch, group):
    attach = steering._attach

    def send_first(sock, code):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for call_leg_id in random_ids(20):
                sender.sendto(strep(call_leg_id), sock.getsockname())
        attach(sock, code)

    monkeypatch.setattr(steering, "_attach", send_first)
    for sock in group(4):
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_refused_program_is_said_and_leaves_no_socket(monkeypatch):
    monkeypatch.setattr(steering, "SO_ATTACH_REUSEPORT_CBPF", 9999)  # no option of any kernel
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(SteeringError, match=r"^Protocol not available$"):
        bind_group("127.0.0.1", port, 2)
    bind("127.0.0.1", port).close()


def test_elsewhere_nothing_is_steered(monkeypatch):
    monkeypatch.setattr(steering, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(SteeringError, match="only Linux"):
        bind_group("127.0.0.1", 0, 2)


def test_instruction_is_eight_bytes_of_the_kernels_layout():
    # struct sock_filter: code, jt, jf, k; the last instruction returns A
    assert struct.unpack("=HBBI", program(3)[-8:]) == (0x16, 0, 0, 0)
    assert struct.unpack("=HBBI", program(3)[-16:-8]) == (0x94, 0, 0, 3)
