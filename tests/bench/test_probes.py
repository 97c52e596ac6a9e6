from __future__ import annotations

import json
import time

import numpy as np
import pytest

from bench.probes import LatencySink
from pipeline.block import AudioBlock
from pipeline.codecs import PCMU


def block(*late_ms):
    n = len(late_ms)
    return AudioBlock(
        codec=PCMU,
        rows=np.arange(n),
        position=np.zeros(n, np.int64),
        gap_samples=np.zeros(n, np.int64),
        lost=np.zeros(n, np.int64),
        arrival_ns=np.array([time.monotonic_ns() - round(ms * 1e6) for ms in late_ms]),
        payload=np.zeros((n, 160), np.uint8),
    )


def test_latency_is_from_arrival_to_the_call(tmp_path):
    sink = LatencySink(path=tmp_path / "latency.json")
    sink.write(block(*([20.0] * 98 + [50.0] * 2)))
    sink.stop()
    figures = json.loads((tmp_path / "latency.json").read_text())
    assert figures["frames"] == 100
    assert figures["p50_ms"] == pytest.approx(20, abs=5)
    assert figures["p99_ms"] == pytest.approx(50, abs=5)
    assert figures["max_ms"] == pytest.approx(50, abs=5)


def test_first_frames_are_not_measured(tmp_path):
    sink = LatencySink(path=tmp_path / "latency.json", skip_frames=3)
    sink.write(block(900, 900))
    sink.write(block(900))
    sink.write(block(10))
    assert sink.figures()["frames"] == 1
    assert sink.figures()["max_ms"] < 100


def test_what_is_beyond_the_scale_counts_as_its_end(tmp_path):
    sink = LatencySink(path=tmp_path / "latency.json")
    sink.write(block(10_000))
    figures = sink.figures()
    assert figures["p50_ms"] == 2000
    assert figures["max_ms"] >= 10_000
