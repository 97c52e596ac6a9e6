from __future__ import annotations

import numpy as np
import pytest

from bench import vad
from bench.report import Context
from pipeline.codecs import audioop


def wav(codes):
    header = b"RIFF" + bytes(4) + b"WAVEfmt " + (18).to_bytes(4, "little") + bytes(18)
    return header + b"data" + len(codes).to_bytes(4, "little") + codes


@pytest.fixture(autouse=True)
def material(tmp_path, monkeypatch):
    """Name a folder with a clip of a second of sound in two of silence, labelled so."""
    sound = 8000 * np.sin(np.arange(24_000) * 0.8) * (np.arange(24_000) // 8000 == 1)
    codes = audioop.lin2ulaw(sound.astype(np.int16).tobytes(), 2)
    (tmp_path / "vad").mkdir()
    (tmp_path / "vad" / "clip.wav").write_bytes(wav(codes))
    (tmp_path / "vad" / "speech.csv").write_text("file,start_s,end_s\nclip.wav,1.0,2.0\n")
    monkeypatch.setenv("STREP_MATERIAL", str(tmp_path))
    monkeypatch.setattr(vad, "TRACKS", 5)


def test_accuracy_is_of_labelled_clips(tmp_path):
    report = vad.run(Context(tmp_path, seconds=0.2, rounds=1))
    assert report.settings["clips"] == 1
    ours = next(row for row in report.rows if row["detector"] == "vad, NumPy")
    assert ours["tpr"] == 1
    # the padding on both sides: 5 of 50 frames each
    assert ours["tnr"] == 0.9
    assert ours["balanced_accuracy"] == 0.95
    assert ours["us_per_frame"] > 0


def test_without_clips_only_the_cost_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("STREP_MATERIAL", str(tmp_path / "none"))
    report = vad.run(Context(tmp_path, seconds=0.2, rounds=1))
    assert any("no labelled clips" in note for note in report.notes)
    assert {row["balanced_accuracy"] for row in report.rows} == {None}
    assert all(row["us_per_frame"] > 0 for row in report.rows)
