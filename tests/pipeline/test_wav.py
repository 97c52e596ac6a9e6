from __future__ import annotations

import audioop
import contextlib
import errno
import logging
import os
import resource
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from wavbench import CALL, MS, STEM, make_track, recording
from wavbench import block as frames

from pipeline.codecs import PCMA, PCMU
from pipeline.sinks import SinkError
from pipeline.sinks.wav import WavSink

pytestmark = pytest.mark.usefixtures("kernel")

SUMMARY = SimpleNamespace(packets=0)  # the sink looks at nothing else


def frame(codes, position=0, *, row=0, arrival_ms=0, codec=PCMU):
    """A block of one frame."""
    return frames([row], [position], [codes], arrival_ms=arrival_ms, codec=codec)


def pcm(path):
    return soundfile.read(path, dtype="int16")[0].T.tolist()


def codes(path):
    """The codes of a file in a law, as they are stored."""
    info = soundfile.info(path)
    stored = np.frombuffer(path.read_bytes()[94:], np.uint8)
    return stored[: info.frames * info.channels].reshape(-1, info.channels).T.tolist()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# G.711's extremes and what they decode to
LOUD_U, LOUD_A = b"\x80", b"\xaa"
LOUD_U_PCM, LOUD_A_PCM = 32124, 32256


def test_stereo_has_inbound_left_and_outbound_right_placed_by_arrival(tmp_path):
    with recording(tmp_path) as sink:
        inbound = make_track(0, "inbound", opened_ms=1000)
        outbound = make_track(1, "outbound", opened_ms=1001)
        sink.open(inbound)
        sink.write(frame(LOUD_U * 16, row=0, arrival_ms=1000))
        sink.open(outbound)
        sink.write(frame(LOUD_U * 16, row=1, arrival_ms=1001))
        first = sink.close(inbound, SUMMARY)
        second = sink.close(outbound, SUMMARY)
    path = tmp_path / f"20260101T000001Z-{CALL}-a.wav"
    assert first == {
        "recording": str(path),
        "manifest": str(path.with_suffix(".json")),
        "channel": "left",
        "offset_samples": 0,
    }
    assert second == {**first, "channel": "right", "offset_samples": 8}
    left, right = pcm(path)
    assert left == [LOUD_U_PCM] * 16 + [0] * 8
    assert right == [0] * 8 + [LOUD_U_PCM] * 16
    assert soundfile.info(path).samplerate == 8000


def test_arrival_places_only_the_first_frame_of_a_track(tmp_path):
    with recording(tmp_path) as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(LOUD_U * 8, 0, arrival_ms=10))
        sink.write(frame(LOUD_U * 8, 8, arrival_ms=500))
        assert sink.close(track, SUMMARY)["offset_samples"] == 80
    assert pcm(tmp_path / f"{STEM}-a.wav")[0] == [0] * 80 + [LOUD_U_PCM] * 16


def test_offset_counts_from_sample_0_of_the_track_and_is_never_negative(tmp_path):
    with recording(tmp_path) as sink:
        inbound, outbound = make_track(0), make_track(1, "outbound")
        sink.open(inbound)
        sink.open(outbound)
        sink.write(frame(LOUD_U * 8, 160, row=0, arrival_ms=30))
        sink.write(frame(LOUD_U * 8, 160, row=1, arrival_ms=10))
        assert sink.close(inbound, SUMMARY)["offset_samples"] == 80
        assert sink.close(outbound, SUMMARY)["offset_samples"] == 0
    left, right = pcm(tmp_path / f"{STEM}-a.wav")
    assert left == [0] * 240 + [LOUD_U_PCM] * 8
    assert right == [0] * 160 + [LOUD_U_PCM] * 8 + [0] * 80


def test_mono_has_a_file_per_track_that_begins_with_its_first_sample(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        inbound, outbound = make_track(0), make_track(1, "outbound", opened_ms=20, leg="A")
        for track in inbound, outbound:
            sink.open(track)
        sink.write(frame(LOUD_U * 8, row=0, arrival_ms=700))
        sink.write(frame(LOUD_U * 9, row=1, arrival_ms=900))
        first, second = sink.close(inbound, SUMMARY), sink.close(outbound, SUMMARY)
    assert names(tmp_path) == [f"{STEM}-a-inbound.wav", f"{STEM}-a-outbound.wav"]
    assert (first["channel"], first["offset_samples"]) == ("mono", 0)
    assert second["manifest"] == str(tmp_path / f"{STEM}-a-outbound.json")
    assert pcm(tmp_path / f"{STEM}-a-inbound.wav") == [LOUD_U_PCM] * 8
    assert pcm(tmp_path / f"{STEM}-a-outbound.wav") == [LOUD_U_PCM] * 9


def test_legs_of_a_call_have_files_of_their_own(tmp_path):
    with recording(tmp_path) as sink:
        tracks = make_track(0, leg="A"), make_track(1, leg="B")
        for track in tracks:
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [LOUD_U * 4] * 2))
        for track in tracks:
            sink.close(track, SUMMARY)
    assert names(tmp_path) == [f"{STEM}-a.wav", f"{STEM}-b.wav"]


