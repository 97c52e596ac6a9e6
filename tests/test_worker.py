"""A worker in this process: what it does with what it is told of a call."""

from __future__ import annotations

import gc
import json
import socket
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from loopback import Serve
from wirecases import CALL, rtp, strep

from pipeline.decoders import load_library
from strep.config import Settings
from strep.wire import Endpoint, PacketBatch
from strep.worker import Live, Worker

LARGE = bytes([31 << 3]) + bytes(40)
"""Opus: one frame of 20 ms."""


@pytest.mark.skipif(load_library() is None, reason="needs PyAV: strep[codecs]")
@pytest.mark.parametrize(
    ("codecs", "is_decoded"), [("PCMU,OPUS", True), ("PCMU", False), (None, False), (7, False)]
)
def test_a_declared_codec_is_decoded_whether_it_was_told_before_or_after(
    tmp_path, codecs, is_decoded
):
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        told = {"media": "127.0.0.1:0", "sinks": [], "recordings": Path(tmp_path)}
        worker = Worker(Settings(**told), [sock], tell=lambda *_: None)
        batch = PacketBatch()
        for number in range(4):
            if number == 2:
                worker.announce(CALL, {} if codecs is None else {"codecs": codecs})
            packet = rtp(LARGE, payload_type=111, sequence=number, timestamp=960 * number)
            batch.clear()
            batch.add(strep(packet), 20_000_000 * number, bytes(24), bytes(24))
            worker.receiver.receive(batch)
        later = rtp(LARGE, payload_type=111, sequence=1, timestamp=0)
        batch.clear()
        batch.add(strep(later, first=0xC5), 100_000_000, bytes(24), bytes(24))
        worker.receiver.receive(batch)
        pipeline = worker.receiver.pipeline
        codecs_heard = [pipeline.summary(row, "end").codec for row in (0, 1)]
        end = [int(np.int64(each)) for each in pipeline.playout.end[:2]]
        worker.stop()
    assert codecs_heard == (["opus", "opus"] if is_decoded else ["unknown", "unknown"])
    assert end == ([1920, 960] if is_decoded else [0, 0])


@pytest.mark.skipif(load_library() is None, reason="needs PyAV: strep[codecs]")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_packet_has_to_wait_until_pyav_is_loaded(tmp_path, workers):
    with Serve(tmp_path, "--workers", workers) as serve:
        with urllib.request.urlopen(f"http://{serve.http}/healthz", timeout=5) as answer:
            health = json.load(answer)
        pids = [each["pid"] for each in health.get("workers", [])] or [serve.process.pid]
        assert len(pids) == int(workers)
        for pid in pids:
            assert "libavcodec" in Path(f"/proc/{pid}/maps").read_text()


def test_settings_that_change_reach_the_receiver(tmp_path):
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        told = {"media": "127.0.0.1:0", "sinks": [], "recordings": Path(tmp_path)}
        worker = Worker(Settings(**told), [sock], tell=lambda *_: None)
        changed = {"idle_timeout_s": 5, "mouth_to_ear_ms": 150, "allowed_sources": ["192.0.2.0/24"]}
        worker.reload(Live.of(Settings(**told, **changed)))
        assert worker.receiver.idle_timeout_ns == 5_000_000_000
        assert worker.receiver.pipeline.mouth_to_ear_ms == 150
        batch = PacketBatch()
        batch.add(strep(rtp()), 0, Endpoint.of("198.51.100.9", 4000).pack(), bytes(24))
        worker.receiver.receive(batch)
        assert worker.receiver.datagrams["source_not_allowed"] == 1
        worker.stop()


@pytest.fixture
def as_python_has_it():
    """Python's own collector and switch interval, which every worker changes, before and after."""
    threshold, interval_s = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()
    sys.setswitchinterval(0.005)
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("as_python_has_it")
def test_the_receive_loop_seldom_waits_for_the_collector_or_another_thread(tmp_path):
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        settings = Settings(media="127.0.0.1:0", sinks=[], recordings=Path(tmp_path))
        worker = Worker(settings, [sock], tell=lambda *_: None)
        assert gc.get_threshold()[:2] == (10_000, 10)
        assert gc.get_freeze_count() > 1000
        assert sys.getswitchinterval() == pytest.approx(0.001)
        worker.stop()
