from __future__ import annotations

import json
import re
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile

from strep.picture import PictureError, _clock, draw_call

LEFT, RIGHT = 56, 1544
UPPER, LOWER = slice(145, 360), slice(405, 620)
"""Rows of pixels of the two lanes of a picture."""


def track(direction, channel, **changes):
    return {
        "leg": "A",
        "direction": direction,
        "recording": "call.wav",
        "channel": channel,
        "offset_s": 0.0,
        "duration_s": 10.0,
        "packets": 500,
        "lost": 2,
        "late": 0,
        "duplicate": 0,
        "reordered": 1,
        "jitter_mean_ms": 1.5,
        "jitter_max_ms": 4.0,
        "speech": [],
    } | changes


def manifest_of(*tracks):
    return {
        "version": 1,
        "call_leg_id": "00112233-4455-6677-8899-aabbccddeeff",
        "leg": "A",
        "started_at": "2025-06-03T09:14:27Z",
        "ended_at": "2025-06-03T09:14:37Z",
        "tracks": list(tracks),
    }


@pytest.fixture
def folder(tmp_path):
    """A folder with 10 s of stereo: a tone in the left channel's first half, then silence."""
    stereo = np.zeros((80_000, 2))
    stereo[:40_000, 0] = 0.5 * np.sin(np.arange(40_000) * 0.5)
    soundfile.write(tmp_path / "call.wav", stereo, 8000, subtype="ULAW")
    soundfile.write(tmp_path / "tone.wav", stereo[:40_000, 0], 8000, subtype="PCM_16")
    return tmp_path


def draw(folder, *tracks):
    """Return the picture, float (rows, columns, rgba)."""
    manifest = folder / "call.json"
    manifest.write_text(json.dumps(manifest_of(*tracks)), encoding="utf-8")
    draw_call(manifest, folder / "call.png")
    return matplotlib.image.imread(folder / "call.png")


def draw_both(folder, **changes):
    return draw(folder, track("inbound", "left", **changes), track("outbound", "right"))


def columns_that_differ(one, other):
    return np.flatnonzero((one != other).any(axis=(0, 2)))


def seconds(columns, *, of=10.0):
    return (columns - LEFT) / (RIGHT - LEFT) * of


def strong(picture):
    """Tell where the picture is as dark as a waveform, and not as light as a band."""
    return picture[:, :, :3].min(axis=2) < 0.5


def red(picture):
    return (picture[:, :, 0] > 0.7) & (picture[:, :, 1] < 0.4)


def test_two_tracks_make_a_picture_of_1600_by_700_on_light_paper(folder):
    picture = draw_both(folder)
    assert picture.shape == (700, 1600, 4)
    assert (picture[0, 0, :3] > 0.95).all()
    assert 0.02 < strong(picture).mean() < 0.3


def test_waveform_stands_where_and_only_where_there_is_sound(folder):
    picture = strong(draw_both(folder))
    upper = np.flatnonzero(np.count_nonzero(picture[UPPER], axis=0) > 20)
    assert seconds(upper[0]) == pytest.approx(0.0, abs=0.03)
    assert seconds(upper[-1]) == pytest.approx(5.0, abs=0.03)
    assert np.count_nonzero(picture[LOWER], axis=0).max() < 5


def test_speech_is_a_band_behind_its_own_lane(folder):
    without, with_speech = draw_both(folder), draw_both(folder, speech=[[6.0, 7.5]])
    band = columns_that_differ(without, with_speech)
    assert seconds(band[0]) == pytest.approx(6.0, abs=0.02)
    assert seconds(band[-1]) == pytest.approx(7.5, abs=0.02)
    assert np.array_equal(np.unique(np.diff(band)), [1])
    assert np.array_equal(without[LOWER], with_speech[LOWER])


def test_lost_packets_are_red_ticks(folder):
    without, with_losses = draw_both(folder), draw_both(folder, lost_at_s=[1.0, 8.0])
    ticks = np.flatnonzero(red(with_losses)[UPPER].any(axis=0))
    assert seconds(ticks[0]) == pytest.approx(1.0, abs=0.02)
    assert seconds(ticks[-1]) == pytest.approx(8.0, abs=0.02)
    assert len(ticks) < 10
    assert not red(without)[UPPER].any()
    assert np.array_equal(without[LOWER], with_losses[LOWER])