@pytest.mark.parametrize(("codec", "loud"), [(PCMU, LOUD_U_PCM), (PCMA, LOUD_A_PCM)])
@pytest.mark.parametrize("gap", [1, 160, 8000, 100_000])
def test_gap_is_zeros_in_pcm16(tmp_path, codec, loud, gap):
    code = LOUD_U if codec is PCMU else LOUD_A
    with recording(tmp_path, layout="mono") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(code * 80, 0, codec=codec))
        sink.write(frame(code * 80, 80 + gap, codec=codec))
        sink.close(track, SUMMARY)
    expected = [loud] * 80 + [0] * gap + [loud] * 80
    assert pcm(tmp_path / f"{STEM}-a-inbound.wav") == expected


def test_gap_before_another_law_is_zeros_in_pcm16(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(LOUD_A * 4, 0, codec=PCMA))
        sink.write(frame(LOUD_U * 4, 6, codec=PCMU))
        sink.close(track, SUMMARY)
    expected = [LOUD_A_PCM] * 4 + [0] * 2 + [LOUD_U_PCM] * 4
    assert pcm(tmp_path / f"{STEM}-a-inbound.wav") == expected


@pytest.mark.parametrize(("codec", "silence"), [(PCMU, 0xFF), (PCMA, 0xD5)])
@pytest.mark.parametrize("gap", [1, 160, 8000, 100_000])
def test_gap_is_the_silence_of_the_law_in_source(tmp_path, codec, silence, gap):
    with recording(tmp_path, encoding="source") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(b"\x01" * 80, 0, codec=codec))
        sink.write(frame(b"\x02" * 80, 80 + gap, codec=codec))
        sink.close(track, SUMMARY)
    left, right = codes(tmp_path / f"{STEM}-a.wav")
    assert left == [1] * 80 + [silence] * gap + [2] * 80
    assert right == [silence] * (160 + gap)


@pytest.mark.parametrize(("codec", "subtype"), [(PCMU, "ULAW"), (PCMA, "ALAW")])
def test_source_stores_every_code_as_it_came(tmp_path, codec, subtype):
    with recording(tmp_path, layout="mono", encoding="source") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(bytes(range(256)), codec=codec))
        sink.close(track, SUMMARY)
    path = tmp_path / f"{STEM}-a-inbound.wav"
    assert soundfile.info(path).subtype == subtype
    assert codes(path) == [list(range(256))]


def test_source_transcodes_the_other_law_to_that_of_the_first_frame(tmp_path):
    with recording(tmp_path, encoding="source") as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        sink.write(frame(b"\x80\x00\xff\x7f", row=0, codec=PCMU))
        sink.write(frame(b"\xaa\x2a\xd5\x55", row=1, codec=PCMA))
        sink.write(frame(b"\xaa\x2a\xd5\x55", 4, row=0, codec=PCMA))
        for track in tracks:
            sink.close(track, SUMMARY)
    path = tmp_path / f"{STEM}-a.wav"
    assert soundfile.info(path).subtype == "ULAW"
    left, right = codes(path)
    assert left == [0x80, 0x00, 0xFF, 0x7F, 0x80, 0x00, 0xFE, 0x7E]
    assert right == [0x80, 0x00, 0xFE, 0x7E, 0xFF, 0xFF, 0xFF, 0xFF]


def test_law_may_change_in_mid_track(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(LOUD_U * 3, 0, codec=PCMU))
        sink.write(frame(LOUD_A * 3, 3, codec=PCMA))
        sink.write(frame(LOUD_U * 3, 6, codec=PCMU))
        sink.close(track, SUMMARY)
    expected = [LOUD_U_PCM] * 3 + [LOUD_A_PCM] * 3 + [LOUD_U_PCM] * 3
    assert pcm(tmp_path / f"{STEM}-a-inbound.wav") == expected


@pytest.mark.parametrize("flushed", [False, True])
def test_frame_for_a_place_that_was_written_replaces_it(tmp_path, flushed):
    with recording(tmp_path, encoding="source") as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [b"\x01" * 8, b"\x02" * 8]))
        if flushed:
            sink.tick(10_000 * MS)
        sink.write(frame(b"\x03" * 2, 4, row=0))
        for track in tracks:
            sink.close(track, SUMMARY)
    left, right = codes(tmp_path / f"{STEM}-a.wav")
    assert left == [1, 1, 1, 1, 3, 3, 1, 1]
    assert right == [2] * 8


