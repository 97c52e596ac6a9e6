from __future__ import annotations

import dataclasses
import json
from uuid import UUID

import pytest

from pipeline.block import Timeline, Track, TrackSummary
from pipeline.keypress import KeyPress
from pipeline.manifest import _hidden, add_track, track_entry
from pipeline.verdict import call_quality, track_quality
from strep.sinks import write_manifests

INBOUND = Track(
    row=0,
    generation=1,
    call_leg_id=UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1"),
    leg="B",
    direction="inbound",
    opened_ns=1_000_000_000,
    opened_unix_ns=1_767_225_600_000_000_000,
    source="192.0.2.1:4000",
    destination="192.0.2.2:9000",
    ssrc=0x1B5D8C64,
)
OUTBOUND = dataclasses.replace(
    INBOUND,
    row=1,
    direction="outbound",
    opened_ns=1_500_000_000,
    opened_unix_ns=1_767_225_600_500_000_000,
)
SUMMARY = TrackSummary(
    reason="closed",
    packets=500,
    payload_bytes=80_000,
    released=490,
    lost=5,
    late=4,
    duplicate=6,
    reordered=7,
    resets=1,
    unknown_payload=10,
    timestamp_gaps=2,
    silence_samples=1200,
    jitter_last_ms=0.5,
    jitter_mean_ms=0.75,
    jitter_max_ms=2.5,
    first_arrival_ns=1_000_000_000,
    last_arrival_ns=11_250_000_000,
    duration_samples=80_000,
    sample_rate_hz=8000,
    payload_types={101: 10, 0: 200, 8: 290},
    codecs=("unknown", "PCMU", "PCMA"),
    ssrcs=(0x1B5D8C64, 0x0000BEEF),
    losses=((8000, 3), (12_000, 2)),
    codec="PCMA",
    undecoded=8,
)
RESULTS = {
    "wav": {
        "recording": "recordings/call.wav",
        "manifest": "recordings/call.json",
        "channel": "left",
        "offset_samples": 240,
    },
    "vad": {
        "speech": [
            {"start_s": 0.5, "end_s": 1.25, "level_dbfs": -23.5},
            {"start_s": 2.0, "end_s": 3.0, "level_dbfs": -30.0},
        ],
        "speech_ratio": 0.175,
    },
    "package.module:Tones": {"tones": 3},
}


def test_entry_tells_all_of_a_track():
    assert track_entry(INBOUND, SUMMARY, RESULTS) == {
        "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "leg": "B",
        "direction": "inbound",
        "source": "192.0.2.1:4000",
        "destination": "192.0.2.2:9000",
        "ssrc": "0x0000beef",
        "ssrcs": ["0x1b5d8c64", "0x0000beef"],
        "codec": "PCMA",
        "codecs": ["unknown", "PCMU", "PCMA"],
        "payload_types": {"101": 10, "0": 200, "8": 290},
        "started_at": "2026-01-01T00:00:00.000Z",
        "ended_at": "2026-01-01T00:00:10.250Z",
        "reason": "closed",
        "packets": 500,
        "bytes": 80_000,
        "released": 490,
        "lost": 5,
        "late": 4,
        "duplicate": 6,
        "reordered": 7,
        "resets": 1,
        "unknown_payload": 10,
        "undecoded": 8,
        "timestamp_gaps": 2,
        "silence_s": 0.15,
        "concealed_s": 0.0,
        "comfort_noise_s": 0.0,
        "realignments": 0,
        "jitter_last_ms": 0.5,
        "jitter_mean_ms": 0.75,
        "jitter_max_ms": 2.5,
        "drift_ppm": None,
        "quality": track_quality(SUMMARY),
        "sample_rate_hz": 8000,
        "duration_s": 10.0,
        "lost_at_s": [1.0, 1.5],
        "concealed_at_s": [],
        "recording": "recordings/call.wav",
        "channel": "left",
        "offset_s": 0.03,
        "speech": [[0.5, 1.25], [2.0, 3.0]],
        "speech_levels_dbfs": [-23.5, -30.0],
        "dtmf": [],
        "dtmf_dropped": 0,
        "vad": {"speech_ratio": 0.175},
        "package.module:Tones": {"tones": 3},
    }


