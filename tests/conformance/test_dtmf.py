"""Key presses of real captures, as their authors have them; and none where nobody pressed a key."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from material import MATERIAL, needs_material, table
from trackmaker import track

from pipeline.block import AudioBlock
from pipeline.codecs import PCMU, audioop
from pipeline.sinks.dtmf import DtmfSink
from strep.analyze import analyze
from strep.voices import load_voice

pytestmark = [needs_material, pytest.mark.usefixtures("kernel")]

CAPTURES = MATERIAL / "captures"
EXPECTED = table("captures/DTMF_EXPECT.csv")
PRESSED = [row for row in EXPECTED if row["digits_asserted"]]
FILES = sorted(p.relative_to(CAPTURES).as_posix() for p in CAPTURES.rglob("*.*cap*"))
CLIPS = sorted((MATERIAL / "vad").glob("*.wav"))
SPEEDS = (0.85, 1.0, 1.2)


def tracks_of(name, **options):
    return analyze(CAPTURES / name, {"dtmf": DtmfSink()}, **options).tracks


def track_of(row, **options):
    ssrc = f"{int(row['ssrc'], 16):#010x}"
    (found,) = [t for t in tracks_of(row["file"], **options) if t["ssrc"] == ssrc]
    return found


def named(rows):
    return [pytest.param(row, id=f"{row['file']}-{row['ssrc']}") for row in rows]


def told(presses, row):
    """Check the digits and durations of telephone-events against what stands in the table."""
    events = [press for press in presses if press["kind"] == "telephone-event"]
    assert "".join(press["digit"] for press in events) == row["digits_asserted"]
    durations = [round(press["duration_ms"] * 8) for press in events]
    assert durations == [int(units) for units in row["durations"].split("/")]
    starts = [press["start_s"] for press in events]
    assert starts == sorted(starts)
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("row", named(PRESSED))
def test_every_key_is_told_once_in_order_with_its_duration(row):
    track = track_of(row)
    told(track["dtmf"], row)
    # what is in the audio of these belongs to an event
    assert all(press["kind"] == "telephone-event" for press in track["dtmf"])
    assert "telephone-event" in track["codecs"]
    if "unknown" not in track["codecs"]:
        assert track["unknown_payload"] == 0


@pytest.mark.parametrize("row", named(PRESSED))
def test_payload_type_is_learnt(row):
    told(track_of(row, telephone_events={}, learn_telephone_events=True)["dtmf"], row)


@pytest.mark.parametrize("row", named(row for row in EXPECTED if not row["digits_asserted"]))
def test_payload_that_is_no_event_is_none(row):
    assert track_of(row)["dtmf"] == []


@pytest.mark.parametrize("name", sorted(set(FILES) - {row["file"] for row in PRESSED}))
def test_no_key_is_heard_where_none_was_pressed(name):
    assert [t["dtmf"] for t in tracks_of(name, learn_telephone_events=True) if t["dtmf"]] == []


def digits_in(voices):
    """Return the keys heard in each of several voices (samples,) int16, all at once."""
    sink = DtmfSink()
    rows = np.arange(len(voices))
    samples = max(map(len, voices)) // 160 * 160
    pcm = np.array([np.resize(voice, samples) for voice in voices])
    for row in rows.tolist():
        sink.open(track(row))
    zeros = np.zeros(len(rows), np.int64)
    for start in range(0, samples, 160):
        frames = np.ascontiguousarray(pcm[:, start : start + 160])
        codes = audioop.lin2ulaw(frames.tobytes(), 2)
        sink.write(
            AudioBlock(
                codec=PCMU,
                rows=rows,
                position=np.full(len(rows), start),
                gap_samples=zeros,
                lost=zeros,
                arrival_ns=zeros,
                payload=np.frombuffer(codes, np.uint8).reshape(-1, 160),
            )
        )
    return [[press["digit"] for press in sink.close(track(row), None)["dtmf"]] for row in rows]


@pytest.mark.parametrize("speed", SPEEDS)
def test_speech_of_any_pitch_presses_no_key(speed):
    voices = [soundfile.read(clip, dtype="int16")[0] for clip in CLIPS]
    voices += [PCMU.table[load_voice(name)] for name in ("caller", "agent")]
    voices = [
        np.interp(np.arange(0, len(voice) - 1, speed), np.arange(len(voice)), voice).astype(
            np.int16
        )
        for voice in voices
    ]
    assert digits_in(voices) == [[]] * len(voices)