@pytest.mark.parametrize("layout", ["stereo", "mono"])
def test_gap_after_a_step_back_keeps_what_is_written_there(tmp_path, layout):
    with recording(tmp_path, layout=layout, encoding="source") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(b"\x01" * 12, 0))
        sink.tick(10_000 * MS)
        sink.write(frame(b"\x02\x02", 2))
        sink.tick(10_000 * MS)
        sink.write(frame(b"\x03", 4))
        sink.write(frame(b"\x04", 7))
        path = Path(sink.close(track, SUMMARY)["recording"])
    assert codes(path)[0] == [1, 1, 2, 2, 3, 1, 1, 4, 1, 1, 1, 1]


def test_frame_may_lose_its_stage_to_a_flush_of_the_other_channel(tmp_path):
    with recording(tmp_path, encoding="source") as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [b"\x01" * 8, b"\x02" * 8]))
        sink.write(frames([0, 1], [20_000, 4], [b"\x03" * 2, b"\x04" * 2]))
        for track in tracks:
            sink.close(track, SUMMARY)
    left, right = codes(tmp_path / f"{STEM}-a.wav")
    assert left == [1] * 8 + [0xFF] * 19_992 + [3] * 2
    assert right == [2, 2, 2, 2, 4, 4, 2, 2] + [0xFF] * 19_994


def test_silence_between_channels_that_are_far_apart_takes_no_space_in_pcm16(tmp_path):
    with recording(tmp_path) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [LOUD_U * 8] * 2))
        sink.write(frames([0, 1], [8, 10_000_000], [LOUD_U * 8] * 2))
        for track in tracks:
            sink.close(track, SUMMARY)
    path = tmp_path / f"{STEM}-a.wav"
    assert soundfile.info(path).frames == 10_000_008
    assert path.stat().st_blocks * 512 < 100_000


def test_samples_before_the_file_begins_are_cut_off(tmp_path):
    with recording(tmp_path, layout="mono", encoding="source") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(b"\x01" * 4, 0))
        sink.write(frame(b"\x02\x03\x04\x05", -3))
        sink.write(frame(b"\x06\x07", -9))
        sink.close(track, SUMMARY)
    assert codes(tmp_path / f"{STEM}-a-inbound.wav") == [[5, 1, 1, 1]]


def test_frame_longer_than_a_stage_is_recorded_whole(tmp_path):
    content = bytes(range(256)) * 100
    with recording(tmp_path, layout="mono", encoding="source") as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(content, 0))
        sink.write(frame(content, len(content)))
        sink.close(track, SUMMARY)
    assert codes(tmp_path / f"{STEM}-a-inbound.wav") == [list(content) * 2]


def test_block_may_be_reused_after_the_call(tmp_path):
    with recording(tmp_path, layout="mono", encoding="source") as sink:
        track = make_track()
        sink.open(track)
        block = frame(b"\x11" * 160).copy()
        sink.write(block)
        block.payload[:] = 0xA5
        block.position[:] = 0xA5
        sink.close(track, SUMMARY)
    assert codes(tmp_path / f"{STEM}-a-inbound.wav") == [[0x11] * 160]


def test_call_with_one_side_has_the_other_channel_silent(tmp_path):
    with recording(tmp_path) as sink:
        silent, track = make_track(0), make_track(1, "outbound")
        sink.open(silent)
        sink.open(track)
        sink.write(frame(LOUD_U * 4, row=1))
        assert sink.close(silent, SUMMARY) is None
        assert sink.close(track, SUMMARY)["channel"] == "right"
    assert pcm(tmp_path / f"{STEM}-a.wav") == [[0] * 4, [LOUD_U_PCM] * 4]


def test_track_without_audio_stands_in_the_manifest_of_the_other_side(tmp_path):
    with recording(tmp_path) as sink:
        pressing, track = make_track(0), make_track(1, "outbound")
        sink.open(pressing)
        sink.open(track)
        sink.write(frame(LOUD_U * 4, row=1))
        manifest = str(tmp_path / f"{STEM}-a.json")
        assert sink.close(pressing, SimpleNamespace(packets=9)) == {"manifest": manifest}
        assert sink.close(track, SUMMARY)["manifest"] == manifest


@pytest.mark.parametrize("layout", ["stereo", "mono"])
def test_track_without_audio_leaves_no_file(tmp_path, layout):
    with recording(tmp_path, layout=layout) as sink:
        track = make_track()
        sink.open(track)
        sink.tick(10_000 * MS)
        assert sink.close(track, SUMMARY) is None
    assert names(tmp_path) == []


def test_file_is_a_part_until_its_last_track_closes(tmp_path):
    with recording(tmp_path) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [LOUD_U * 4] * 2))
        sink.close(tracks[0], SUMMARY)
        assert names(tmp_path) == [f"{STEM}-a.wav.part"]
        sink.close(tracks[1], SUMMARY)
        assert names(tmp_path) == [f"{STEM}-a.wav"]


