from __future__ import annotations

import json
from uuid import UUID

import pytest
from packetmaker import MS
from recorder import T0_NS, Recorder

from strep.recovery import find_recordings
from strep.store import INTERRUPTED, StoredTrack

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
NAME = f"20260101T0000{{:02}}Z-{CALL}-a"


def interrupted(direction="inbound", *, at_ms, call=CALL, leg="A"):
    return StoredTrack(
        call_leg_id=str(call),
        leg=leg,
        direction=direction,
        opened_ns=T0_NS + at_ms * MS,
        worker=3,
        reason=INTERRUPTED,
    )


def test_unfinished_file_of_each_track_is_found(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", at_ms=1000)
    recorder.receive(CALL, "outbound", at_ms=3000)
    recorder.receive(OTHER, "inbound", at_ms=5000)
    tracks = [interrupted(at_ms=1000), interrupted("outbound", at_ms=3000)]
    found = find_recordings([tmp_path], tracks)
    # both sides are in the file that began with the first one
    path = str(tmp_path / f"{NAME.format(1)}.wav.part")
    assert [(t.direction, t.recording, t.reason) for t in found] == [
        ("inbound", path, "interrupted"),
        ("outbound", path, "interrupted"),
    ]
    assert [track.opened_ns for track in found] == [track.opened_ns for track in tracks]


def test_recording_that_was_finished_unheard_tells_all_by_its_manifest(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", "outbound", at_ms=1250, packets=20)
    recorder.receiver.stop()
    (track,) = find_recordings([tmp_path], [interrupted("outbound", at_ms=1250)])
    assert (track.reason, track.packets, track.duration_s) == ("end", 20, 0.4)
    assert track.recording == str(tmp_path / f"{NAME.format(1)}.wav")
    assert track.manifest == str(tmp_path / f"{NAME.format(1)}.json")
    assert (track.worker, track.opened_ns) == (3, T0_NS + 1250 * MS)
    assert track.entry["recording"] == track.recording


def test_side_without_audio_is_told_by_the_manifest_of_the_other(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", "outbound", at_ms=1250, packets=20)
    recorder.receiver.stop()
    path = tmp_path / f"{NAME.format(1)}.json"
    manifest = json.loads(path.read_text())
    silent = next(each for each in manifest["tracks"] if each["direction"] == "outbound")
    silent["recording"] = None
    path.write_text(json.dumps(manifest))
    (track,) = find_recordings([tmp_path], [interrupted("outbound", at_ms=1250)])
    assert (track.reason, track.recording, track.manifest) == ("end", None, str(path))


def test_earlier_recordings_of_the_same_call_are_not_taken_for_it(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", at_ms=1000)
    recorder.receiver.close_call(CALL)
    recorder.receive(CALL, "inbound", at_ms=9000)
    (track,) = find_recordings([tmp_path], [interrupted(at_ms=9000)])
    assert track.recording == str(tmp_path / f"{NAME.format(9)}.wav.part")
    (track,) = find_recordings([tmp_path], [interrupted(at_ms=1000)])
    assert (track.recording, track.reason) == (str(tmp_path / f"{NAME.format(1)}.wav"), "closed")


def test_later_one_of_two_that_began_in_one_second_is_the_one(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", at_ms=1000)
    recorder.receiver.close_call(CALL)
    recorder.receive(CALL, "inbound", at_ms=1500)
    (track,) = find_recordings([tmp_path], [interrupted(at_ms=1500)])
    assert track.recording == str(tmp_path / f"{NAME.format(1)}-2.wav.part")


def test_mono_file_is_of_its_direction(tmp_path):
    recorder = Recorder(tmp_path, layout="mono")
    recorder.receive(CALL, "inbound", "outbound", at_ms=1000)
    found = find_recordings([tmp_path], [interrupted("outbound", at_ms=1000)])
    assert [track.recording for track in found] == [
        str(tmp_path / f"{NAME.format(1)}-outbound.wav.part")
    ]


@pytest.mark.parametrize(
    "track",
    [
        interrupted(at_ms=1000, call=OTHER),
        interrupted(at_ms=1000, leg="B"),
        interrupted(at_ms=0),  # before the file began
    ],
    ids=["another call", "another leg", "before"],
)
def test_track_that_left_no_recording_is_left_out(tmp_path, track):
    Recorder(tmp_path).receive(CALL, "inbound", at_ms=1000)
    assert find_recordings([tmp_path], [track]) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tracks": 3}', '{"tracks": [{}]}', "\udcff"])
def test_manifest_that_is_none_tells_nothing(tmp_path, text):
    (tmp_path / f"{NAME.format(1)}.wav").touch()
    manifest = tmp_path / f"{NAME.format(1)}.json"
    manifest.write_bytes(text.encode(errors="surrogateescape"))
    assert find_recordings([tmp_path], [interrupted(at_ms=1000)]) == []


def test_all_folders_are_looked_through_and_those_that_are_none_passed_over(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "b").mkdir()
    Recorder(tmp_path / "b").receive(CALL, "inbound", at_ms=1000)
    folders = [tmp_path / "gone", tmp_path / "file", tmp_path, tmp_path / "b"]
    (track,) = find_recordings(folders, [interrupted(at_ms=1000)])
    assert track.recording == str(tmp_path / "b" / f"{NAME.format(1)}.wav.part")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"format": "flac"}, f"{NAME.format(1)}.flac"),
        ({"split_s": 1.0}, f"{NAME.format(1)}_001.wav"),
    ],
)
def test_encoded_and_split_recordings_are_found(tmp_path, options, name):
    recorder = Recorder(tmp_path, **options)
    recorder.receive(CALL, "inbound", at_ms=1250, packets=80)
    recorder.receiver.stop()
    (track,) = find_recordings([tmp_path], [interrupted(at_ms=1250)])
    assert (track.reason, track.recording) == ("end", str(tmp_path / name))
    assert track.manifest == str(tmp_path / f"{NAME.format(1)}.json")


def test_file_that_was_being_encoded_is_found_where_it_is_whole(tmp_path):
    Recorder(tmp_path, format="flac").receive(CALL, "inbound", at_ms=1000)
    (tmp_path / f"{NAME.format(1)}.flac.part").touch()
    (track,) = find_recordings([tmp_path], [interrupted(at_ms=1000)])
    assert track.recording == str(tmp_path / f"{NAME.format(1)}.wav.part")
