from __future__ import annotations

import json
import socket
from collections import Counter
from uuid import UUID

import numpy as np
import pytest

from bench.load import Pace, main, pace, run
from bench.sending import Sender
from bench.traffic import Slab, Traffic
from strep.wire import RtpHeader, StrepHeader

MS = 1_000_000


class Clock:
    """Time that passes by sleeping and sending alone."""

    def __init__(self, send_ns=0, oversleep_ns=0):
        self.now_ns = 7_000 * MS
        self.send_ns = send_ns
        self.oversleep_ns = oversleep_ns
        self.sent = []

    def __call__(self):
        return self.now_ns

    def sleep(self, seconds):
        assert seconds > 0
        self.now_ns += round(seconds * 1e9) + self.oversleep_ns

    def send(self, slab, first, stop):
        self.sent.append(((self.now_ns - 7_000 * MS) / MS, slab.index[first:stop].tolist()))
        self.now_ns += self.send_ns * (stop - first)


def paced(due_ms, *, max_burst=100, split=None, give_up_ns=10**12, **clock):
    clock = Clock(**clock)
    index = np.arange(len(due_ms))
    due_ns = np.array([round(ms * MS) for ms in due_ms])
    cuts = [split] if split else []
    slabs = [Slab(i, d) for i, d in zip(np.split(index, cuts), np.split(due_ns, cuts), strict=True)]
    done = pace(
        slabs, clock.send, max_burst=max_burst, give_up_ns=give_up_ns,
        clock_ns=clock, sleep_s=clock.sleep,
    )  # fmt: skip
    return done, clock.sent


def test_packets_leave_on_a_grid_of_a_millisecond():
    done, sent = paced([0, 0.4, 0.9, 1.0, 1.3, 3.5])
    assert sent == [(0, [0]), (1, [1, 2, 3]), (2, [4]), (4, [5])]
    assert done.packets == 6
    assert done.late_ns == [0, 600_000, 700_000, 500_000]


def test_schedule_is_absolute_so_that_oversleeping_adds_up_to_nothing():
    done, sent = paced(np.arange(0, 20, 1.0), oversleep_ns=100_000)
    assert sent[-1] == (19.1, [19])
    assert max(done.late_ns) == 100_000


def test_burst_is_no_longer_than_told_and_what_is_overdue_follows_at_once():
    _, sent = paced([0, 0.1, 0.2, 0.3, 0.4, 0.5, 5], max_burst=2, send_ns=10_000)
    assert [packets for _, packets in sent] == [[0], [1, 2], [3, 4], [5], [6]]
    assert [at for at, _ in sent] == [0, 1, 1.02, 1.04, 5]


def test_slow_sender_falls_behind_and_says_so():
    done, sent = paced(np.arange(0, 10, 0.1), max_burst=10, send_ns=200_000)
    assert sum(len(packets) for _, packets in sent) == 100
    assert done.as_dict()["late_max_ms"] > 9
    assert done.as_dict()["rate_pps"] < 6000


def test_sender_gives_up_after_its_time():
    done, sent = paced(np.arange(0, 10, 0.1), max_burst=10, send_ns=200_000, give_up_ns=5 * MS)
    assert done.gave_up
    assert done.packets == sum(len(packets) for _, packets in sent) < 100


def test_slabs_join_without_a_seam():
    _, sent = paced([0, 0.5, 1.5, 2.5], split=2)
    assert [packet for _, packets in sent for packet in packets] == [0, 1, 2, 3]
    assert sent[-1] == (3, [3])


def test_rate_is_that_between_first_and_last_burst():
    assert Pace(packets=500, last_ns=500 * MS, late_ns=[0, 2 * MS]).as_dict() == {
        "seconds": 0.5,
        "rate_pps": 1000.0,
        "late_p50_ms": 1.0,
        "late_p99_ms": 1.98,
        "late_max_ms": 2.0,
    }


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        yield udp


def received(listener):
    arrived = []
    while True:
        try:
            arrived.append(listener.recv(2048))
        except BlockingIOError:
            return arrived


