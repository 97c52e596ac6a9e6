"""A few of the faults of `make faults`, a few times each."""

from __future__ import annotations

import numpy as np
import pytest

from faults import floods, kills
from faults.calls import FRAME_SAMPLES, whole_frames
from faults.outcome import Outcome


@pytest.mark.parametrize(
    ("fault", "times"),
    [(kills.kill_daemon, 1), (floods.injection, 10_000)],
    ids=["kill-daemon", "injection"],
)
def test_what_is_lost_is_within_the_bound(fault, times, tmp_path):
    outcome = fault(tmp_path, times, lambda _: None)
    assert isinstance(outcome, Outcome)
    assert outcome.wrong == []
    assert outcome.times == times


def frames(*levels):
    """Frames that hold one value each."""
    return np.repeat(np.array(levels, np.int16), FRAME_SAMPLES)


SILENT = [0] * 49
SPEECH = frames(*SILENT, *range(100, 200))
LATE = np.zeros(8, np.int16)


@pytest.mark.parametrize(
    ("channel", "surely", "whole"),
    [
        (np.append(LATE, SPEECH[: 97 * 160]), 50, 97),
        (np.append(LATE, SPEECH[: 97 * 160]), 60, 97),
        (np.append(LATE, SPEECH[: 49 * 160]), 40, 49),
        (frames(*[0] * 20), 49, 20),  # not all that is sure is there
        (frames(*SILENT, 100, 101, 1, 103, *range(104, 150)), 50, 51),  # a frame is wrong
        (frames(1, *SILENT, *range(100, 200)), 60, -1),  # something else stands before it
    ],
)
def test_frames_of_a_speech_that_are_in_a_channel_are_counted(channel, surely, whole):
    assert whole_frames(channel, SPEECH, surely) == whole