def test_entry_of_a_further_segment_says_why_it_began():
    assert "segment" not in track_entry(INBOUND, SUMMARY, {})
    track = dataclasses.replace(INBOUND, segment=2, began="gap", gap_s=133.33333)
    summary = dataclasses.replace(SUMMARY, drift_ppm=12.345)
    entry = track_entry(track, summary, {})
    assert entry["segment"] == {"number": 2, "began": "gap", "gap_s": 133.333}
    assert entry["drift_ppm"] == 12.3


def test_speech_is_that_of_the_network_where_there_is_no_other():
    silero = {"silero": RESULTS["vad"]}
    entry = track_entry(INBOUND, SUMMARY, silero)
    assert entry["speech"] == [[0.5, 1.25], [2.0, 3.0]]
    assert entry["silero"] == {"speech_ratio": 0.175}
    both = track_entry(INBOUND, SUMMARY, {"silero": {"speech": []}, **RESULTS})
    assert both["speech"] == [[0.5, 1.25], [2.0, 3.0]]
    assert both["silero"] == {"speech": []}


def test_entry_of_a_track_without_sinks_has_neither_recording_nor_speech():
    entry = track_entry(INBOUND, SUMMARY, {})
    assert entry["recording"] is None
    assert entry["channel"] is None
    assert entry["offset_s"] is None
    assert entry["speech"] == []
    assert entry["speech_levels_dbfs"] == []


def test_entry_says_why_nothing_was_recorded():
    failed = {"wav": {"channel": "left", "offset_samples": 0, "error": "No space left on device"}}
    entry = track_entry(INBOUND, SUMMARY, failed)
    assert entry["recording"] is None
    assert entry["wav"]["error"] == "No space left on device"


def test_keys_are_listed_once_however_they_came():
    summary = dataclasses.replace(
        SUMMARY,
        telephone_events=(
            KeyPress("1", "telephone-event", 8000, 800, 8000),
            KeyPress("2", "telephone-event", 24_000, 800, 8000),
        ),
        telephone_events_dropped=3,
    )
    tones = [
        {"digit": "1", "start_s": 0.98, "duration_ms": 40.0, "kind": "in-band"},
        {"digit": "9", "start_s": 2.0, "duration_ms": 50.0, "kind": "in-band"},
    ]
    entry = track_entry(INBOUND, summary, {"dtmf": {"dtmf": tones, "dtmf_dropped": 1}})
    assert entry["dtmf"] == [
        {"digit": "1", "start_s": 1.0, "duration_ms": 100.0, "kind": "telephone-event"},
        {"digit": "9", "start_s": 2.0, "duration_ms": 50.0, "kind": "in-band"},
        {"digit": "2", "start_s": 3.0, "duration_ms": 100.0, "kind": "telephone-event"},
    ]
    assert entry["dtmf_dropped"] == 4


def test_ssrc_is_the_tracks_own_where_the_summary_has_none():
    summary = dataclasses.replace(SUMMARY, ssrcs=())
    assert track_entry(INBOUND, summary, {})["ssrc"] == "0x1b5d8c64"


def test_manifest_of_one_side_is_complete_and_grows_with_the_other(tmp_path):
    path = tmp_path / "call.json"
    wav = {
        "recording": str(tmp_path / "call.wav"),
        "manifest": str(path),
        "channel": "left",
        "offset_samples": 0,
    }
    add_track(path, INBOUND, SUMMARY, {"wav": wav})
    manifest = json.loads(path.read_text())
    tracks = manifest.pop("tracks")
    assert tracks[0]["direction"] == "inbound"
    assert manifest.pop("quality") == call_quality(tracks)
    assert manifest == {
        "version": 1,
        "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "leg": "B",
        "started_at": "2026-01-01T00:00:00.000Z",
        "ended_at": "2026-01-01T00:00:10.250Z",
        "recordings": ["call.wav"],
    }

    later = dataclasses.replace(SUMMARY, last_arrival_ns=12_500_000_000)
    add_track(path, OUTBOUND, later, {"wav": {**wav, "channel": "right", "offset_samples": 4000}})
    manifest = json.loads(path.read_text())
    assert [track["direction"] for track in manifest["tracks"]] == ["inbound", "outbound"]
    assert [track["recording"] for track in manifest["tracks"]] == ["call.wav", "call.wav"]
    assert [track["offset_s"] for track in manifest["tracks"]] == [0.0, 0.5]
    assert manifest["recordings"] == ["call.wav"]
    assert manifest["quality"] == call_quality(manifest["tracks"])
    assert manifest["started_at"] == "2026-01-01T00:00:00.000Z"
    assert manifest["ended_at"] == "2026-01-01T00:00:11.500Z"
    assert [file.name for file in tmp_path.iterdir()] == ["call.json"]


