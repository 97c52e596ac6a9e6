from __future__ import annotations

import numpy as np
import pytest
import soundfile

from pipeline.sinks.finishing import Finisher
from pipeline.sinks.recording import Part, Plan, Recording
from pipeline.sinks.wavfile import PCM16


def part(channel, start, *samples):
    return Part(channel, start, start + len(samples), np.array(samples, np.int16))


def begun(directory, channels, **plan):
    recording = Recording(Plan(directory, **plan), lambda: "call", channels, 0, Finisher())
    recording.settle(law=0, rate_hz=8000)
    return recording


def recorded(directory, channels, *writes):
    """Write lists of parts, one after the other, and read the file."""
    recording = begun(directory, channels)
    for parts in writes:
        recording.write(parts, PCM16)
    recording.finish(PCM16)
    return soundfile.read(recording.path, dtype="int16", always_2d=True)[0].T.tolist()


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        (part(1, 2, 7, 8), [[1, 2], [7, 8]]),
        (part(1, 2, 7), [[1, 2], [7, 0]]),
        (part(1, 2, 7, 8, 9), [[1, 2, 0], [7, 8, 9]]),
        (part(1, 1, 7, 8), [[0, 1, 2], [7, 8, 0]]),
        (part(1, 4, 7), [[1, 2, 0], [0, 0, 7]]),
        (part(1, 5, 7), [[1, 2, 0, 0], [0, 0, 0, 7]]),
    ],
    ids=["same", "shorter", "longer", "earlier", "touching", "apart"],
)
def test_channels_are_interleaved_wherever_their_parts_stand(tmp_path, right, expected):
    left, right_channel = recorded(tmp_path, 2, [part(0, 2, 1, 2), right])
    first = min(2, right.start)
    assert left[:first] == right_channel[:first] == [0] * first
    assert [left[first:], right_channel[first:]] == expected


def test_channel_that_lags_is_put_beside_what_is_written(tmp_path):
    assert recorded(
        tmp_path, 2, [part(0, 0, 1, 2, 3, 4)], [part(0, 4, 5, 6), part(1, 2, 7, 8, 9)]
    ) == [[1, 2, 3, 4, 5, 6], [0, 0, 7, 8, 9, 0]]


def test_single_channel_is_written_as_it_is(tmp_path):
    assert recorded(tmp_path, 1, [part(0, 1, 5, 6)], [part(0, 2, 7)]) == [[0, 5, 7]]


def test_end_of_each_channel_is_known(tmp_path):
    recording = begun(tmp_path, 2)
    recording.write([part(0, 0, 1, 2, 3), part(1, 0, 1)], PCM16)
    recording.write([part(0, 0, 9)], PCM16)
    assert recording.written == [3, 1]
    recording.finish(PCM16)


def test_nothing_is_made_before_there_is_something_to_write(tmp_path):
    recording = begun(tmp_path, 2)
    recording.finish(PCM16)
    assert recording.path is None
    assert recording.manifest is None
    assert list(tmp_path.iterdir()) == []


def test_manifest_stands_beside_the_file(tmp_path):
    recording = begun(tmp_path, 1)
    recording.write([part(0, 0, 1)], PCM16)
    assert recording.path == tmp_path / "call.wav"
    assert recording.manifest == tmp_path / "call.json"
    recording.finish(PCM16)


def test_salvaged_recording_keeps_what_was_written(tmp_path):
    recording = begun(tmp_path, 1)
    recording.write([part(0, 0, 1, 2)], PCM16)
    recording.salvage("Input/output error")
    assert recording.error == "Input/output error"
    assert soundfile.read(recording.path, dtype="int16")[0].tolist() == [1, 2]
