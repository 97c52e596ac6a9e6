"""The benchmark `vad`: how well voice activity detectors find speech, and what that costs.

Balanced accuracy is the mean of two shares: of the frames of 20 ms that are labelled as speech,
those found to be (TPR), and of all others, those found not to be (TNR). A frame is what its middle
is. Of strep's detectors the segments are judged that a user gets, of webrtcvad its frames, as it
has no segments. The labelled clips are in the folder `vad` of the one that STREP_MATERIAL names,
else of ../shared/data; without them only the cost is measured, on the project's own voices. The
cost is the CPU time of one thread for frames of 20 ms of 1,000 tracks, decoding excluded.
"""

from __future__ import annotations

import csv
import importlib
import os
import struct
import time
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

import strep_kernel
from bench import machine
from bench.report import OTHERS, OURS, Benchmark, Context, Report, figure_of, median, plain, table
from pipeline.block import AudioBlock, Track, TrackSummary
from pipeline.codecs import PCMU
from pipeline.sinks.base import SinkError
from pipeline.sinks.neural_vad import SileroSink
from pipeline.sinks.vad import VadSink
from strep.voices import load_voice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.table import Table

    from pipeline.sinks.speech import SpeechSink

RATE_HZ = 8000
FRAME_SAMPLES = 160
TRACKS = 1000
SECONDS, QUICK_SECONDS = 4.0, 1.0
ROUNDS, QUICK_ROUNDS = 5, 2
WEBRTC_MODES = (0, 1, 2, 3)
MATERIAL = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Clip:
    """Mu-law codes, and for each frame whether it is labelled as speech."""

    codes: NDArray[np.uint8]
    is_speech: NDArray[np.bool_]


def run(context: Context) -> Report:
    seconds = context.seconds or (QUICK_SECONDS if context.quick else SECONDS)
    rounds = context.rounds or (QUICK_ROUNDS if context.quick else ROUNDS)
    folder = Path(os.environ.get("STREP_MATERIAL", MATERIAL)) / "vad"
    report = Report(
        "vad", [], {"tracks": TRACKS, "seconds": seconds, "rounds": rounds, "frame_ms": 20}
    )
    report.notes += machine.shortcomings()
    clips = _clips(folder)
    if not clips:
        report.notes.append(
            "there are no labelled clips, so accuracy is not measured: "
            "STREP_MATERIAL names the folder that has them in vad/"
        )
    report.settings["clips"] = len(clips)
    codes = [clip.codes for clip in clips] or [load_voice("caller"), load_voice("agent")]
    detectors = _detectors(report)
    for number, (name, made) in enumerate(detectors.items()):
        context.progress(name, number / len(detectors))
        row: dict[str, Any] = {"detector": name, **_accuracy(made, clips)}
        costs = [_cost_us(made, codes, seconds) for _ in range(rounds)]
        row |= {
            "us_per_frame": round(median(costs), 3),
            "least_us": round(min(costs), 3),
            "most_us": round(max(costs), 3),
        }
        report.rows.append(row)
    return report


class _Segments:
    """One of strep's sinks, judged by the segments that it tells at the end."""

    def __init__(self, sink: SpeechSink, tracks: int) -> None:
        self._sink = sink
        self._tracks = [
            Track(row, 0, UUID(int=row), "A", "inbound", 0, 0, "", "", row) for row in range(tracks)
        ]
        for track in self._tracks:
            sink.open(track)

    def write(self, block: AudioBlock) -> None:
        self._sink.write(block)

    def found(self, frames: int) -> NDArray[np.bool_]:
        figures: dict[str, Any] = dict.fromkeys((field.name for field in fields(TrackSummary)), 0)
        figures |= {"duration_samples": frames * FRAME_SAMPLES, "sample_rate_hz": RATE_HZ}
        summary = TrackSummary(**figures)
        found = np.zeros((len(self._tracks), frames), bool)
        for track in self._tracks:
            results = self._sink.close(track, summary)
            spans = [(one["start_s"], one["end_s"]) for one in results["speech"]]
            found[track.row] = _inside(spans, frames)
        return found


