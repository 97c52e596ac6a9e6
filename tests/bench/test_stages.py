from __future__ import annotations

import sys

import pytest

from bench import stages


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(stages, "TRACKS", 1024)
    monkeypatch.setattr(stages, "BATCHES", 2)


STAGES = {
    "compiled": [
        "parse", "look-up", "parse, look-up and columns", "ring, statistics and release in one",
        "decode", "VAD", "key tones",
    ],
    "numpy": [
        "parse", "look-up", "parse, look-up and columns", "ring", "statistics", "release",
        "decode", "VAD", "key tones",
    ],
}  # fmt: skip


def test_every_stage_takes_some_time(kernel):
    found = stages._stages()
    assert list(found) == STAGES[kernel]
    assert all(0 < us < 100 for us in found.values())


def test_whole_path_takes_more_than_its_decoding():
    assert stages._whole() > stages._stages()["decode"]


@pytest.mark.skipif(sys.platform != "linux", reason="a batch at once")
def test_reading_takes_full_batches():
    assert 0 < stages._read() < 100
