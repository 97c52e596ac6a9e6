from __future__ import annotations

import json
import os
import signal
import socket
from uuid import UUID

import pytest
import soundfile
from loopback import Serve
from packetmaker import MS
from recorder import T0_NS, Recorder
from wirecases import rtp, strep

from pipeline.sinks.encoding import FORMATS
from pipeline.sinks.wavfile import PCM16, WavFile
from strep.recovery import find_recordings
from strep.rescue import Place, Rescuer, places
from strep.specs import SinkSpec
from strep.store import INTERRUPTED, Store, StoredTrack

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
STEM = f"20260101T000001Z-{CALL}-a"
FRAME = b"\x10\x20\x30\x40"
TEN_S_AFTER_NS = T0_NS + 10_000 * MS


def left(folder, stem=STEM, *, frames=8000, more=b"", channels=2):
    """Make what a killed process leaves: a part whose header is older than its samples."""
    file = WavFile(folder / f"{stem}.wav", PCM16, channels, 8000)
    file.extend(frames)
    file.write_header()
    file.close()
    with file.part.open("ab") as part:
        part.truncate(94 + frames * channels * 2)
        part.write(more)
    os.utime(file.part, ns=(TEN_S_AFTER_NS, TEN_S_AFTER_NS))
    return file.part


def interrupted(direction="inbound", *, at_ms, recording=None):
    return StoredTrack(
        call_leg_id=str(CALL),
        leg="A",
        direction=direction,
        opened_ns=T0_NS + at_ms * MS,
        worker=3,
        reason=INTERRUPTED,
        recording=None if recording is None else str(recording),
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_header_is_made_right_for_all_whole_frames_that_are_there(tmp_path):
    part = left(tmp_path, more=FRAME * 100 + FRAME[:3])
    rescuer = Rescuer([Place(tmp_path)])
    tracks = [
        interrupted(at_ms=1250, recording=part),
        interrupted("outbound", at_ms=1750, recording=part),
    ]
    found = rescuer.finish(tracks)
    assert names(tmp_path) == [f"{STEM}.json", f"{STEM}.wav"]
    path = tmp_path / f"{STEM}.wav"
    assert path.stat().st_size == 94 + 8100 * 4
    sound, _ = soundfile.read(path, dtype="int16")
    assert sound[8000:].tobytes() == FRAME * 100
    assert (rescuer.finished, rescuer.failed) == (1, 0)
    assert [(t.direction, t.opened_ns, t.worker, t.reason) for t in found] == [
        ("inbound", T0_NS + 1250 * MS, 3, "interrupted"),
        ("outbound", T0_NS + 1750 * MS, 3, "interrupted"),
    ]
    assert {(t.recording, t.manifest) for t in found} == {
        (str(path), str(tmp_path / f"{STEM}.json"))
    }
    manifest = json.loads((tmp_path / f"{STEM}.json").read_text())
    tracks = manifest.pop("tracks")
    assert manifest == {
        "version": 1,
        "call_leg_id": str(CALL),
        "leg": "A",
        "started_at": "2026-01-01T00:00:01.250Z",
        "ended_at": "2026-01-01T00:00:10.000Z",
        "reason": "interrupted",
        "recordings": [f"{STEM}.wav"],
    }
    assert tracks[1] == {
        "call_leg_id": str(CALL),
        "leg": "A",
        "direction": "outbound",
        "started_at": "2026-01-01T00:00:01.750Z",
        "ended_at": "2026-01-01T00:00:10.000Z",
        "reason": "interrupted",
        "sample_rate_hz": 8000,
        "duration_s": 8100 / 8000 - 0.5,
        "recording": f"{STEM}.wav",
        "channel": "right",
        "offset_s": 0.5,
    }


def test_file_that_is_written_is_left_alone(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", at_ms=1000, packets=20)
    assert Rescuer([Place(tmp_path)]).finish([]) == []
    assert names(tmp_path) == [f"{STEM}.wav.part"]
    recorder.receiver.stop()
    assert soundfile.info(tmp_path / f"{STEM}.wav").frames == 3200
    assert "reason" not in json.loads((tmp_path / f"{STEM}.json").read_text())


def test_without_a_database_the_name_tells_whose_it_is(tmp_path):
    left(tmp_path)
    left(tmp_path, f"20260101T000003Z-{CALL}-b-outbound", channels=1)
    found = Rescuer([Place(tmp_path)]).finish([])
    assert [(t.leg, t.direction, t.opened_ns, t.reason) for t in found] == [
        ("A", "inbound", T0_NS + 1000 * MS, "interrupted"),
        ("A", "outbound", T0_NS + 1000 * MS, "interrupted"),
        ("B", "outbound", T0_NS + 3000 * MS, "interrupted"),
    ]
    # and the daemon that it was finds it under its name
    (track,) = find_recordings([tmp_path], [interrupted(at_ms=1250)])
    assert (track.recording, track.opened_ns) == (
        str(tmp_path / f"{STEM}.wav"), T0_NS + 1250 * MS,
    )  # fmt: skip


def test_it_is_encoded_where_the_sink_encodes(tmp_path):
    left(tmp_path)
    (tmp_path / f"{STEM}.flac.part").write_bytes(b"half of it")
    (track, _) = Rescuer([Place(tmp_path, file_format=FORMATS["flac"])]).finish([])
    assert names(tmp_path) == [f"{STEM}.flac", f"{STEM}.json"]
    assert soundfile.info(tmp_path / f"{STEM}.flac").frames == 8000
    assert track.recording == str(tmp_path / f"{STEM}.flac")


def test_what_was_encoded_already_is_not_encoded_again(tmp_path):
    part = left(tmp_path)
    before = part.read_bytes()
    place = Place(tmp_path, file_format=FORMATS["flac"])
    Rescuer([place]).finish([])
    part.write_bytes(before)
    Rescuer([place]).finish([])
    assert names(tmp_path) == [f"{STEM}.flac", f"{STEM}.json"]


def test_template_with_folders_and_pieces(tmp_path):
    folder = tmp_path / "2026-01-01"
    folder.mkdir()
    stem = f"x-{CALL}"
    (folder / f"{stem}_001.wav").touch()
    left(folder, f"{stem}_002")
    (place,) = places(
        [SinkSpec(name="wav", options={"file_name": "{date}/x-{call_leg_id}", "split_s": "10"})],
        tmp_path,
    )
    assert place == Place(tmp_path, 1, None, is_split=True)
    # opened nine seconds before the file's last change, which has one of them
    (track,) = Rescuer([place]).finish([interrupted(at_ms=8500)])
    assert track.recording == str(folder / f"{stem}_002.wav")
    assert track.manifest == str(folder / f"{stem}.json")
    manifest = json.loads((folder / f"{stem}.json").read_text())
    assert manifest["recordings"] == [f"{stem}_001.wav", f"{stem}_002.wav"]


def test_track_that_was_closed_before_stays_in_the_manifest(tmp_path):
    left(tmp_path)
    closed = {
        "call_leg_id": str(CALL), "leg": "A", "direction": "inbound", "recording": f"{STEM}.wav",
        "started_at": "2026-01-01T00:00:01.250Z", "ended_at": "2026-01-01T00:00:03.000Z",
        "reason": "closed",
    }  # fmt: skip
    (tmp_path / f"{STEM}.json").write_text(json.dumps({"call": {"to": "1"}, "tracks": [closed]}))
    part = tmp_path / f"{STEM}.wav.part"
    Rescuer([Place(tmp_path)]).finish([interrupted("outbound", at_ms=1750, recording=part)])
    manifest = json.loads((tmp_path / f"{STEM}.json").read_text())
    assert [(t["direction"], t["reason"]) for t in manifest["tracks"]] == [
        ("inbound", "closed"),
        ("outbound", "interrupted"),
    ]
    assert manifest["call"] == {"to": "1"}


@pytest.mark.parametrize("content", [b"RIFF", bytes(200), b"x" * 94], ids=["cut", "zeros", "other"])
def test_file_that_says_nothing_stays_as_it_is(tmp_path, content):
    part = tmp_path / f"{STEM}.wav.part"
    part.write_bytes(content)
    rescuer = Rescuer([Place(tmp_path), Place(tmp_path / "gone")])
    assert rescuer.finish([]) == []
    assert part.read_bytes() == content
    assert rescuer.failed == 1


def test_file_without_a_sample_is_removed(tmp_path):
    left(tmp_path, frames=0)
    (tmp_path / f"{STEM}-2.wav.part").touch()
    assert Rescuer([Place(tmp_path)]).finish([]) == []
    assert names(tmp_path) == []


def test_name_that_is_taken_is_not_written_over(tmp_path):
    left(tmp_path)
    (tmp_path / f"{STEM}.wav").write_bytes(b"of somebody else")
    Rescuer([Place(tmp_path)]).finish([])
    assert (tmp_path / f"{STEM}.wav").read_bytes() == b"of somebody else"
    assert soundfile.info(tmp_path / f"{STEM}-2.wav").frames == 8000


def test_what_is_not_finished_when_it_is_to_stop_waits_for_the_next_start(tmp_path):
    left(tmp_path)
    rescuer = Rescuer([Place(tmp_path)])
    rescuer.stop()
    assert rescuer.finish([]) == []
    assert names(tmp_path) == [f"{STEM}.wav.part"]


def test_file_that_is_begun_as_it_is_to_stop_is_not_encoded(tmp_path, monkeypatch):
    part = left(tmp_path)
    rescuer = Rescuer([Place(tmp_path, file_format=FORMATS["flac"])])

    def adopt(path):
        rescuer.stop()
        return file_of(path)

    file_of = WavFile.adopt
    monkeypatch.setattr(WavFile, "adopt", adopt)
    rescuer.finish([])
    assert names(tmp_path) == [f"{STEM}.json", f"{STEM}.wav"]
    assert not part.exists()


def send(serve, first, count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(first, first + count):
            packet = rtp(bytes([16]) * 160, sequence=number, timestamp=160 * number, ssrc=1)
            sock.sendto(strep(packet, CALL, first=0xC4), serve.to)


def test_killed_daemon_leaves_a_recording_that_the_next_one_finishes(tmp_path):
    arguments = ["--sink", "wav:flush_s=0.05,format=flac"]
    with Serve(tmp_path, *arguments) as serve:
        send(serve, 0, 50)
        serve.wait_until(
            lambda: [p.stat().st_size for p in tmp_path.glob("*.part")] == [94 + 50 * 640],
            "the packets are on disk",
        )
        os.kill(serve.process.pid, signal.SIGKILL)
        serve.process.wait()
    (part,) = tmp_path.glob("*.part")
    stem = part.name.removesuffix(".wav.part")
    with Serve(tmp_path, *arguments) as serve:
        send(serve, 50, 10)
        serve.wait_until(
            lambda: "recordings that a killed process had left" in serve.log.read_text(),
            "they are in the call list",
        )
        assert serve.metrics()["strep_recordings_rescued_total{finished}"] == 1
        assert soundfile.info(tmp_path / f"{stem}.flac").frames == 50 * 160
        assert serve.stop() == 0
    assert not list(tmp_path.glob("*.part"))
    first = json.loads((tmp_path / f"{stem}.json").read_text())
    assert first["recordings"] == [f"{stem}.flac"]
    assert first["reason"] == "interrupted"
    assert [(t["direction"], t["reason"]) for t in first["tracks"]] == [("inbound", "interrupted")]
    (second,) = (p for p in tmp_path.glob("*.json") if p.stem != stem)
    earlier = json.loads(second.read_text())["earlier"]
    assert [each["recording"] for each in earlier] == [f"{stem}.flac"]
    tracks = Store(tmp_path / "strep.db", read_only=True).tracks(str(CALL))
    assert [(track.reason, track.recording) for track in tracks] == [
        ("interrupted", str(tmp_path / f"{stem}.flac")),
        ("end", str(second.with_suffix(".flac"))),
    ]


def test_daemon_with_a_low_disk_goes_on_and_finishes_what_was_left_without_a_database(tmp_path):
    part = left(tmp_path, STEM.replace(str(CALL), str(UUID(int=1))))
    with Serve(
        tmp_path, "--workers", "2", "--database", "none",
        "--sink", f"wav:flush_s=0.05,min_free_bytes={1 << 60}", "--sink", "vad",
    ) as serve:  # fmt: skip
        send(serve, 0, 50)
        serve.wait_for("strep_recordings_put_off{wav}", 1)
        serve.wait_for("strep_recordings_rescued_total{finished}", 1)
        assert serve.readiness() == (503, ["the disk is too full for further recordings: wav"])
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_recordings_disk_low{wav}"] >= 1
    assert metrics["strep_recording_attempts_failed_total{wav}"] == 0
    assert metrics["strep_sink_frames_total{vad}"] == 50
    (path,) = tmp_path.glob("*.wav*")
    assert path == part.with_suffix("")
    assert soundfile.info(path).frames == 8000
    assert json.loads(path.with_suffix(".json").read_text())["reason"] == "interrupted"