class _Frames:
    """webrtcvad, one object per track, judged by what it says of each frame."""

    def __init__(self, package: Any, mode: int, tracks: int) -> None:
        self._detectors = [package.Vad(mode) for _ in range(tracks)]
        self._said: list[list[bool]] = []

    def write(self, block: AudioBlock) -> None:
        self._said.append(
            [
                one.is_speech(frame.tobytes(), RATE_HZ)
                for one, frame in zip(self._detectors, block.pcm, strict=True)
            ]
        )

    def found(self, frames: int) -> NDArray[np.bool_]:
        return np.array(self._said[:frames]).T


def _detectors(report: Report) -> dict[str, Callable[[int], _Segments | _Frames]]:
    """Return what makes each detector that can be had, and note what cannot."""
    made: dict[str, Callable[[int], _Segments | _Frames]] = {}
    if strep_kernel.load() is not None:
        made["vad"] = lambda tracks: _Segments(VadSink(), tracks)
    made["vad, NumPy"] = _without_kernel
    try:
        SileroSink()
        made["silero"] = lambda tracks: _Segments(SileroSink(), tracks)
    except SinkError as error:
        report.notes.append(f"silero: {error}")
    try:
        package = importlib.import_module("webrtcvad")
    except ImportError:
        report.notes.append("webrtcvad is not installed: pip install 'strep[bench]'")
    else:
        for mode in WEBRTC_MODES:
            made[f"webrtcvad, mode {mode}"] = partial(_Frames, package, mode)
    return made


def _without_kernel(tracks: int) -> _Segments:
    compiled = strep_kernel.load()
    strep_kernel._compiled = None  # noqa: SLF001 -- the choice of a process, otherwise
    try:
        return _Segments(VadSink(), tracks)
    finally:
        strep_kernel._compiled = compiled  # noqa: SLF001


def _accuracy(
    made: Callable[[int], _Segments | _Frames], clips: Sequence[Clip]
) -> dict[str, float | None]:
    """Return balanced accuracy, TPR and TNR over the frames of all clips."""
    if not clips:
        return {"balanced_accuracy": None, "tpr": None, "tnr": None}
    frames = min(len(clip.is_speech) for clip in clips)
    detector = made(len(clips))
    for block in _blocks([clip.codes for clip in clips], len(clips), frames):
        detector.write(block)
    found = detector.found(frames).ravel()
    spoken = np.concatenate([clip.is_speech[:frames] for clip in clips])
    tpr, tnr = float(found[spoken].mean()), float((~found[~spoken]).mean())
    return {
        "balanced_accuracy": round((tpr + tnr) / 2, 4),
        "tpr": round(tpr, 4),
        "tnr": round(tnr, 4),
    }


def _cost_us(
    made: Callable[[int], _Segments | _Frames], codes: Sequence[NDArray[np.uint8]], seconds: float
) -> float:
    """Return CPU microseconds of this thread per frame, with many tracks."""
    random = np.random.default_rng(1)
    frames = round(seconds * RATE_HZ / FRAME_SAMPLES)
    # nobody begins to speak at the same moment as another
    shifted = [
        np.roll(codes[row % len(codes)], int(random.integers(len(codes[row % len(codes)]))))
        for row in range(TRACKS)
    ]
    detector = made(TRACKS)
    spent_ns = 0
    for block in _blocks(shifted, TRACKS, frames):
        block.pcm  # noqa: B018 -- decoded at the first use
        started_ns = time.thread_time_ns()
        detector.write(block)
        spent_ns += time.thread_time_ns() - started_ns
    return spent_ns / 1000 / (TRACKS * frames)