@pytest.mark.parametrize("method", ["segment", "sendmmsg", "send"])
def test_all_that_is_said_to_be_sent_arrives_in_order(listener, method):
    traffic = Traffic(tracks=10, rate_pps=1000)
    report = run(traffic, Sender(*at(listener), method=method), packets=500)
    assert (report["sent"], report["left_out"], report["errors"]) == (500, 0, {})
    assert report["method"] == method
    headers = [StrepHeader.parse(d) for d in received(listener)]
    assert len(headers) == 500
    sequences = {}
    for strep, rest in headers:
        sequences.setdefault((strep.call_leg_id, strep.direction), []).append(
            RtpHeader.parse(rest)[0].sequence
        )
    assert len(sequences) == 10
    for numbers in sequences.values():
        assert numbers == [(numbers[0] + i) % 2**16 for i in range(50)]


def test_next_stretch_goes_on_where_the_last_one_stopped(listener):
    traffic = Traffic(tracks=1, rate_pps=5000)
    first = run(traffic, Sender(*at(listener)), packets=10)
    second = run(traffic, Sender(*at(listener)), first=first["next"], packets=10)
    assert (first["next"], second["next"]) == (10, 20)
    numbers = [RtpHeader.parse(StrepHeader.parse(d)[1])[0].sequence for d in received(listener)]
    assert numbers == [(numbers[0] + i) % 2**16 for i in range(20)]


def test_packets_lost_on_purpose_are_not_sent(listener):
    traffic = Traffic(tracks=10, rate_pps=1000, loss=0.2)
    report = run(traffic, Sender(*at(listener)), packets=1000)
    assert report["sent"] == len(received(listener))
    assert report["sent"] + report["left_out"] == 1000
    assert report["left_out"] == 188


def test_each_track_can_have_a_port_of_its_own(listener):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.setblocking(False)
        ports = [listener.getsockname()[1], other.getsockname()[1]]
        traffic = Traffic(tracks=2, rate_pps=1000, wrapping="rtp")
        report = run(traffic, Sender("127.0.0.1", ports), packets=100)
        assert report["method"] == "sendmmsg"
        for sock in (listener, other):
            arrived = [RtpHeader.parse(d)[0].ssrc for d in received(sock)]
            assert len(arrived) == 50
            assert len(set(arrived)) == 1


def test_nobody_listening_is_said(listener):
    to = at(listener)
    listener.close()
    report = run(Traffic(tracks=1, rate_pps=1000), Sender(*to), packets=50)
    assert report["errors"]["ECONNREFUSED"] > 0


def at(listener):
    host, port = listener.getsockname()
    return host, [port]


def command(*words):
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


def test_command_reports_as_json(listener, capsys):
    to = f"127.0.0.1:{listener.getsockname()[1]}"
    assert command("--to", to, "--tracks", "20", "--rate", "2000", "--seconds", "0.1") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sent"] == 200
    assert report["wanted_pps"] == 2000.0
    assert 1800 < report["rate_pps"] < 2200
    arrived = Counter(UUID(bytes=d[8:24]) for d in received(listener))
    assert list(arrived.values()) == [20] * 10


def test_other_machines_are_refused_unless_allowed(capsys):
    assert command("--to", "192.0.2.1:9", "--tracks", "1") == 2
    assert "192.0.2.1 is not on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--tracks", "0", "--rate", "100"], "'0' is not a whole number from 1 to 1,000,000"),
        (["--rate", "0"], "argument --rate: '0' is not a number from 0.001 to 10,000,000"),
        (["--rate", "nan"], "argument --rate: 'nan' is not a number"),
        (["--seconds", "-1"], "argument --seconds: '-1' is not a number from 0.001 to 86,400"),
        (["--packets", "0"], "'0' is not a whole number from 1 to 1,000,000,000,000"),
        (["--first", "-1"], "argument --first: '-1' is not a whole number from 0 to"),
        (["--port-step", "-1"], "'-1' is not a whole number from 0 to 65,535"),
        (["--tracks", "3", "--port-step", "40000"], "last track's port is 80009, expected at most"),
        (["--pause-samples", "-1"], "'-1' is not a whole number from 0 to 4,294,967,295"),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number from 0 to 4,294,967,295"),
        (["--cpu", "-1"], "argument --cpu: '-1' is not a whole number from 0 to"),
        (["--most-segments", "0"], "'0' is not a whole number from 1 to 64"),
        (["--loss", "2"], "loss is 2.0, expected 0 to 0.99"),
        (["--loss", "nan"], "loss is nan, expected 0 to 0.99"),
    ],
)
def test_wrong_arguments_are_named(words, message, capsys):
    assert command("--to", "127.0.0.1:9", "--tracks", "1", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
