"""No key is heard where nobody pressed one: in all the speech that there is."""

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

pytestmark = needs_material

CAPTURES = MATERIAL / "captures"
FILES = {p.relative_to(CAPTURES).as_posix() for p in CAPTURES.rglob("*.*cap*")}
PRESSED = {row["file"] for row in table("captures/DTMF_EXPECT.csv") if row["digits_asserted"]}
CLIPS = sorted((MATERIAL / "vad").glob("*.wav"))
SPEEDS = (0.85, 1.0, 1.2)


@pytest.mark.parametrize("name", sorted(FILES - PRESSED))
def test_no_key_is_heard_where_none_was_pressed(name):
    report = analyze(CAPTURES / name, {"dtmf": DtmfSink()}, learn_telephone_events=True)
    assert [track["dtmf"] for track in report.tracks if track["dtmf"]] == []


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