def _blocks(codes: Sequence[NDArray[np.uint8]], tracks: int, frames: int) -> Iterator[AudioBlock]:
    rows, zero = np.arange(tracks), np.zeros(tracks, np.int64)
    for start in range(0, frames * FRAME_SAMPLES, FRAME_SAMPLES):
        yield AudioBlock(
            codec=PCMU,
            rows=rows,
            position=zero + start,
            gap_samples=zero,
            lost=zero,
            arrival_ns=zero,
            payload=np.stack([one[start : start + FRAME_SAMPLES] for one in codes]),
        )


def _clips(folder: Path) -> list[Clip]:
    """Return the labelled clips of a folder, none where there is no such folder."""
    labels = folder / "speech.csv"
    if not labels.is_file():
        return []
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    clips = []
    for path in sorted(folder.glob("*.wav")):
        codes = _mulaw(path)
        spans = [
            (float(row["start_s"]), float(row["end_s"])) for row in rows if row["file"] == path.name
        ]
        clips.append(Clip(codes, _inside(spans, len(codes) // FRAME_SAMPLES)))
    return clips


def _mulaw(path: Path) -> NDArray[np.uint8]:
    """Return the codes of a mu-law WAV file, which the standard library's wave does not read."""
    content = path.read_bytes()
    at = 12
    while content[at : at + 4] != b"data":
        (size,) = struct.unpack_from("<I", content, at + 4)
        at += 8 + size + size % 2
    (size,) = struct.unpack_from("<I", content, at + 4)
    return np.frombuffer(content, np.uint8, size, at + 8)


def _inside(spans: Sequence[tuple[float, float]], frames: int) -> NDArray[np.bool_]:
    """Tell for each frame whether its middle lies in one of the spans."""
    middle_s = (np.arange(frames) + 0.5) * FRAME_SAMPLES / RATE_HZ
    inside = np.zeros(frames, bool)
    for start_s, end_s in spans:
        inside |= (middle_s >= start_s) & (middle_s < end_s)
    return inside


def tables(report: Report) -> list[Table]:
    made = table(
        f"Voice activity: {report.settings['clips']} labelled clips, "
        f"cost with {report.settings['tracks']:,} tracks",
        "detector", "balanced accuracy", "TPR", "TNR", "us a frame", "least - most",
    )  # fmt: skip
    for row in report.rows:
        made.add_row(
            row["detector"],
            figure_of(row["balanced_accuracy"], 3),
            figure_of(row["tpr"], 3),
            figure_of(row["tnr"], 3),
            figure_of(row["us_per_frame"], 3),
            f"{row['least_us']:.3f} - {row['most_us']:.3f}",
        )
    return [made]


def draw(report: Report, figure: Figure) -> None:
    figure.set_size_inches(8.5, 0.36 * len(report.rows) + 1.2)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [row["detector"] for row in report.rows]
    colours = [OTHERS if name.startswith("webrtcvad") else OURS for name in names]
    for axes, key, digits in ((left, "balanced_accuracy", 3), (right, "us_per_frame", 2)):
        values = [row[key] or 0.0 for row in report.rows]
        axes.barh(range(len(names)), values, color=colours, height=0.62)
        for place, row in enumerate(report.rows):
            axes.text(values[place], place, f"  {figure_of(row[key], digits)}", va="center")
        plain(axes, grid="x")
        axes.tick_params(axis="y", length=0)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set_xlim(0, 1.2)
    left.set_xticks([0, 0.25, 0.5, 0.75, 1])
    left.set_title("balanced accuracy, frames of 20 ms", loc="left", fontsize=9.5)
    right.set_xscale("log")
    right.set_xlim(0.05, max(row["us_per_frame"] for row in report.rows) * 6)
    right.set_title("CPU per frame, microseconds", loc="left", fontsize=9.5)


BENCHMARK = Benchmark(
    "vad", "voice activity detectors: accuracy on labelled clips, and cost", run, tables, draw
)
