"""Formats, names, lengths and rates of the files that the sink `wav` makes."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import soundfile
from wavbench import CALL, FRAME, MS, STEM, Linear, block, close, make_track, names, pcm, recording

from pipeline.codecs import PCMA, PCMU
from pipeline.sinks import SinkError, finishing
from pipeline.sinks.wav import WavSink
from pipeline.sinks.wavfile import CAN_SYNC_FILE_SYSTEMS, PCM16, WavFile

pytestmark = pytest.mark.usefixtures("kernel")

RNG = np.random.default_rng(8)


def tone(samples, rate_hz=8000):
    return (8000 * np.sin(2 * np.pi * 440 / rate_hz * np.arange(samples))).astype("<i2")


def speak(sink, tracks, frames, *, first=0, codes=None, lag=0):
    """Write frames of all tracks, 20 ms apart; return each track's codes."""
    if codes is None:
        codes = [RNG.integers(0, 256, frames * FRAME, np.uint8) for _ in tracks]
    for i in range(frames):
        sink.write(
            block(
                [track.row for track in tracks],
                [(first + i) * FRAME + lag for _ in tracks],
                [each[i * FRAME : (i + 1) * FRAME].tobytes() for each in codes],
                arrival_ms=(first + i) * 20,
            )
        )
        sink.tick((first + i) * 20 * MS)
    return codes


# -- formats


