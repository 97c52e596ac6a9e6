from __future__ import annotations

from bench import codecs
from bench.report import Context
from pipeline.decoders import load_library


def test_every_codec_takes_some_time(monkeypatch, tmp_path):
    monkeypatch.setattr(codecs, "TRACKS", 100)
    monkeypatch.setattr(codecs, "CODED_TRACKS", 3)
    monkeypatch.setattr(codecs, "BATCHES", 4)
    report = codecs.run(Context(tmp_path, rounds=1))
    further = [] if load_library() is None else ["GSM", "G729", "G722", "opus"]
    assert [row["codec"] for row in report.rows] == ["PCMU", "L16", *further]
    assert all(row["us_per_packet"] > 0 for row in report.rows)
    assert codecs.tables(report)[0].row_count == len(report.rows)
