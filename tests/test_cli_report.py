"""`strep report`, as people use and misuse it."""

from __future__ import annotations

import json

import pytest
from reportcall import CALL_LEG_ID, make_call

from strep import cli
from strep.store import Store, StoredCall, StoredTrack, unix_ns


def strep(capsys, *arguments):
    """Run the command in this process; return (exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


@pytest.fixture
def call(tmp_path):
    return make_call(tmp_path / "calls")


def store(path, manifest):
    """Keep the tracks of a manifest in a database, as the daemon does."""
    document = json.loads(manifest.read_text())
    with Store(path) as database:
        database.put_call(
            StoredCall(
                call_leg_id=CALL_LEG_ID,
                started_ns=unix_ns(document["started_at"]),
                from_number="+15550100001",
                to_number="+15550199999",
                direction="incoming",
            )
        )
        for track in document["tracks"]:
            database.put_track(StoredTrack.of(track | {"manifest": str(manifest)}, worker=0))


def page_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_manifest_and_recording_name_the_same_call(capsys, call):
    for named in (call, call.with_suffix(".wav")):
        code, out, err = strep(capsys, "report", named)
        assert (code, err) == (0, "")
        assert out.startswith(f"{call.with_suffix('.html')} (1 recording; 0.")


def test_folder_gets_its_report(capsys, call):
    make_call(call.parent / "below")
    (call.parent / "settings.json").write_text("{}")
    code, out, err = strep(capsys, "report", call.parent, "--max-audio-mb", "0", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["report"] == str(call.parent / "report.html")
    assert (told["audio_embedded"], told["audio_linked"], told["problems"]) == (0, 1, [])
    assert "1 JSON files" not in err
    assert "1 JSON file in" in err
    assert "settings.json" in err
    assert page_of(call.parent / "report.html")["title"] == "Calls in calls"


def test_call_is_found_by_its_id_in_the_database(capsys, call, tmp_path):
    store(tmp_path / "strep.db", call)
    out = tmp_path / "out.html"
    arguments = ("report", CALL_LEG_ID[:8], "--database", tmp_path / "strep.db", "--out", out)
    assert strep(capsys, *arguments)[0] == 0
    (view,) = page_of(out)["views"]
    assert view["audio"]["kind"] == "embedded"
    assert view["from"] == "+15550100001"


def test_call_whose_files_have_gone_is_shown_by_what_the_database_knows(capsys, call, tmp_path):
    store(tmp_path / "strep.db", call)
    call.unlink()
    out = tmp_path / "out.html"
    arguments = ("report", CALL_LEG_ID, "--database", tmp_path / "strep.db", "--out", out)
    assert strep(capsys, *arguments)[0] == 0
    (view,) = page_of(out)["views"]
    assert view["audio"] is None
    assert (view["from"], view["duration_s"]) == ("+15550100001", 60.0)
    assert [len(lane["speech"]) > 3 for lane in view["lanes"]] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone.json",), "cannot read gone.json: No such file or directory"),
        (("gone.wav",), "cannot read gone.json: No such file or directory"),
        (("ffff",), "'ffff' is no file or folder, nor the id of a call: there is no call ffff"),
        (("../strep.db",), "../strep.db is neither a manifest, a recording nor a folder of them"),
        ((".",), "holds no manifest of a recorded call"),
        ((".", "--max-audio-mb", "x"), "'x' is not a number of megabytes from 0 to 1000"),
        ((".", "--max-audio-mb", "nan"), "'nan' is not a number of megabytes from 0 to 1000"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(capsys, call, tmp_path, monkeypatch, arguments, message):
    store(tmp_path / "strep.db", call)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, out, err = strep(capsys, "report", *arguments, "--database", tmp_path / "strep.db")
    assert (code, out) == (2, "")
    assert message in err
    assert (err.count("\n"), "Traceback" in err) == (1, False)