def test_tick_flushes_what_was_staged_flush_s_ago(tmp_path):
    call = UUID(int=1)  # whose first run has room for more than one frame
    part = tmp_path / f"20260101T000000Z-{call}-a-inbound.wav.part"
    with recording(tmp_path, layout="mono", flush_s=0.5) as sink:
        track = make_track(call=call)
        sink.open(track)
        sink.write(frame(LOUD_U * 160, 0, arrival_ms=100))
        sink.write(frame(LOUD_U * 160, 160, arrival_ms=120))
        sink.tick(599 * MS)
        assert not part.exists()
        sink.tick(600 * MS)
        assert pcm(part) == [LOUD_U_PCM] * 320
        sink.write(frame(LOUD_U * 160, 320, arrival_ms=620))
        sink.tick(1119 * MS)
        assert soundfile.info(part).frames == 320
        sink.tick(1120 * MS)
        assert soundfile.info(part).frames == 480


def test_tick_goes_by_each_tracks_first_staged_frame(tmp_path):
    with recording(tmp_path, layout="mono", flush_s=0.5) as sink:
        for row in 0, 1:
            sink.open(make_track(row, call=UUID(int=row)))
        sink.write(frame(LOUD_U * 160, 0, row=0, arrival_ms=100))
        sink.write(frames([0, 1], [160, 0], [LOUD_U * 160] * 2, arrival_ms=120))
        sink.tick(600 * MS)
        assert names(tmp_path) == [f"20260101T000000Z-{UUID(int=0)}-a-inbound.wav.part"]


def test_no_more_than_6720_samples_of_a_track_are_held_back(tmp_path):
    part = tmp_path / f"{STEM}-a-inbound.wav.part"
    with recording(tmp_path, layout="mono") as sink:
        sink.open(make_track())
        on_disk = []
        for number in range(200):
            sink.write(frame(LOUD_U * 160, number * 160))
            written = soundfile.info(part).frames if part.exists() else 0
            assert (number + 1) * 160 - written <= 6720
            if written and written not in on_disk:
                on_disk.append(written)
        first, *later = on_disk
        assert first <= 6720
        assert later == [first + 6720 * n for n in range(1, len(later) + 1)]


def test_calls_that_begin_together_are_not_written_together(tmp_path):
    calls = [UUID(int=i) for i in range(100)]
    with recording(tmp_path, layout="mono") as sink:
        for row, call in enumerate(calls):
            sink.open(make_track(row, call=call))
        begun = []
        for number in range(50):
            sink.write(frames(list(range(100)), [number * 160] * 100, [LOUD_U * 160] * 100))
            begun.append(len(list(tmp_path.iterdir())))
    # each 20 ms a few more files exist: never more than a tenth of them at once
    assert begun[0] <= 10
    assert max(np.diff(begun)) <= 10
    assert begun[-1] == 100


def test_existing_recording_or_manifest_is_never_overwritten(tmp_path):
    (tmp_path / f"{STEM}-a.wav").write_text("mine")
    (tmp_path / f"{STEM}-a-2.json").write_text("mine")
    (tmp_path / f"{STEM}-a-3.wav.part").write_text("mine")
    with recording(tmp_path) as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(LOUD_U * 4))
        results = sink.close(track, SUMMARY)
    assert results["recording"] == str(tmp_path / f"{STEM}-a-4.wav")
    assert results["manifest"] == str(tmp_path / f"{STEM}-a-4.json")
    assert (tmp_path / f"{STEM}-a.wav").read_text() == "mine"
    assert soundfile.info(tmp_path / f"{STEM}-a-4.wav").frames == 4


def test_call_that_comes_back_after_all_its_tracks_closed_begins_a_new_file(tmp_path):
    with recording(tmp_path) as sink:
        for opened_ms, length in (0, 4), (2000, 6):
            track = make_track(opened_ms=opened_ms)
            sink.open(track)
            sink.write(frame(LOUD_U * length, arrival_ms=opened_ms))
            sink.close(track, SUMMARY)
    assert pcm(tmp_path / f"{STEM}-a.wav")[0] == [LOUD_U_PCM] * 4
    assert pcm(tmp_path / f"20260101T000002Z-{CALL}-a.wav")[0] == [LOUD_U_PCM] * 6


def test_side_that_comes_back_during_the_call_goes_on_in_its_file(tmp_path):
    with recording(tmp_path) as sink:
        inbound, outbound = make_track(0), make_track(1, "outbound")
        sink.open(inbound)
        sink.open(outbound)
        sink.write(frames([0, 1], [0, 0], [LOUD_U * 8] * 2))
        sink.close(inbound, SUMMARY)
        again = make_track(0, opened_ms=2, generation=1)
        sink.open(again)
        sink.write(frame(LOUD_U * 8, 0, row=0, arrival_ms=2))
        assert sink.close(again, SUMMARY)["offset_samples"] == 16
        sink.close(outbound, SUMMARY)
    assert names(tmp_path) == [f"{STEM}-a.wav"]
    left, right = pcm(tmp_path / f"{STEM}-a.wav")
    assert left == [LOUD_U_PCM] * 8 + [0] * 8 + [LOUD_U_PCM] * 8
    assert right == [LOUD_U_PCM] * 8 + [0] * 16


