from __future__ import annotations

import json

import pytest

from bench import accounting, churn


@pytest.mark.skipif(not accounting.AVAILABLE, reason="reads Linux's /proc")
def test_tracks_come_and_go(monkeypatch, capsys):
    monkeypatch.setattr(churn, "GROUP_TRACKS", 1)
    monkeypatch.setattr(churn, "STEP_MS", 500)
    churn.simulate(2)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["minute"], second["minute"]) == (1, 2)
    assert first["tracks_opened"] == 20 + 19
    assert second["tracks_opened"] == 20 + 39
    assert second["tracks_open"] == 30
    assert second["packets"] == pytest.approx(2 * 60 * 50 * 20 * 0.99, rel=0.01)
