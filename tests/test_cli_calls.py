"""`strep calls`, as people use and misuse it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from apibench import ApiBench
from capturefile import datagram, ethernet, pcap
from storedcalls import CALL, CLOSED, CONTROL_ID, FORK, LEG, NOON_NS, S_NS

from strep import cli
from strep.cli import calls, output
from strep.media import packetize
from strep.pauses import PauseError
from strep.store import Store, StoredCall, StoredTrack
from strep.voices import load_voice

OPEN_LEG = "2dc6fc34-f9e0-11ea-b68e-02420a0f7768"
MEDIA_LEG = "2dc6fc35-f9e0-11ea-b68e-02420a0f7768"
ENDED_NS = NOON_NS + 3700 * S_NS
TRACK = CLOSED | {
    "ended_at": "2026-01-31T12:59:06.000Z",
    "duration_s": 3540.02,
    "packets": 177_001,
    "lost": 12,
    "jitter_mean_ms": 1.234,
    "reordered": 3,
    "drift_ppm": -12.5,
    "quality": {"mos": 4.386, "mos_concealed": 4.4, "burst": {"runs": 4, "longest_packets": 5}},
    "speech": [[0.5, 1.0], [3.0, 7.25]],
}


@pytest.fixture
def database(tmp_path):
    """Three calls: one that is over, one that is open, and the media of a third."""
    path = tmp_path / "strep.db"
    with Store(path) as store:
        store.put_call(replace(CALL, ended_ns=ENDED_NS))
        store.put_call(
            StoredCall(
                call_leg_id=OPEN_LEG,
                started_ns=NOON_NS + S_NS,
                call_control_id="v3:open",
                from_number="+35319605861",
                to_number="sip:[i]bob\x1b[31m@example.org",
                direction="outgoing",
                state="answered",
            )
        )
        store.put_fork(replace(FORK, id="fork-1", stopped_ns=ENDED_NS))
        opened = {key: TRACK[key] for key in ("call_leg_id", "leg", "opened_at")}
        store.put_track(StoredTrack.of(opened | {"direction": "outbound"}, worker=0))
        store.interrupt_tracks()
        store.put_track(StoredTrack.of(TRACK, worker=0))
        media = opened | {"call_leg_id": MEDIA_LEG, "direction": "inbound"}
        store.put_track(StoredTrack.of(media, worker=0))
    return path


@pytest.fixture
def strep(capsys, database, monkeypatch):
    """Run `strep calls` on the database in this process; return (exit code, stdout, stderr)."""

    def run(*arguments, path=database, columns=80):
        monkeypatch.setattr(output.out, "width", columns)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["calls", "--database", str(path), *arguments])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


@pytest.fixture
def found(strep):
    """Run `strep calls --json`; return the leg ids."""

    def run(*arguments):
        code, out, err = strep("--json", *arguments)
        assert (code, err) == (0, "")
        return [call["call_leg_id"] for call in json.loads(out)["calls"]]

    return run


def test_the_list_fits_80_columns(strep):
    code, out, err = strep()
    assert (code, err) == (0, "")
    assert out.replace("\ufffd", "?").replace("\u2026", "~").splitlines() == [
        "call leg began (UTC)      from         to            state    duration lost  mos",
        "2dc6fc35 2026-01-31 12:00 -            -             -            open    0    -",
        "2dc6fc34 2026-01-31 12:00 +35319605861 sip:[i]bob?[~ answered     open    0    -",
        "428c31b6 2026-01-31 12:00 +35319605860 +18005550100  hangup    1:01:35   12 4.39",
    ]


def test_a_wide_terminal_is_shown_more(strep):
    _, out, _ = strep(columns=170)
    head, _, opened, ended = out.splitlines()
    assert head.split() == [
        "call", "leg", "began", "(UTC)", "from", "to", "direction", "state", "hangup", "cause",
        "duration", "packets", "lost", "loss", "burst", "jitter", "mos",
    ]  # fmt: skip
    assert "sip:[i]bob\ufffd[31m@example.org" in opened
    assert ended.split()[-11:] == [
        "incoming", "hangup", "normal_clearing", "1:01:35", "177001", "12", "0.01%", "5", "1.2",
        "ms", "4.39",
    ]  # fmt: skip


def test_json_has_all_that_is_known_of_a_call(strep):
    code, out, _ = strep("--json", "--leg", LEG)
    assert code == 0
    assert json.loads(out) == {
        "calls": [
            {
                "call_leg_id": LEG,
                "started_at": "2026-01-31T12:00:00.000Z",
                "call_control_id": CONTROL_ID,
                "call_session_id": "2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
                "connection_id": "7267",
                "from": "+35319605860",
                "to": "+18005550100",
                "direction": "incoming",
                "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
                "state": "hangup",
                "answered_at": "2026-01-31T12:00:05.000Z",
                "ended_at": "2026-01-31T13:01:40.000Z",
                "hangup_cause": "normal_clearing",
                "codecs": None,
                "told_at": None,
                "is_open": False,
                "duration_s": 3695.0,
                "packets": 177_001,
                "lost": 12,
                "quality": {
                    "mos": 4.386,
                    "mos_concealed": 4.4,
                    "loss_ratio": 0.000068,
                    "discard_ratio": 0.000006,
                    "reorder_ratio": 0.000017,
                    "burst_mean_packets": 3.0,
                    "burst_longest_packets": 5,
                    "jitter_mean_ms": 1.234,
                    "drift_ppm": -12.5,
                },
            }
        ],
        "next": None,
    }


@pytest.mark.parametrize(
    ("arguments", "legs"),
    [
        ([], [MEDIA_LEG, OPEN_LEG, LEG]),
        (["--number", "+35319605860"], [LEG]),
        (["--number", "3531960"], [OPEN_LEG, LEG]),
        (["--number", "0100"], [LEG]),
        (["--number", "5\udcff"], []),
        (["--leg", "2DC6"], [MEDIA_LEG, OPEN_LEG]),
        (["--open"], [MEDIA_LEG, OPEN_LEG]),
        (["--since", "2026-01-31T12:00:01Z"], [MEDIA_LEG, OPEN_LEG]),
        (["--until", "2026-01-31T13:00:01+01:00"], [LEG]),
        (["--since", "2026-01-31", "--until", "2026-02-01"], [MEDIA_LEG, OPEN_LEG, LEG]),
        (["--since", "1m"], []),
        (["--until", "1m"], [MEDIA_LEG, OPEN_LEG, LEG]),
        (["--limit", "1"], [MEDIA_LEG]),
        (["--limit", "1", "--after", MEDIA_LEG], [OPEN_LEG]),
    ],
)
def test_searches(found, arguments, legs):
    assert found(*arguments) == legs


def test_a_list_that_was_cut_says_how_to_go_on(strep):
    _, out, _ = strep("--limit", "2")
    assert out.endswith(f"there are more: --after {OPEN_LEG}\n")
    _, out, _ = strep("--limit", "2", "--after", OPEN_LEG)
    assert out.splitlines()[1].startswith("428c31b6 ")
    assert "there are more" not in out


def test_nothing_found_is_no_fault(strep):
    assert strep("--number", "999999") == (0, "no calls\n", "")
    assert strep("--number", "999999", "--json") == (
        0, '{\n  "calls": [],\n  "next": null\n}\n', "",
    )  # fmt: skip


def test_show_has_the_call_its_forks_its_tracks_and_its_files(strep):
    code, out, err = strep("show", "428c")
    assert (code, err) == (0, "")
    assert [line.rstrip() for line in out.splitlines()] == [
        "call leg     428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "control id   v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg",
        "session      2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
        "connection   7267",
        "from         +35319605860",
        "to           +18005550100",
        "direction    incoming",
        "client state aGF2ZSBhIG5pY2UgZGF5ID1d",
        "state        hangup",
        "hangup cause normal_clearing",
        "began (UTC)  2026-01-31 12:00:00",
        "answered     2026-01-31 12:00:05",
        "ended        2026-01-31 13:01:40",
        "duration     1:01:35",
        "",
        "fork   requested           way                state   why",
        "fork-1 2026-01-31 12:00:05 ports 20000, 20001 stopped call.hangup",
        "",
        "side       opened   closed       duration packets lost late jitter speech  mos",
        "A inbound  12:00:06 closed      3540.02 s  177001   12    1 1.2 ms  4.8 s 4.39",
        "A outbound 12:00:06 interrupted         -       -    -    -      -      -    -",
        "",
        "/srv/calls/x.wav",
        "/srv/calls/x.json",
    ]


def test_show_on_a_wide_terminal_has_every_figure_of_quality(strep):
    _, out, _ = strep("show", LEG, columns=170)
    head, track = (
        line for line in out.splitlines() if line.startswith("side") or " closed " in line
    )
    assert head.split()[3:] == [
        "duration", "packets", "lost", "late", "dup", "reord", "runs", "longest", "jitter",
        "drift", "speech", "mos", "concealed",
    ]  # fmt: skip
    assert "12     1    2      3     4        5  1.2 ms  -12.5 ppm" in track
    assert track.split()[-2:] == ["4.39", "4.40"]


def test_show_leaves_out_what_is_not_known(strep):
    _, out, _ = strep("show", MEDIA_LEG)
    assert out.splitlines() == [
        "call leg     2dc6fc35-f9e0-11ea-b68e-02420a0f7768",
        "began (UTC)  2026-01-31 12:00:06",
        "duration     open",
        "",
        "side      opened   closed duration packets lost late jitter speech mos",
        "A inbound 12:00:06 open          -       -    -    -      -      -   -",
    ]


def test_show_disarms_what_came_from_the_network(strep):
    _, out, _ = strep("show", OPEN_LEG)
    assert "to           sip:[i]bob\ufffd[31m@example.org\n" in out


@pytest.mark.parametrize("arguments", [["--json", "show", CONTROL_ID], ["show", LEG, "--json"]])
def test_show_as_json_has_every_figure(strep, arguments):
    code, out, _ = strep(*arguments)
    assert code == 0
    call = json.loads(out)
    assert call["call_leg_id"] == LEG
    (fork,) = call["forks"]
    assert (fork["rx_port"], fork["stopped_at"]) == (20_000, "2026-01-31T13:01:40.000Z")
    tracks = {track["direction"]: track for track in call["tracks"]}
    columns = {"worker": 0, "speech_s": 4.75, "loss_runs": 4, "longest_loss": 5}
    assert tracks["inbound"] == TRACK | columns | {"mos": 4.386, "mos_concealed": 4.4}
    assert tracks["outbound"]["reason"] == "interrupted"


def test_tracks_as_the_pipeline_describes_them_are_shown(strep, database, tmp_path, capsys):
    capture = tmp_path / "call.pcap"
    packets = packetize(
        load_voice("caller")[:16_000], payload_type=0, ssrc=1, first_sequence=1, first_timestamp=0
    )
    frames = [(i * 20_000_000, ethernet(datagram(bytes(p)))) for i, p in enumerate(packets)]
    capture.write_bytes(pcap(frames))
    with pytest.raises(SystemExit):
        cli.main(["analyze", str(capture), "--out", str(tmp_path / "out"), "--json"])
    (entry,) = json.loads(capsys.readouterr().out)["tracks"]
    with Store(database) as store:
        store.put_track(StoredTrack.of(entry, worker=0))

    _, out, _ = strep("show", entry["call_leg_id"], "--json")

    (track,) = json.loads(out)["tracks"]
    assert (track["packets"], track["lost"], track["duration_s"]) == (100, 0, 2.0)
    assert (track["reason"], track["codec"]) == ("end", "PCMU")
    assert Path(track["recording"]).stat().st_size > 32_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "999"], "strep: there is no call 999\n"),
        (["show", ""], "strep: there is no call (an empty id)\n"),
        (
            ["show", "2dc6"],
            f"strep: several calls begin with 2dc6: {MEDIA_LEG}, {OPEN_LEG}\n",
        ),
        (["--after", "999"], "strep: there is no call 999 to go on after\n"),
    ],
)
def test_a_call_that_is_not_there_is_said_in_one_line(strep, arguments, message):
    assert strep(*arguments) == (2, "", message)


@pytest.mark.parametrize("arguments", [[], ["show", LEG]])
def test_a_database_that_is_not_there_is_said_in_one_line(strep, tmp_path, arguments):
    path = tmp_path / "none.db"
    assert strep(*arguments, path=path) == (2, "", f"strep: {path}: there is no database\n")
    assert not path.exists()


def test_what_is_no_database_is_said_in_one_line(strep, tmp_path):
    path = tmp_path / "strep.toml"
    path.write_text("workers = 2\n")
    assert strep(path=path) == (2, "", f"strep: {path}: is not a database\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], ["--since", "'yesterday'", "12h"]),
        (["--until", "9999-01-01"], ["--until", "'9999-01-01'", "2262"]),
        (["--since", "999999d"], ["--since", "'999999d'"]),
        (["--limit", "0"], ["--limit", "'0'", "above 0"]),
        (["--limit", "-1"], ["--limit"]),
        (["--limit", "many"], ["--limit", "'many'"]),
        (["show"], ["ID"]),
        (["shwo", LEG], ["shwo", "show"]),
    ],
)
def test_wrong_arguments_are_refused(strep, arguments, words):
    code, out, err = strep(*arguments)
    assert (code, out) == (2, "")
    for word in words:
        assert word in err.splitlines()[-1]


def test_a_time_before_now_counts_back_from_now(monkeypatch):
    monkeypatch.setattr(calls.time, "time_ns", lambda: NOON_NS)
    assert calls.moment("90s") == NOON_NS - 90 * S_NS
    assert calls.moment("30m") == NOON_NS - 1800 * S_NS
    assert calls.moment("12h") == NOON_NS - 43_200 * S_NS
    assert calls.moment("7d") == NOON_NS - 604_800 * S_NS


@pytest.mark.parametrize("command", [["calls"], ["calls", "show"]])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command, "--help"])
    assert exit_.value.code == 0
    assert f"example:\n  strep {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "recordings"),
        ({"STREP_RECORDINGS": "elsewhere"}, "elsewhere"),
        ({"STREP_RECORDINGS": "elsewhere", "STREP_CONTROL_MAX_FORKS": "9"}, "elsewhere"),
        ({"STREP_CONFIG": "strep.toml"}, "from-file"),
        ({"STREP_DATABASE": "named/strep.db", "STREP_CONFIG": "strep.toml"}, "named"),
        ({"STREP_DATABASE": "auto", "STREP_CONFIG": "strep.toml"}, "from-file"),
    ],
)
def test_the_database_is_where_the_daemon_has_it(database, tmp_path, environment, folder):
    (tmp_path / "strep.toml").write_text("recordings = 'from-file'\n")
    (tmp_path / folder).mkdir()
    database.rename(tmp_path / folder / "strep.db")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("STREP_")}
    done = subprocess.run(
        [sys.executable, "-m", "strep", "calls", "--leg", LEG, "--json"],
        cwd=tmp_path, env=clean | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["calls"][0]["call_leg_id"] == LEG


def test_where_the_daemon_keeps_no_database_one_is_to_be_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "strep", "calls"],
        cwd=tmp_path, env=os.environ | {"STREP_DATABASE": "none"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "strep: no database is kept (database: none): name one with --database\n"
    )


def test_a_database_is_read_while_the_daemon_has_it_open(found, database):
    with Store(database) as store:
        store.put_call(StoredCall(call_leg_id=LEG, started_ns=NOON_NS, from_number="+4420"))
        assert found("--number", "+4420") == [LEG]


# -- pauses


@pytest.fixture
def asked(tmp_path, monkeypatch, capsys):
    """Run `strep calls` in this process against a daemon with an open call."""
    with structlog.testing.capture_logs(), ApiBench(tmp_path, database=False) as api:
        monkeypatch.setenv("STREP_DAEMON", api.url)
        monkeypatch.setattr(output.err, "_width", 1000)

        def run(*arguments):
            with pytest.raises(SystemExit) as exit_:
                cli.main(["calls", *arguments])
            captured = capsys.readouterr()
            return exit_.value.code, captured.out, captured.err

        run.api = api
        yield run


def test_call_is_paused_and_resumed(asked):
    assert asked("pause", LEG) == (0, f"{LEG} paused\n", "")
    assert asked.api.source.paused == {LEG: True}
    code, out, err = asked("resume", LEG, "--json")
    assert (code, json.loads(out), err) == (0, {"call_leg_id": LEG, "is_paused": False}, "")
    assert asked.api.source.paused == {LEG: False}


def test_call_that_there_is_not_cannot_be_paused(asked):
    assert asked("pause", "v3:a/b?c") == (2, "", "strep: there is no call v3:a/b?c\n")
    assert asked("resume", "") == (2, "", "strep: ID is empty\n")


def test_pause_that_is_unsure_is_a_failure(asked):
    asked.api.source.error = PauseError("worker 1, which receives it, does not answer")
    assert asked("pause", LEG) == (
        1, "", "strep: worker 1, which receives it, does not answer\n",
    )  # fmt: skip