def test_entry_tells_drift_timeline_and_rtcp_where_there_are_such():
    summary = dataclasses.replace(
        SUMMARY,
        drift_ppm=-48.26,
        timeline=Timeline(interval_s=1.0, packets=(50, 49), lost=(0, 1), jitter_ms=(0.5, 0.6)),
        rtcp={"sender": {"reports": 2}},
    )
    entry = track_entry(INBOUND, summary, {})
    assert entry["drift_ppm"] == -48.3
    assert entry["timeline"] == {
        "interval_s": 1.0,
        "packets": [50, 49],
        "lost": [0, 1],
        "jitter_ms": [0.5, 0.6],
    }
    assert entry["rtcp"] == {"sender": {"reports": 2}}
    json.dumps(entry)


def test_manifest_that_an_older_version_began_is_not_judged(tmp_path):
    path = tmp_path / "call.json"
    results = {"wav": {**RESULTS["wav"], "manifest": str(path)}}
    add_track(path, INBOUND, SUMMARY, results)
    manifest = json.loads(path.read_text())
    del manifest["tracks"][0]["quality"]
    path.write_text(json.dumps(manifest))
    add_track(path, OUTBOUND, SUMMARY, results)
    assert "quality" not in json.loads(path.read_text())


def test_manifest_names_only_the_recording_that_it_stands_beside(tmp_path):
    path = tmp_path / "mono.json"
    results = {
        **RESULTS,
        "wav-2": {
            "recording": str(tmp_path / "mono.wav"),
            "manifest": str(path),
            "channel": "mono",
            "offset_samples": 0,
        },
    }
    add_track(path, INBOUND, SUMMARY, results)
    (entry,) = json.loads(path.read_text())["tracks"]
    assert (entry["recording"], entry["channel"]) == ("mono.wav", "mono")
    assert "wav" not in entry
    assert "wav-2" not in entry


def test_manifest_says_what_is_known_of_the_call_when_its_last_track_ends(tmp_path):
    path = tmp_path / "call.json"
    results = {"wav": {**RESULTS["wav"], "manifest": str(path)}}
    add_track(path, INBOUND, SUMMARY, results, call={"state": "answered", "from": "+1555"})
    assert json.loads(path.read_text())["call"] == {"state": "answered", "from": "+1555"}
    add_track(path, OUTBOUND, SUMMARY, results, call={"state": "hangup"})
    assert json.loads(path.read_text())["call"] == {"state": "hangup"}
    # whoever knew of the call is gone
    add_track(path, OUTBOUND, SUMMARY, results)
    assert json.loads(path.read_text())["call"] == {"state": "hangup"}