def test_second_track_of_one_direction_gets_a_file_of_its_own(tmp_path):
    with recording(tmp_path) as sink:
        tracks = make_track(0), make_track(1)
        for track in tracks:
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [LOUD_U * 4, b"\xff" * 4]))
        results = [sink.close(track, SUMMARY)["recording"] for track in tracks]
    assert results == [str(tmp_path / f"{STEM}-a.wav"), str(tmp_path / f"{STEM}-a-2.wav")]
    assert pcm(tmp_path / f"{STEM}-a.wav")[0] == [LOUD_U_PCM] * 4
    assert pcm(tmp_path / f"{STEM}-a-2.wav")[0] == [0] * 4


def test_row_that_is_reused_begins_afresh(tmp_path):
    other = UUID(int=5)
    with recording(tmp_path, layout="mono") as sink:
        track = make_track(0)
        keeper = make_track(1, call=UUID(int=6))
        sink.open(keeper)
        sink.open(track)
        sink.write(frame(LOUD_U * 160))
        sink.close(track, SUMMARY)
        again = make_track(0, call=other, generation=1)
        sink.open(again)
        sink.write(frame(LOUD_U * 80, 160))
        assert sink.close(again, SUMMARY)["offset_samples"] == 0
    expected = [0] * 160 + [LOUD_U_PCM] * 80
    assert pcm(tmp_path / f"20260101T000000Z-{other}-a-inbound.wav") == expected


def test_stop_completes_the_files_that_are_open(tmp_path):
    with recording(tmp_path) as sink:
        for track in make_track(0), make_track(1, "outbound"):
            sink.open(track)
        sink.write(frames([0, 1], [0, 0], [LOUD_U * 4] * 2))
    assert pcm(tmp_path / f"{STEM}-a.wav") == [[LOUD_U_PCM] * 4] * 2


