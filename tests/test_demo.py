"""The demo, whole: carrier and daemon as processes, a call over a bad network, what came out."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import pytest
import soundfile

from strep import cli
from strep.store import Store


def demo(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["demo", *arguments])
    return exit_.value.code, capsys.readouterr()


def test_demo_shows_a_recorded_call_and_can_be_shown_again(tmp_path, capsys):
    code, output = demo(capsys, "--out", str(tmp_path), "--speed", "5", "--json")
    assert not code
    outcome = json.loads(output.out)
    call = outcome["call"]
    assert (call["from"], call["to"]) == ("+15550100001", "+15550199999")
    assert (call["direction"], call["state"]) == ("outgoing", "hangup")
    # the fork begins a moment after the answer
    assert 2 * 1030 < outcome["sent"] + outcome["dropped"] <= 2 * 1095
    assert 20 <= outcome["dropped"] <= 24
    tracks = {track["direction"]: track for track in outcome["tracks"]}
    assert set(tracks) == {"inbound", "outbound"}
    assert sum(t["packets"] for t in tracks.values()) == outcome["sent"]
    assert sum(t["lost"] - t["late"] for t in tracks.values()) == outcome["dropped"]
    assert sum(t["reordered"] for t in tracks.values()) > 0
    assert all(len(track["speech"]) >= 2 for track in tracks.values())
    pcm, rate_hz = soundfile.read(outcome["recording"])
    assert rate_hz == 8000
    assert pcm.shape[1] == 2
    assert 21 < len(pcm) / rate_hz < 22.5
    height, width, _ = matplotlib.image.imread(outcome["picture"]).shape
    assert (width, height) == (1600, 700)
    assert "<html" in Path(outcome["report"]).read_text()[:200].lower()
    with Store(Path(outcome["database"]), read_only=True) as store:
        stored = store.details(call["call_leg_id"])
    assert stored.overview.call.from_number == "+15550100001"
    assert stored.overview.call.to_number == "+15550199999"
    assert [fork.state for fork in stored.forks] == ["stopped"]
    assert [track.recording for track in stored.tracks] == 2 * [outcome["recording"]]

    code, output = demo(capsys, "--out", str(tmp_path), "--speed", "50")
    assert not code
    head, counts, *_ = output.out.splitlines()
    assert head.startswith("+15550100001 called +15550199999: call ")
    assert counts.endswith(" were lost on the way")
    places = dict(line.split(maxsplit=1) for line in output.out.splitlines()[-5:])
    assert list(places) == ["recording", "manifest", "picture", "report", "database"]
    assert all(Path(place).is_file() for place in places.values())
    assert places["recording"] != outcome["recording"]
    assert output.err == ""


@pytest.mark.parametrize("speed", ["1000", "0.01"])
def test_speed_that_no_daemon_can_follow_is_refused(tmp_path, capsys, speed):
    code, output = demo(capsys, "--out", str(tmp_path), "--speed", speed)
    assert code == 2
    assert output.err == f"strep: the speed is {speed}, expected 0.1 to 100\n"


def test_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    code, output = demo(capsys, "--out", str(tmp_path / "file" / "demo"))
    assert code == 2
    assert output.err == f"strep: cannot write to {tmp_path}/file/demo: Not a directory\n"