@pytest.mark.parametrize(
    ("name", "container", "subtype"),
    [("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "OPUS"), ("mp3", "MP3", "MPEG_LAYER_III")],
)
@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_recording_is_encoded_when_it_is_complete(tmp_path, name, container, subtype, rate_hz):
    sound = tone(3 * rate_hz, rate_hz)
    with recording(tmp_path, format=name) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        for first in range(0, len(sound), FRAME):
            frame = sound[first : first + FRAME].tobytes()
            sink.write(block([0, 1], [first] * 2, [frame, bytes(2 * FRAME)], codec=Linear(rate_hz)))
        sink.tick(10_000 * MS)
        assert names(tmp_path) == [f"{STEM}-a.wav.part"]
        first, second = close(sink, *tracks)
    path = tmp_path / f"{STEM}-a.{name}"
    assert names(tmp_path) == [path.name]
    assert first["recording"] == second["recording"] == str(path)
    assert first["manifest"] == str(tmp_path / f"{STEM}-a.json")
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate) == (container, subtype, rate_hz)
    left, right = pcm(path)
    assert len(left) == len(sound)
    assert np.abs(right).max() < 10
    if name == "flac":
        assert np.array_equal(left, sound)
    else:
        inner = slice(rate_hz // 2, -rate_hz // 2)
        ratio = np.std(left[inner].astype(float)) / np.std(sound[inner].astype(float))
        assert 0.9 < ratio < 1.1


def test_format_that_libsndfile_does_not_write_is_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(
        soundfile, "check_format", lambda container, _: container in {"WAV", "FLAC"}
    )
    with pytest.raises(
        SinkError, match=r"format=mp3 needs a libsndfile that writes MP3 .* writes wav, flac$"
    ):
        WavSink(directory=tmp_path, format="mp3").start()


def test_codes_as_they_came_are_for_wav():
    with pytest.raises(SinkError, match="encoding=source is for WAV files, and format is ogg"):
        WavSink(encoding="source", format="ogg")


def test_recording_that_cannot_be_encoded_stays_wav_and_says_why(tmp_path, caplog, monkeypatch):
    def encode(_, target, __):
        target.write_bytes(b"half")
        yield
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finishing, "encode", encode)
    with recording(tmp_path, format="flac") as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        codes = speak(sink, tracks, 10)
        early, late = close(sink, *tracks)
        assert sink.unencoded_files == 1
        assert sink.failed_recordings == 0
    path = tmp_path / f"{STEM}-a.wav"
    assert names(tmp_path) == [path.name]
    assert np.array_equal(pcm(path), PCMU.table[np.array(codes)])
    assert early["recording"] == str(tmp_path / f"{STEM}-a.flac")  # as was planned by then
    assert late["recording"] == str(path)
    assert late["not_encoded"] == "No space left on device"
    assert late["instead_of"] == early["recording"]
    assert "stays WAV: No space left on device" in caplog.text


def test_coder_that_fails_otherwise_harms_no_other_recording(tmp_path, monkeypatch):
    real = finishing.encode

    def encode(source, target, file_format):
        if source.name.endswith("-a.wav.part"):
            raise ZeroDivisionError("defect")
        yield from real(source, target, file_format)

    monkeypatch.setattr(finishing, "encode", encode)
    with recording(tmp_path, format="flac") as sink:
        tracks = make_track(0), make_track(1, leg="B")
        for track in tracks:
            sink.open(track)
        speak(sink, tracks, 5)
        results = close(sink, *tracks)
    assert results[0]["not_encoded"] == "ZeroDivisionError('defect')"
    assert names(tmp_path) == [f"{STEM}-a.wav", f"{STEM}-b.flac"]


def test_defect_while_a_file_is_completed_harms_no_other_recording(tmp_path, monkeypatch):
    real = WavFile.complete

    def complete(self, *, sync=False):
        if self.path.name.endswith("-a.wav"):
            raise ZeroDivisionError("defect")
        real(self, sync=sync)

    monkeypatch.setattr(WavFile, "complete", complete)
    with recording(tmp_path, fsync_s=1) as sink:
        tracks = make_track(0), make_track(1, leg="B")
        for track in tracks:
            sink.open(track)
        speak(sink, tracks, 5)
        results = close(sink, *tracks)
    assert results[0]["error"] == "ZeroDivisionError('defect')"
    assert "error" not in results[1]
    assert names(tmp_path) == [f"{STEM}-a.wav.part", f"{STEM}-b.wav"]


def test_rate_that_the_format_cannot_have_stays_wav(tmp_path):
    with recording(tmp_path, format="ogg") as sink:
        track = make_track()
        sink.open(track)
        sink.write(block([0], [0], [tone(441).tobytes()], codec=Linear(44_100)))
        (result,) = close(sink, track)
    assert names(tmp_path) == [f"{STEM}-a.wav"]
    assert result["recording"] == str(tmp_path / f"{STEM}-a.wav")
    assert result["not_encoded"].startswith("libsndfile: ")


def test_end_does_not_wait_for_encoding_longer_than_it_may(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(finishing, "ENCODE_AT_STOP_S", -1)
    monkeypatch.setattr(finishing, "PROGRESS_S", 0.01)
    begun, may_go_on = threading.Event(), threading.Event()

    def encode(*_):
        begun.set()
        assert may_go_on.wait(10)
        yield

    monkeypatch.setattr(finishing, "encode", encode)
    with caplog.at_level(logging.INFO), recording(tmp_path, format="flac") as sink:
        track = make_track()
        sink.open(track)
        speak(sink, [track], 5)
        result = sink.close(track, None)
        assert begun.wait(10)
        threading.Timer(0.1, may_go_on.set).start()
    assert result.result(0)["not_encoded"] == "the end came first"
    assert names(tmp_path) == [f"{STEM}-a.wav"]
    assert "recordings are being finished: 1 are left" in caplog.text


def test_what_waits_beyond_the_bound_stays_wav(tmp_path, monkeypatch):
    monkeypatch.setattr(finishing, "MAX_WAITING_BYTES", 5 * FRAME * 2)
    may_go_on = threading.Event()

    def encode(_, target, __):
        assert may_go_on.wait(10)
        target.touch()
        yield

    monkeypatch.setattr(finishing, "encode", encode)
    with recording(tmp_path, format="flac", layout="mono") as sink:
        results = []
        for row in range(3):
            track = make_track(row, call=UUID(int=row))
            sink.open(track)
            speak(sink, [track], 5 if row else 1000)  # the first is longer than the bound
            results.append(sink.close(track, None))
        assert sink.waiting_files == 3
        may_go_on.set()
        told = [result.result(10).get("not_encoded") for result in results]
    assert told == [None, *["too many recordings waited to be encoded"] * 2]
    assert [name[-4:] for name in names(tmp_path)] == ["flac", ".wav", ".wav"]


def test_name_is_free_only_where_the_encoded_file_has_it_too(tmp_path):
    (tmp_path / f"{STEM}-a.flac").write_text("mine")
    with recording(tmp_path, format="flac") as sink:
        track = make_track()
        sink.open(track)
        speak(sink, [track], 5)
        close(sink, track)
    assert names(tmp_path) == [f"{STEM}-a-2.flac", f"{STEM}-a.flac"]
    assert (tmp_path / f"{STEM}-a.flac").read_text() == "mine"


# -- to disk


@pytest.fixture
def synced(monkeypatch):
    """What was synced: names as they were then."""
    done = []

    def fsync(fd):
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    return done


def test_file_is_synced_renamed_and_its_folder_synced(tmp_path, synced):
    with recording(tmp_path, fsync_s=3600) as sink:
        track = make_track()
        sink.open(track)
        speak(sink, [track], 5)
        del synced[:]
        close(sink, track)
    assert synced == [f"{STEM}-a.wav.part", tmp_path.name]


def test_what_was_written_is_synced_every_fsync_s_and_nothing_else(tmp_path, synced):
    with recording(tmp_path, fsync_s=2, flush_s=0.02) as sink:
        tracks = [make_track(row, call=UUID(int=row)) for row in range(3)]
        for track in tracks:
            sink.open(track)
        times = []
        for ms in range(0, 6000, 500):
            sink.write(block([0, 1], [ms * 8] * 2, [b"\x01" * FRAME] * 2, arrival_ms=ms))
            sink.tick((ms + 250) * MS)
            while sink._finisher._unsynced:
                pass
            times.append(len(synced))
    assert times == [2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6]
    assert {name[17:53] for name in synced[:6]} == {str(UUID(int=0)), str(UUID(int=1))}


@pytest.mark.skipif(not CAN_SYNC_FILE_SYSTEMS, reason="needs syncfs")
@pytest.mark.parametrize("is_refused", [False, True])
def test_many_files_are_synced_with_their_file_system_where_that_can_be(
    tmp_path, synced, monkeypatch, is_refused
):
    whole = []

    def sync_file_system(self):
        whole.append(self.part.parent)
        if is_refused:
            raise OSError("not here")

    monkeypatch.setattr(WavFile, "sync_file_system", sync_file_system)
    count = finishing.MANY_FILES
    with recording(tmp_path, fsync_s=2, flush_s=0.02) as sink:
        for row in range(count):
            sink.open(make_track(row, call=UUID(int=row)))
        sink.write(block(range(count), [0] * count, [b"\x01" * FRAME] * count))
        sink.tick(3000 * MS)
        while sink._finisher._unsynced:
            pass
        assert whole[:1] == [tmp_path]
        assert len(synced) == (count if is_refused else 0)


@pytest.mark.skipif(not CAN_SYNC_FILE_SYSTEMS, reason="needs syncfs")
def test_file_system_is_synced(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    assert file.device == tmp_path.stat().st_dev
    file.sync_file_system()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.sync_file_system()


def test_without_fsync_nothing_is_synced_and_no_thread_runs(tmp_path, synced):
    before = threading.active_count()
    with recording(tmp_path) as sink:
        track = make_track()
        sink.open(track)
        speak(sink, [track], 100)
        assert threading.active_count() == before
        close(sink, track)
    assert synced == []


@pytest.mark.parametrize("option", ["fsync_s", "max_length_s"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_times_are_not_negative(option, value):
    with pytest.raises(SinkError, match=rf"{option} is .*, expected seconds, or 0 for none"):
        WavSink(**{option: value})


# -- split


def test_split_files_are_together_the_one_file(tmp_path):
    folders = tmp_path / "one", tmp_path / "split"
    codes = [RNG.integers(0, 256, 500 * FRAME, np.uint8) for _ in range(2)]
    for folder, options in zip(folders, ({}, {"split_s": 2.5}), strict=True):
        with recording(folder, **options) as sink:
            tracks = make_track(0), make_track(1, "outbound", opened_ms=30)
            for track in tracks:
                sink.open(track)
            speak(sink, tracks, 200, codes=[each[: 200 * FRAME] for each in codes])
            sink.write(block([0], [190 * FRAME - 3], [b"\x80" * FRAME], arrival_ms=4000))
            speak(sink, tracks, 100, first=700, codes=[each[200 * FRAME :] for each in codes])
            results = close(sink, *tracks)
    (one,) = names(folders[0])
    split = names(folders[1])
    assert split == [f"{STEM}-a_{n:03d}.wav" for n in range(1, 8)]
    files = [pcm(folders[1] / name) for name in split]
    assert [each.shape[1] for each in files[:-1]] == [20_000] * 6
    assert np.array_equal(np.concatenate(files, axis=1), pcm(folders[0] / one))
    assert results[1]["recording"] == str(folders[1] / split[0])
    assert results[1]["manifest"] == str(folders[1] / f"{STEM}-a.json")
    assert [each["recording"] for each in results[1]["files"]] == split
    assert [each["start_s"] for each in results[1]["files"]] == [2.5 * n for n in range(7)]
    assert results[1]["files"][-1]["duration_s"] == files[-1].shape[1] / 8000


def test_file_is_finished_when_the_recording_has_gone_on_for_as_long(tmp_path):
    with recording(tmp_path, split_s=1, flush_s=0.02) as sink:
        track = make_track(call=UUID(int=1))  # whose first run has room for more than one frame
        sink.open(track)
        finished = []
        for i in range(200):
            speak(sink, [track], 1, first=i)
            finished.append(sum(not name.endswith(".part") for name in names(tmp_path)))
        close(sink, track)
    assert [finished.index(n) for n in (1, 2)] == [99, 149]


def test_what_comes_for_a_finished_file_is_left_out_and_counted(tmp_path):
    with recording(tmp_path, split_s=1, layout="mono") as sink:
        track = make_track()
        sink.open(track)
        speak(sink, [track], 250)
        sink.write(block([0], [100], [b"\x01" * FRAME], arrival_ms=5000))
        (result,) = close(sink, track)
    assert result["late_samples"] == FRAME
    assert len(names(tmp_path)) == 5


def test_files_of_a_split_recording_are_encoded_one_by_one(tmp_path):
    with recording(tmp_path, split_s=1, format="flac") as sink:
        track = make_track()
        sink.open(track)
        codes = speak(sink, [track], 120)
        (result,) = close(sink, track)
    assert names(tmp_path) == [f"{STEM}-a_{n:03d}.flac" for n in (1, 2, 3)]
    assert [each["recording"] for each in result["files"]] == names(tmp_path)
    whole = np.concatenate([pcm(tmp_path / name) for name in names(tmp_path)], axis=1)
    assert np.array_equal(whole[0], PCMU.table[codes[0]])


@pytest.mark.parametrize("split_s", [-1, 0.5, float("nan")])
def test_files_have_a_second_at_least(split_s):
    with pytest.raises(SinkError, match=r"split_s is .*, expected at least 1 s, or 0 for one file"):
        WavSink(split_s=split_s)


# -- longest recording


@pytest.mark.parametrize("split_s", [0, 1])
def test_what_is_beyond_the_longest_recording_is_left_out(tmp_path, split_s):
    with recording(tmp_path, max_length_s=1.5, split_s=split_s) as sink:
        track = make_track()
        sink.open(track)
        codes = speak(sink, [track], 120)
        sink.write(block([0], [10**12], [b"\x01" * FRAME], arrival_ms=5000))
        (result,) = close(sink, track)
    whole = np.concatenate([pcm(tmp_path / name) for name in names(tmp_path)], axis=1)
    assert np.array_equal(whole[0], PCMU.table[codes[0]][:12_000])
    assert result["cut_at_s"] == 1.5


# -- rates and linear samples


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_linear_samples_are_recorded_at_their_rate(tmp_path, rate_hz, layout):
    sound = RNG.integers(-32768, 32768, (2, rate_hz), np.int16).astype("<i2")
    samples = rate_hz // 50
    with recording(tmp_path, layout=layout) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        for first in range(0, rate_hz, samples):
            frame = [each[first : first + samples].tobytes() for each in sound]
            start = first + (first >= rate_hz / 2) * 7
            sink.write(block([0, 1], [start] * 2, frame, codec=Linear(rate_hz)))
            sink.tick(first * 1000 // rate_hz * MS)
        close(sink, *tracks)
    files = [pcm(tmp_path / name) for name in names(tmp_path)]
    recorded = files[0] if layout == "stereo" else np.concatenate(files)
    half = rate_hz // 2
    expected = np.concatenate([sound[:, :half], np.zeros((2, 7)), sound[:, half:]], axis=1)
    assert np.array_equal(recorded, expected)
    assert {soundfile.info(tmp_path / name).samplerate for name in names(tmp_path)} == {rate_hz}


def test_track_of_another_rate_has_a_recording_of_its_own(tmp_path):
    with recording(tmp_path) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        sink.write(block([0], [0], [b"\x80" * FRAME]))
        sink.write(block([1], [0], [tone(320).tobytes()], arrival_ms=10, codec=Linear(16_000)))
        again = make_track(2, "inbound", opened_ms=20)
        sink.open(again)
        sink.write(block([2], [0], [tone(320).tobytes()], arrival_ms=20, codec=Linear(16_000)))
        first, second, third = close(sink, *tracks, again)
    assert first["recording"] == str(tmp_path / f"{STEM}-a.wav")
    assert third["recording"] == second["recording"] == str(tmp_path / f"{STEM}-a-2.wav")
    assert pcm(first["recording"]).shape == (2, FRAME)
    # the other recording begins when the track did that it was begun for
    assert second["offset_samples"] == 160
    left, right = pcm(second["recording"])
    assert np.array_equal(left[320:], tone(320))
    assert np.array_equal(right[160:480], tone(320))


@pytest.mark.parametrize("codec", [PCMU, PCMA])
@pytest.mark.parametrize("encoding", ["pcm16", "source"])
def test_codec_may_change_between_codes_and_linear_samples(tmp_path, codec, encoding):
    linear = codec.table[np.arange(256, dtype=np.uint8)].astype("<i2")
    codes = bytes(range(256))
    for kinds in ("clc", "lcl"):
        folder = tmp_path / kinds
        with recording(folder, layout="mono", encoding=encoding) as sink:
            track = make_track()
            sink.open(track)
            for i, kind in enumerate(kinds):
                payload = codes if kind == "c" else linear.tobytes()
                chosen = codec if kind == "c" else Linear(8000)
                sink.write(block([0], [i * 256], [payload], codec=chosen))
            close(sink, track)
        (path,) = folder.iterdir()
        law = {"PCMU": "ULAW", "PCMA": "ALAW"}[codec.name]
        is_law = encoding == "source" and kinds == "clc"
        assert soundfile.info(path).subtype == (law if is_law else "PCM_16")
        assert np.array_equal(pcm(path)[0], np.tile(linear, 3))


# -- names


def test_file_is_named_by_what_is_known_of_the_call_when_it_is_made(tmp_path):
    with recording(tmp_path, file_name="{time:%Y/%m}/{from}-{call_leg_id}", format="flac") as sink:
        told = {}
        sink.facts = {CALL: told}.get
        tracks = make_track(0), make_track(1, leg="B")
        for track in tracks:
            sink.open(track)
        told["from"] = "+353/../1"
        sink.write(block([0, 1], [0, 0], [b"\x80" * FRAME] * 2))
        results = close(sink, *tracks)
    stem = f"2026/01/+353_.._1-{CALL}"
    assert names(tmp_path) == [f"{stem}-2.flac", f"{stem}.flac"]
    assert [each["recording"] for each in results] == [
        str(tmp_path / f"{stem}.flac"), str(tmp_path / f"{stem}-2.flac"),
    ]  # fmt: skip
    assert results[1]["manifest"] == str(tmp_path / f"{stem}-2.json")


def test_folder_of_recordings_that_vanished_is_made_anew(tmp_path):
    with recording(tmp_path / "mount", file_name="{date}/{call_leg_id}") as sink:
        track = make_track()
        sink.open(track)
        sink.write(block([0], [0], [b"\x80" * FRAME]))
        (tmp_path / "mount").rmdir()
        (result,) = close(sink, track)
    assert result["recording"] == str(tmp_path / "mount" / "2026-01-01" / f"{CALL}.wav")
    assert "error" not in result


def test_results_are_json(tmp_path):
    with recording(tmp_path, split_s=1, max_length_s=2) as sink:
        track = make_track()
        sink.open(track)
        speak(sink, [track], 150)
        sink.pause(CALL, 3000 * MS)
        json.dumps(close(sink, track))