def test_manifest_names_earlier_recordings_but_not_its_own(tmp_path):
    path = tmp_path / "call.json"
    own = {**RESULTS["wav"], "recording": str(tmp_path / "call.wav"), "manifest": str(path)}
    earlier = [
        {"recording": str(tmp_path / "first.wav.part"), "started_at": "1", "ended_at": None},
        {"recording": "/elsewhere/second.wav", "started_at": "2", "ended_at": "3"},
        {"recording": str(tmp_path / "call.wav"), "started_at": "4", "ended_at": "5"},
    ]
    add_track(path, INBOUND, SUMMARY, {"wav": own}, earlier=earlier[2:])
    assert "earlier" not in json.loads(path.read_text())
    add_track(path, INBOUND, SUMMARY, {"wav": own}, earlier=earlier)
    expected = [
        {"recording": "first.wav.part", "started_at": "1", "ended_at": None},
        {"recording": "/elsewhere/second.wav", "started_at": "2", "ended_at": "3"},
    ]
    assert json.loads(path.read_text())["earlier"] == expected
    add_track(path, OUTBOUND, SUMMARY, {"wav": own})
    manifest = json.loads(path.read_text())
    assert manifest["earlier"] == expected
    assert manifest["recordings"] == ["call.wav"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"tracks"'])
def test_file_that_is_no_manifest_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "call.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"call\.json is not a manifest"):
        add_track(path, INBOUND, SUMMARY, {})
    assert path.read_text() == content


def with_wav(**further):
    return {"wav": RESULTS["wav"] | further}


def test_marks_stand_in_their_order_and_count_from_the_beginning(tmp_path):
    path = tmp_path / "call.json"
    paused = {"kind": "paused", "at": "2026-01-01T00:00:02.000Z"}
    resumed = {"kind": "resumed", "at": "2026-01-01T00:00:09.500Z"}
    wav = {"manifest": str(path)}
    add_track(path, OUTBOUND, SUMMARY, with_wav(marks=[paused], **wav))
    assert json.loads(path.read_text())["marks"] == [{**paused, "at_s": 1.5}]
    add_track(path, INBOUND, SUMMARY, with_wav(marks=[paused, resumed], **wav))
    manifest = json.loads(path.read_text())
    assert manifest["marks"] == [{**paused, "at_s": 2.0}, {**resumed, "at_s": 9.5}]
    assert all("wav" not in track for track in manifest["tracks"])


def test_files_of_a_split_recording_are_listed(tmp_path):
    path = tmp_path / "call.json"
    files = [
        {"recording": "call_001.wav", "start_s": 0.0, "duration_s": 300.0},
        {"recording": "call_002.wav", "start_s": 300.0, "duration_s": 12.5},
    ]
    wav = {"manifest": str(path), "recording": str(tmp_path / "call_001.wav")}
    add_track(path, INBOUND, SUMMARY, with_wav(files=files[:1], **wav))
    add_track(path, OUTBOUND, SUMMARY, with_wav(files=files, **wav))
    manifest = json.loads(path.read_text())
    assert manifest["files"] == files
    assert manifest["recordings"] == ["call_001.wav", "call_002.wav"]
    assert [track["recording"] for track in manifest["tracks"]] == ["call_001.wav"] * 2


def test_manifest_names_the_file_that_is_there_where_another_was_planned(tmp_path):
    path = tmp_path / "call.json"
    wav = {"manifest": str(path)}
    flac, kept = str(tmp_path / "call.flac"), str(tmp_path / "call.wav")
    add_track(path, INBOUND, SUMMARY, with_wav(recording=flac, **wav))
    late = {"recording": kept, "instead_of": flac, "not_encoded": "disk full"}
    add_track(path, OUTBOUND, SUMMARY, with_wav(**late, **wav))
    manifest = json.loads(path.read_text())
    assert manifest["recordings"] == ["call.wav"]
    assert [track["recording"] for track in manifest["tracks"]] == ["call.wav"] * 2
    assert manifest["tracks"][1]["wav"] == {"not_encoded": "disk full"}


def test_keys_pressed_in_a_pause_are_hidden():
    presses = [
        {"digit": digit, "start_s": start_s, "duration_ms": 100, "kind": "in-band"}
        for digit, start_s in (("1", 0.0), ("2", 1.8), ("3", 2.5), ("4", 9.0), ("5", 11.0))
    ]
    marks = [
        {"kind": "paused", "at": "2026-01-01T00:00:02.000Z"},
        {"kind": "resumed", "at": "2026-01-01T00:00:10.000Z"},
        {"kind": "paused", "at": "2026-01-01T00:01:00.000Z"},
    ]
    hidden = _hidden(presses, marks, INBOUND.opened_unix_ns / 1e9)
    assert [press["digit"] for press in hidden] == ["1", "?", "?", "?", "5"]
    assert [press | {"digit": ""} for press in hidden] == [p | {"digit": ""} for p in presses]


def test_manifest_that_cannot_be_written_is_said_and_harms_no_other(tmp_path, capsys):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    gone = tmp_path / "removed" / "call"
    results = {
        name: {
            "recording": str(path.with_suffix(".wav")),
            "manifest": str(path.with_suffix(".json")),
            "channel": "left",
            "offset_samples": 0,
        }
        for name, path in {"wav": in_the_way / "call", "wav-2": gone}.items()
    }
    assert write_manifests(INBOUND, SUMMARY, results) == 1
    assert json.loads(gone.with_suffix(".json").read_text())["recordings"] == ["call.wav"]
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "manifest not written" in line]
    assert len(lines) == 1
    assert str(in_the_way / "call.json") in lines[0]
    assert "Traceback" not in said.out + said.err
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("left", ["", "\0" * 4096])
def test_manifest_that_a_crash_of_the_machine_left_empty_is_begun_again(tmp_path, left):
    path = tmp_path / "call.json"
    path.write_text(left)
    add_track(path, INBOUND, SUMMARY, {})
    assert len(json.loads(path.read_text())["tracks"]) == 1
