"""SIGTERM with time to drain: running calls finish, new ones are refused and counted."""

from __future__ import annotations

import json
import signal
from uuid import UUID

import numpy as np
import pytest
import soundfile
from loopback import Serve

from pipeline.codecs import PCMU
from strep.media import packetize
from strep.sender import send_paced
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader
from strep.workerprocess import run_async

RUNNING = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
ALSO_RUNNING = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
NEW = UUID("0ccc7b54-4df3-4bca-a65a-3da1ecc777f0")
CODES = load_voice("caller")[: 160 * 40]


def send(serve, call_leg_id, first, last, direction=Direction.INBOUND):
    datagrams = packetize(
        CODES,
        payload_type=0,
        ssrc=int(direction) + 1,
        first_sequence=0,
        first_timestamp=0,
        strep=StrepHeader(call_leg_id, direction=direction),
    )[first:last]
    run_async(send_paced([bytes(each) for each in datagrams], np.zeros(last - first), serve.to))


def terminate(serve):
    serve.process.send_signal(signal.SIGTERM)
    serve.wait_until(lambda: serve.readiness()[0] == 503, "the daemon drains")


def logged(serve, event):
    lines = map(json.loads, serve.log.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def recording(folder, call_leg_id):
    (path,) = folder.glob(f"*{call_leg_id}*.wav")
    return path.name, soundfile.read(path, dtype="int16")[0]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_running_calls_finish_and_new_ones_are_refused(tmp_path, workers):
    settings = tmp_path / "strep.toml"
    settings.write_text("idle_timeout_s = 600\n")
    arguments = ("--workers", workers, "--drain-timeout-s", "60", "--config", str(settings))
    with Serve(tmp_path, *arguments) as serve:
        send(serve, RUNNING, 0, 20)
        send(serve, ALSO_RUNNING, 0, 20)
        serve.wait_for("strep_packets_total", 40)
        terminate(serve)
        assert serve.readiness() == (503, ["the daemon is about to stop"])
        send(serve, NEW, 0, 10)
        send(serve, RUNNING, 20, 40)
        # the other side of a running call is no new call
        send(serve, RUNNING, 0, 40, Direction.OUTBOUND)
        serve.wait_for("strep_packets_total", 100)
        serve.wait_for("strep_datagrams_total{draining}", 10)
        metrics = serve.metrics()
        settings.write_text("idle_timeout_s = 0.1\n")
        serve.process.send_signal(signal.SIGHUP)
        assert serve.process.wait(20) == 0
    assert metrics["strep_datagrams_read_total"] == 110
    assert metrics["strep_tracks_opened_total"] == 3
    name, pcm = recording(tmp_path, RUNNING)
    assert np.array_equal(pcm[:6400, 0], PCMU.table[CODES])
    manifest = json.loads((tmp_path / name).with_suffix(".json").read_text())
    assert {track["reason"] for track in manifest["tracks"]} == {"idle"}
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(f"*{NEW}*"))
    assert len(logged(serve, "all calls came to their end")) == 1


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_second_signal_ends_at_once_with_right_files(tmp_path, workers, number):
    with Serve(tmp_path, "--workers", workers, "--drain-timeout-s", "600") as serve:
        send(serve, RUNNING, 0, 40)
        serve.wait_for("strep_packets_total", 40)
        terminate(serve)
        assert serve.stop(number) == 0
    assert not list(tmp_path.glob("*.part"))
    _, pcm = recording(tmp_path, RUNNING)
    assert np.array_equal(pcm[:6400, 0], PCMU.table[CODES])
    assert [line["tracks_open"] for line in logged(
        serve, "not all calls came to their end: their recordings are finished now"
    )] == [1]  # fmt: skip


def test_time_to_drain_is_bounded(tmp_path):
    with Serve(tmp_path, "--drain-timeout-s", "0.3") as serve:
        send(serve, RUNNING, 0, 10)
        serve.wait_for("strep_packets_total", 10)
        assert serve.stop() == 0
    assert not list(tmp_path.glob("*.part"))
