"""The demo, whole: a daemon as a process, a call over a bad network, and what came out."""

from __future__ import annotations

import json

import matplotlib.image
import pytest
import soundfile

from strep import cli


def test_demo_shows_a_recorded_call(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["demo", "--out", str(tmp_path), "--speed", "10", "--json"])
    assert not exit_.value.code
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["sent"] + outcome["dropped"] == 2 * 1095
    assert outcome["dropped"] > 5
    tracks = {track["direction"]: track for track in outcome["tracks"]}
    assert set(tracks) == {"inbound", "outbound"}
    assert sum(t["packets"] for t in tracks.values()) == outcome["sent"]
    assert sum(t["lost"] - t["late"] for t in tracks.values()) == outcome["dropped"]
    for track in tracks.values():
        assert len(track["speech"]) >= 2
        assert sum(t["reordered"] for t in tracks.values()) > 0
    pcm, rate_hz = soundfile.read(outcome["recording"])
    assert rate_hz == 8000
    assert pcm.shape[1] == 2
    assert 21 < len(pcm) / rate_hz < 23
    height, width, _ = matplotlib.image.imread(outcome["picture"]).shape
    assert (width, height) == (1600, 700)
