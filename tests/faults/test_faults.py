"""A few of the faults of `make faults`, a few times each."""

from __future__ import annotations

import numpy as np
import pytest

from faults import floods, kills
from faults.calls import FRAME_SAMPLES, is_right_outside, whole_frames
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


NOISE = np.random.default_rng(1).integers(-8000, 8000, 100 * FRAME_SAMPLES, np.int16)
MISSED = (40 * FRAME_SAMPLES, 70 * FRAME_SAMPLES)


def recorded(speech, *, after=0):
    """A channel in which a speech begins after so many samples, and a stretch was missed."""
    channel = np.append(np.zeros(after, np.int16), speech)
    channel[slice(*MISSED)] = 0
    return channel


@pytest.mark.parametrize("after", [0, 10, 150])
def test_recording_with_a_hole_is_right_wherever_its_side_begins(after):
    channel = recorded(NOISE, after=after)
    assert is_right_outside([MISSED], channel, NOISE)
    assert not is_right_outside([(MISSED[0] + 200, MISSED[1])], channel, NOISE)
    channel[-1] ^= 1
    assert not is_right_outside([MISSED], channel, NOISE)
