"""A call is paused by command and by HTTP, over real daemons and a worker's death."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import urllib.request
from contextlib import closing
from uuid import UUID

import numpy as np
import pytest
import soundfile
from loopback import Serve, needs_steering

from pipeline.codecs import PCMU
from strep import cli
from strep.media import packetize
from strep.wire import Direction, StrepHeader

LEG = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OPEN, SECRET = 0x80, 0x8F
LOUD, TOLD = PCMU.table[OPEN], PCMU.table[SECRET]


@pytest.fixture(autouse=True)
def _steering():
    needs_steering()


class Call:
    """Both directions of a call; packets of 20 ms, each of one code throughout."""

    def __init__(self, codes, sender):
        self._sender = sender
        sound = np.repeat(np.array(codes, np.uint8), 160)
        self.packets = [
            packetize(
                sound,
                payload_type=0,
                ssrc=direction,
                first_sequence=1,
                first_timestamp=0,
                strep=StrepHeader(LEG, direction=direction),
            )
            for direction in (Direction.INBOUND, Direction.OUTBOUND)
        ]

    def send(self, serve, first, last):
        for i in range(first, last):
            for packets in self.packets:
                self._sender.sendto(bytes(packets[i]), serve.to)


def post(serve, path):
    with closing(http.client.HTTPConnection(serve.http, timeout=5)) as connection:
        connection.request("POST", path)
        return json.load(connection.getresponse())


def nothing_told(folder):
    """No file in the folder, whatever it is, has two samples of what was said in the pause."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOLD.tobytes() * 2 not in content, path
            assert bytes([SECRET]) * 4 not in content, path


@pytest.fixture
def sender():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        yield sock


def test_nothing_that_was_said_in_a_pause_is_kept(tmp_path, capsys, monkeypatch, sender):
    call = Call([OPEN] * 20 + [SECRET] * 60 + [OPEN] * 20, sender)
    arguments = ("--workers", "2", "--sink", "wav:flush_s=0.05", "--sink", "log:path=/dev/null")
    with Serve(tmp_path, *arguments) as serve:
        call.send(serve, 0, 20)
        serve.wait_for("strep_packets_total", 40)
        monkeypatch.setenv("STREP_DAEMON", f"http://{serve.http}")
        with pytest.raises(SystemExit) as exit_:
            cli.main(["calls", "pause", str(LEG)[:8]])
        assert (exit_.value.code, capsys.readouterr().out) == (0, f"{LEG} paused\n")
        call.send(serve, 20, 40)
        serve.wait_for("strep_packets_total", 80)
        with urllib.request.urlopen(f"http://{serve.http}/v1/calls", timeout=5) as answer:
            worker = json.load(answer)["calls"][0]["worker"]
        with urllib.request.urlopen(f"http://{serve.http}/healthz", timeout=5) as answer:
            pid = json.load(answer)["workers"][worker]["pid"]
        serve.wait_until(
            lambda: any(p.stat().st_size >= 94 + 4 * 3200 for p in tmp_path.glob("*.part")),
            "what came before the pause is on disk",
        )
        os.kill(pid, signal.SIGKILL)
        call.send(serve, 40, 60)
        serve.wait_for("strep_packets_total", 120)
        nothing_told(tmp_path)
        assert serve.stop() == 0
    with Serve(tmp_path, *arguments[2:]) as serve:
        call.send(serve, 60, 80)
        serve.wait_for("strep_packets_total", 40)
        assert post(serve, f"/v1/calls/{LEG}/recording/resume") == {
            "call_leg_id": str(LEG),
            "is_paused": False,
        }
        call.send(serve, 80, 100)
        serve.wait_for("strep_packets_total", 80)
        assert serve.stop() == 0
    nothing_told(tmp_path)
    assert list((tmp_path / ".paused").iterdir()) == []
    assert not list(tmp_path.glob("*.part"))
    # those of one second differ by a number, which sorts before the suffix
    killed, second, third = sorted(
        tmp_path.glob("*.wav"),
        key=lambda p: json.loads(p.with_suffix(".json").read_text())["started_at"],
    )
    sound, _ = soundfile.read(killed, dtype="int16")
    left, right = sound.T
    assert (left[:3200] == LOUD).all()
    assert not left[3200:].any()
    said = np.flatnonzero(right)  # it begins where its first packet arrived: soon, not at once
    assert (right[said] == LOUD).all()
    assert said[0] < 800
    assert said[-1] - said[0] < 3200
    assert not soundfile.read(second, dtype="int16")[0].any()
    assert np.count_nonzero(soundfile.read(third, dtype="int16")[0] == LOUD) == 2 * 3200
    marks = [json.loads(p.with_suffix(".json").read_text())["marks"] for p in (second, third)]
    assert [[mark["kind"] for mark in each] for each in marks] == [
        ["paused"],
        ["paused", "resumed"],
    ]
    assert marks[0][0]["at_s"] == marks[1][0]["at_s"] == 0