def test_rows_far_up_are_recorded_and_their_memory_is_given_back(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        low, high = make_track(0), make_track(5000, call=UUID(int=7))
        before = sink._stages._codes.nbytes
        sink.open(low)
        sink.write(frame(LOUD_U * 4, row=0))
        sink.open(high)
        sink.write(frame(LOUD_U * 4, row=5000))
        for track in low, high:
            assert pcm(sink.close(track, SUMMARY)["recording"]) == [LOUD_U_PCM] * 4
        assert sink._stages._codes.nbytes == before


@contextlib.contextmanager
def largest_file(size_bytes):
    """Let the kernel refuse what lies beyond so many bytes of any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_recording_that_cannot_be_written_ends_and_the_others_go_on(tmp_path, caplog):
    short, long = UUID(int=1), UUID(int=2)
    with largest_file(50_000), recording(tmp_path, layout="mono") as sink:
        tracks = make_track(0, call=short), make_track(1, call=long)
        for track in tracks:
            sink.open(track)
        sink.write(frame(LOUD_U * 160, row=0))
        for number in range(300):
            sink.write(frame(LOUD_U * 160, number * 160, row=1))
        sink.write(frame(LOUD_U * 160, 160, row=0))
        results = [sink.close(track, SUMMARY) for track in tracks]
        assert sink.failed_recordings == 1
    assert "error" not in results[0]
    assert pcm(results[0]["recording"]) == [LOUD_U_PCM] * 320
    assert results[1]["error"] == "File too large"
    assert results[1]["recording"] == str(tmp_path / f"20260101T000000Z-{long}-a-inbound.wav")
    flushed = len(pcm(results[1]["recording"]))
    assert 50_000 - 2 * 6720 <= 44 + 2 * flushed <= 50_000  # one more run passes 50,000 bytes
    assert pcm(results[1]["recording"]) == [LOUD_U_PCM] * flushed
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "File too large" in caplog.text


def test_track_that_opens_after_an_error_gets_a_new_file(tmp_path):
    with recording(tmp_path) as sink:
        inbound, outbound = make_track(0), make_track(1, "outbound")
        sink.open(inbound)
        with largest_file(94):  # a header, and no more
            sink.write(frame(LOUD_U * 4, row=0))
            sink.tick(10_000 * MS)
        sink.open(outbound)
        sink.write(frames([0, 1], [4, 0], [LOUD_U * 4] * 2))
        assert sink.close(inbound, SUMMARY) == {
            "channel": "left",
            "offset_samples": 0,
            "error": "File too large",
        }
        assert sink.close(outbound, SUMMARY)["recording"] == str(tmp_path / f"{STEM}-a.wav")
    assert names(tmp_path) == [f"{STEM}-a.wav"]
    assert pcm(tmp_path / f"{STEM}-a.wav") == [[0] * 4, [LOUD_U_PCM] * 4]


def test_file_that_never_took_a_sample_is_removed(tmp_path):
    with recording(tmp_path) as sink:
        track = make_track()
        sink.open(track)
        with largest_file(94):  # the header, and no more
            sink.write(frame(LOUD_U * 4))
            sink.tick(10_000 * MS)
        assert "recording" not in sink.close(track, SUMMARY)
        assert sink.failed_recordings == 1
    assert names(tmp_path) == []


def test_folder_that_vanished_is_made_again(tmp_path):
    folder = tmp_path / "recordings"
    with recording(folder) as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(LOUD_U * 4))
        shutil.rmtree(folder)
        results = sink.close(track, SUMMARY)
        assert sink.failed_recordings == 0
    assert pcm(results["recording"]) == [[LOUD_U_PCM] * 4, [0] * 4]


def vanish(sink, folder):
    """Record a little, and remove the folder when that is on disk; return the track."""
    track = make_track()
    sink.open(track)
    sink.write(frame(LOUD_U * 4))
    sink.tick(10_000 * MS)
    shutil.rmtree(folder)
    return track


def test_recording_whose_folder_vanishes_is_whole_in_the_end(tmp_path):
    folder = tmp_path / "recordings"
    with recording(folder) as sink:
        before = len(names(Path("/dev/fd")))
        track = vanish(sink, folder)
        sink.write(frame(LOUD_U * 4, 4))
        results = sink.close(track, SUMMARY)
        assert len(names(Path("/dev/fd"))) == before
    assert "error" not in results
    assert names(folder) == [f"{STEM}-a.wav"]
    assert pcm(results["recording"]) == [[LOUD_U_PCM] * 8, [0] * 8]


def test_folder_that_vanishes_and_cannot_be_made_leaves_no_descriptor_open(tmp_path):
    folder = tmp_path / "recordings"
    with recording(folder) as sink:
        before = len(names(Path("/dev/fd")))
        track = vanish(sink, folder)
        folder.touch()
        results = sink.close(track, SUMMARY)
        assert len(names(Path("/dev/fd"))) == before
    assert results["error"] == "Not a directory"
    assert "recording" not in results


class Disk:
    """Says how much space there is: `free` MiB."""

    def __init__(self, monkeypatch, free):
        self.free = free
        monkeypatch.setattr(os, "statvfs", self._look)

    def _look(self, _):
        return SimpleNamespace(f_frsize=2**20, f_bavail=self.free)


def test_low_disk_begins_no_recording_until_there_is_space(tmp_path, monkeypatch, caplog):
    disk = Disk(monkeypatch, 1000)
    first, second, third = (UUID(int=number) for number in (1, 2, 3))
    with recording(tmp_path, min_free_bytes=100 * 2**20) as sink:
        tracks = [make_track(row, call=call) for row, call in enumerate((first, second, third))]
        sink.open(tracks[0])
        sink.write(frame(LOUD_U * 4, row=0))
        sink.tick(10_000 * MS)
        disk.free = 99
        for track in tracks[1:]:
            sink.open(track)
        for number in (1, 2, 3):
            sink.tick((10_000 + 2000 * number) * MS)
            sink.write(frames([0, 1, 2], [4 * number] * 3, [LOUD_U * 4] * 3))
        disk.free = 105  # not enough yet
        sink.tick(18_000 * MS)
        assert names(tmp_path) == [f"20260101T000000Z-{first}-a.wav.part"]
        assert sink.gauges() == {
            "recordings_finishing": 0, "recordings_put_off": 2, "recordings_disk_low": 1,
        }  # fmt: skip
        lost = sink.close(tracks[2], SUMMARY)
        disk.free = 111
        sink.write(frames([0, 1], [16] * 2, [LOUD_U * 4] * 2))
        sink.tick(20_000 * MS)
        assert sink.gauges()["recordings_disk_low"] == 0
        assert sink.gauges()["recordings_put_off"] == 0
        whole, late = [sink.close(track, SUMMARY) for track in tracks[:2]]
        assert sink.counters()["recordings_failed"] == 1
        assert sink.counters()["recording_attempts_failed"] == 0
    assert pcm(whole["recording"]) == [[LOUD_U_PCM] * 20, [0] * 20]
    assert pcm(late["recording"]) == [[0] * 16 + [LOUD_U_PCM] * 4, [0] * 20]
    assert late["missed_until_s"] == 16 / 8000
    assert lost == {
        "channel": "left", "offset_samples": 0, "missed_until_s": 16 / 8000,
        "error": "the disk is too full for another recording",
    }  # fmt: skip
    assert [record.message for record in caplog.records if "beg" in record.message] == [
        f"no recordings begin: 99 MiB are free in {tmp_path}, and 100 are to be",
        "recordings begin again: 111 MiB are free",
        "all recordings that had to wait have begun",
    ]


def test_low_disk_is_no_matter_where_there_is_no_limit(tmp_path, monkeypatch):
    Disk(monkeypatch, 0)
    with recording(tmp_path, min_free_bytes=0) as sink:
        track = make_track()
        sink.open(track)
        sink.write(frame(LOUD_U * 4))
        assert pcm(sink.close(track, SUMMARY)["recording"]) == [[LOUD_U_PCM] * 4, [0] * 4]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_recording_that_cannot_begin_is_tried_again_with_each_flush(
    tmp_path, monkeypatch, caplog, number
):
    open_ = os.open
    tried = []

    def refuse(path, *args):
        if (path == tmp_path or str(path).endswith(".part")) and len(tried) < 3:
            tried.append(path)
            raise OSError(number, os.strerror(number))
        return open_(path, *args)

    with recording(tmp_path) as sink:
        monkeypatch.setattr(os, "open", refuse)
        track = make_track()
        sink.open(track)
        for flush in range(4):
            sink.write(frame(LOUD_U * 4, 4 * flush))
            sink.tick((10_000 + 2000 * flush) * MS)
        results = sink.close(track, SUMMARY)
        assert sink.counters()["recording_attempts_failed"] == 3
        assert sink.failed_recordings == 0
    assert pcm(results["recording"]) == [[0] * 12 + [LOUD_U_PCM] * 4, [0] * 16]
    assert results["missed_until_s"] == 12 / 8000
    assert [record.message for record in caplog.records] == [
        f"recordings cannot begin, and wait: {STEM}-a: {os.strerror(number)}",
        "all recordings that had to wait have begun",
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_recording_goes_on_in_its_file_when_there_is_space_again(
    tmp_path, monkeypatch, caplog, number
):
    pwrite, full = os.pwrite, [False]

    def write(fd, content, offset):
        if not full[0]:
            return pwrite(fd, content, offset)
        if offset and len(content) > 5:  # some of it fits, half of a sample included
            return pwrite(fd, content[:5], offset)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", write)
    goes_on, ends = UUID(int=1), UUID(int=2)
    with recording(tmp_path) as sink:
        tracks = [make_track(0, call=goes_on), make_track(1, call=ends)]
        for track in tracks:
            sink.open(track)
        for flush in range(5):
            full[0] = flush in {1, 2}
            if flush == 3:
                full[0] = True
                failed = sink.close(tracks[1], SUMMARY)
                full[0] = False
            sink.write(frame(LOUD_U * 4, 4 * flush, row=0))
            if flush < 3:
                sink.write(frame(LOUD_U * 4, 4 * flush, row=1))
            sink.tick((10_000 + 2000 * flush) * MS)
            if flush == 2:
                assert sink.gauges()["recordings_put_off"] == 2
                for path in tmp_path.glob("*.part"):
                    assert pcm(path) == [[LOUD_U_PCM] * 4, [0] * 4]
        assert sink.gauges()["recordings_put_off"] == 0
        results = sink.close(tracks[0], SUMMARY)
        assert sink.counters()["recording_attempts_failed"] == 4
        assert sink.failed_recordings == 1
    assert pcm(results["recording"]) == [
        [LOUD_U_PCM] * 4 + [0] * 8 + [LOUD_U_PCM] * 8, [0] * 20,
    ]  # fmt: skip
    assert results["missed_at_s"] == [[4 / 8000, 12 / 8000]]
    assert "error" not in results
    assert pcm(failed["recording"]) == [[LOUD_U_PCM] * 4, [0] * 4]
    assert failed["error"] == os.strerror(number)
    said = [record.message for record in caplog.records]
    assert said[0].startswith("recordings cannot go on, and wait: ")
    assert said[-1] == "all recordings that had to wait have gone on"


def test_recording_that_can_neither_be_written_nor_finished_has_no_path(tmp_path):
    folder = tmp_path / "recordings"
    with recording(folder) as sink:
        track = vanish(sink, folder)
        folder.touch()
        with largest_file(110):
            sink.write(frame(LOUD_U * 4, 4))
            sink.tick(10_000 * MS)
        assert sink.close(track, SUMMARY) == {
            "channel": "left",
            "offset_samples": 0,
            "error": "File too large",
        }
        assert sink.failed_recordings == 1


def test_folder_is_made(tmp_path):
    with recording(tmp_path / "a" / "b"):
        assert names(tmp_path / "a" / "b") == []


def test_folder_that_cannot_be_had_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"written to the folder .*file/recordings: Not a dir"):
        WavSink(directory=tmp_path / "file" / "recordings").start()


@pytest.mark.parametrize("flush_s", [0, -1, float("nan")])
def test_flush_interval_must_be_positive(flush_s):
    with pytest.raises(SinkError, match=r"flush_s is .*, expected more than 0 seconds"):
        WavSink(flush_s=flush_s)


class Model:
    """One recording as plain arrays: every frame is put where it belongs, over what was there.

    `sounds[channel]` are samples, or codes in the law of the first frame.
    """

    def __init__(self, channels, encoding):
        self.sounds = [np.zeros(0, np.int16) for _ in range(channels)]
        self.source = encoding == "source"
        self.law = None

    def put(self, channel, start, codec, codes):
        self.law = self.law or codec
        to_pcm = audioop.ulaw2lin if codec is PCMU else audioop.alaw2lin
        to_codes = audioop.lin2ulaw if self.law is PCMU else audioop.lin2alaw
        if not self.source:
            sound = np.frombuffer(to_pcm(codes, 2), np.int16)
        elif codec is self.law:
            sound = np.frombuffer(codes, np.uint8)
        else:
            sound = np.frombuffer(to_codes(to_pcm(codes, 2), 2), np.uint8)
        sound, start = sound[max(0, -start) :], max(0, start)
        if len(sound):
            length = max(start + len(sound), *map(len, self.sounds))
            silence = 0 if not self.source else 0xFF if self.law is PCMU else 0xD5
            self.sounds = [
                np.pad(each, (0, length - len(each)), constant_values=silence)
                for each in self.sounds
            ]
            self.sounds[channel][start : start + len(sound)] = sound


class ModelSink:
    """The recordings of rows 0 to 3: of two calls, inbound and outbound of each."""

    rows = range(4)

    def __init__(self, layout, encoding):
        self.layout = layout
        self.encoding = encoding
        self.models = [Model(2 if layout == "stereo" else 1, encoding) for _ in self.rows]
        self.offsets = [None for _ in self.rows]

    def tracks(self):
        directions = "inbound", "outbound"
        return [make_track(row, directions[row % 2], call=UUID(int=row // 2)) for row in self.rows]

    def place(self, row):
        return (row // 2, row % 2) if self.layout == "stereo" else (row, 0)

    def put(self, row, position, codec, codes, arrival_ms):
        if self.offsets[row] is None:
            self.offsets[row] = max(0, arrival_ms * 8 - position) * (self.layout == "stereo")
        model, channel = self.place(row)
        self.models[model].put(channel, self.offsets[row] + position, codec, codes)

    def check(self, row, result):
        model, channel = self.place(row)
        expected = self.models[model].sounds[channel]
        if self.offsets[row] is None:
            assert result is None
        elif not len(expected):
            assert "recording" not in result
        else:
            assert result["offset_samples"] == self.offsets[row]
            read = codes if self.encoding == "source" else pcm
            recorded = read(Path(result["recording"]))
            if self.encoding == "pcm16" and self.layout == "mono":
                recorded = [recorded]
            assert recorded[channel] == expected.tolist()


a_row = st.sampled_from(ModelSink.rows)
a_gap = st.one_of(
    st.sampled_from([160, -160, 161, -1, 8000, -8000, 20_000]), st.integers(-3000, 3000)
)
frames_in_sequence = st.builds(
    SimpleNamespace,
    rows=st.lists(a_row, min_size=1, unique=True),
    gaps=st.dictionaries(a_row, a_gap),
    codec=st.sampled_from([PCMU, PCMU, PCMU, PCMA]),
    length=st.sampled_from([80, 160, 240, 480, 161, 1]),
    times=st.one_of(st.just(1), st.integers(1, 60)),
    every_ms=st.sampled_from([0, 20, 33, 900]),
)
a_tick = st.sampled_from([0, 1000])  # ms later


@pytest.mark.parametrize("encoding", ["pcm16", "source"])
@pytest.mark.parametrize("layout", ["stereo", "mono"])
@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(st.one_of(frames_in_sequence, frames_in_sequence, a_tick), max_size=25),
    seed=st.integers(0, 2**32),
)
def test_any_sequence_of_frames_is_recorded_as_a_plain_model_has_it(layout, encoding, steps, seed):
    rng = np.random.default_rng(seed)
    model = ModelSink(layout, encoding)
    position = [0 for _ in model.rows]
    now_ms = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        recording(Path(folder), layout=layout, encoding=encoding) as sink,
    ):
        for track in model.tracks():
            sink.open(track)
        for step in steps:
            if isinstance(step, int):
                sink.tick((now_ms + step) * MS)
                continue
            for row, gap in step.gaps.items():
                position[row] += gap
            for _ in range(step.times):
                now_ms += step.every_ms
                starts = [position[row] for row in step.rows]
                content = [rng.bytes(step.length) for _ in step.rows]
                sink.write(frames(step.rows, starts, content, arrival_ms=now_ms, codec=step.codec))
                for row, start, code in zip(step.rows, starts, content, strict=True):
                    model.put(row, start, step.codec, code, now_ms)
                    position[row] += step.length
        results = [sink.close(track, SUMMARY) for track in model.tracks()]
        for row, result in enumerate(results):
            model.check(row, result)