def test_keys_stand_where_they_were_pressed(folder):
    keys = [{"digit": "5", "start_s": 3.0}, {"digit": "#", "start_s": 7.0}]
    without, with_keys = draw_both(folder), draw_both(folder, dtmf=keys)
    marks = columns_that_differ(without, with_keys)
    assert seconds(marks[0]) == pytest.approx(3.0, abs=0.05)
    assert seconds(marks[-1]) == pytest.approx(7.1, abs=0.1)
    assert np.array_equal(without[LOWER], with_keys[LOWER])


def test_marks_count_from_the_start_of_the_track(folder):
    picture = draw_both(folder, offset_s=2.0, duration_s=8.0, lost_at_s=[5.0])
    assert seconds(np.flatnonzero(red(picture)[UPPER].any(axis=0)).mean()) == pytest.approx(
        7.0, abs=0.02
    )


def test_mono_recording_begins_where_its_track_does(folder):
    picture = draw(
        folder,
        track("inbound", "mono", recording="tone.wav", offset_s=5.0, duration_s=5.0),
        track("outbound", "right"),
    )
    wave = np.flatnonzero(np.count_nonzero(strong(picture)[UPPER], axis=0) > 20)
    assert seconds(wave[0]) == pytest.approx(5.0, abs=0.03)
    assert seconds(wave[-1]) == pytest.approx(10.0, abs=0.03)


def test_recording_is_found_beside_the_manifest_wherever_it_was_made(folder):
    assert np.array_equal(
        draw_both(folder), draw_both(folder, recording="/elsewhere/recordings/call.wav")
    )


def test_figures_stand_above_the_lane(folder):
    one, other = draw_both(folder), draw_both(folder, lost=77)
    rows = np.flatnonzero((one != other).any(axis=(1, 2)))
    assert rows[0] > 108
    assert rows[-1] < 148


@pytest.mark.parametrize(("tracks", "rows"), [(1, 440), (4, 1220)])
def test_each_track_adds_a_lane(folder, tracks, rows):
    assert draw(folder, *[track("inbound", "left")] * tracks).shape == (rows, 1600, 4)


def test_track_without_a_recording_or_audio_still_has_its_lane(folder):
    picture = draw(folder, track("inbound", "mono", recording=None, duration_s=0.0))
    assert picture.shape == (440, 1600, 4)


def test_times_are_minutes_and_seconds_and_hours_when_there_are_any():
    assert [_clock(0), _clock(65), _clock(3600 + 125)] == ["0:00", "1:05", "1:02:05"]


@pytest.mark.parametrize("duration_s", [0.4, 3600.0, 4 * 3600.0, 1e6])
def test_any_duration_gets_a_readable_axis(folder, duration_s):
    labels = draw(folder, track("inbound", "left", recording=None, duration_s=duration_s))[380:]
    inked = (labels[:, LEFT:RIGHT, :3].min(axis=2) < 0.8).any(axis=0)
    assert 0.005 < inked.mean() < 0.7


def test_missing_matplotlib_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PictureError, match=re.escape("pip install 'strep[picture]'")):
        draw_both(folder)


def test_manifest_that_is_missing_is_named(tmp_path):
    with pytest.raises(PictureError, match=r"cannot draw .*gone\.json: .*No such file"):
        draw_call(tmp_path / "gone.json", tmp_path / "call.png")


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff", b"[]", b"{}", b'{"tracks": [{}]}', b'{"tracks": [{"offset_s": null}]}'],
)
def test_file_that_is_no_manifest_is_named(tmp_path, content):
    manifest = tmp_path / "call.json"
    manifest.write_bytes(content)
    with pytest.raises(PictureError, match=r"call\.json is not a manifest of a recorded call"):
        draw_call(manifest, tmp_path / "call.png")


def test_manifest_without_tracks_is_refused(folder):
    with pytest.raises(PictureError, match="names no track, expected at least one"):
        draw(folder)


def test_channel_that_the_recording_does_not_have_is_refused(folder):
    with pytest.raises(PictureError, match="is not a manifest of a recorded call"):
        draw(folder, track("inbound", "right", recording="tone.wav"))


@pytest.mark.parametrize("direction", ["sideways", None, 1, []])
def test_direction_that_there_is_not_is_refused(folder, direction):
    with pytest.raises(PictureError, match="is not a manifest of a recorded call"):
        draw(folder, track(direction, "left"))


def test_recording_that_is_missing_is_named(folder):
    with pytest.raises(PictureError, match=r"gone\.wav"):
        draw_both(folder, recording="gone.wav")


def test_picture_that_cannot_be_written_is_named(folder):
    draw_both(folder)
    with pytest.raises(PictureError, match=r"cannot write .*call\.png: .*No such file"):
        draw_call(folder / "call.json", folder / "missing" / "call.png")
