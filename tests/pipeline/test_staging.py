from __future__ import annotations

import numpy as np
import pytest

from pipeline.sinks.staging import STAGE_SAMPLES, Stages

pytestmark = pytest.mark.usefixtures("kernel")


def columns(*frames):
    """Arguments of `put` for (row, position, codes) of equal length."""
    rows, position, codes = zip(*frames, strict=True)
    return (
        np.array(rows, np.intp),
        np.array(position, np.int64),
        np.arange(len(rows), dtype=np.int64) + 1000,
        np.array([list(code) for code in codes], np.uint8),
    )


def fits(stages, row, position, samples, law=None):
    """Put a frame of zeros, and tell whether it was taken."""
    left = stages.put(*columns((row, position, bytes(samples))), law)
    assert left.tolist() in ([], [0])
    return not len(left)


def test_fresh_row_takes_no_frame_before_its_run_begins():
    stages = Stages()
    assert not fits(stages, 0, 0, 160)
    stages.begin(0, 0, law=0)
    assert fits(stages, 0, 0, 160)


@pytest.mark.parametrize(
    ("position", "expected"), [(99, False), (100, True), (103, True), (104, True), (105, False)]
)
def test_frame_fits_within_or_right_behind_its_run(position, expected):
    stages = Stages()
    stages.begin(3, 100, law=0)
    stages.put(*columns((3, 100, b"abcd")))
    assert fits(stages, 3, position, 4) is expected


def test_frame_fits_up_to_the_end_of_the_stage():
    stages = Stages()
    stages.begin(0, 0, law=0)
    stages.pad(0, STAGE_SAMPLES - 4, 0xFF)
    assert not fits(stages, 0, STAGE_SAMPLES - 4, 5)
    assert fits(stages, 0, STAGE_SAMPLES - 4, 4)


def test_frame_of_another_law_fits_only_where_no_law_is_asked_for():
    stages = Stages()
    stages.begin(0, 0, law=1)
    assert not fits(stages, 0, 0, 4, law=0)
    assert fits(stages, 0, 0, 4, law=1)
    assert fits(stages, 0, 0, 4)


def test_frames_that_do_not_fit_are_named_and_change_nothing():
    stages = Stages()
    for row in range(4):
        stages.begin(row, 0, law=0, room=4)
    frames = columns((0, 0, b"ab"), (1, 1, b"cd"), (2, -1, b"ef"), (3, 0, b"gh"), (9, 0, b"ij"))
    assert stages.put(*frames).tolist() == [1, 2, 4]
    assert stages.put(*columns((0, 2, b"xyz"), (3, 2, b"uvw"))).tolist() == [0, 1]
    assert [stages.take(row).tobytes() for row in range(4)] == [b"ab", b"", b"", b"gh"]


def test_frames_of_many_rows_and_any_length_join_their_runs():
    stages = Stages()
    for row, start in (0, 10), (5, 0), (2, -7):
        stages.begin(row, start, law=0)
    stages.put(*columns((5, 0, b"abc"), (2, -7, b"ABC")))
    stages.put(*columns((2, -4, b"D"), (0, 10, b"x"), (5, 3, b"d")))
    stages.put(*columns((5, 2, b"YZ!")))
    stages.pad(0, 13, ord("-"))
    assert [stages.take(row).tobytes() for row in (0, 2, 5)] == [b"x--", b"ABCD", b"abYZ!"]


def test_run_goes_on_where_it_was_taken():
    stages = Stages()
    stages.begin(0, 0, law=0)
    stages.put(*columns((0, 0, b"abc")))
    assert stages.take(0).tobytes() == b"abc"
    assert stages.take(0).tobytes() == b""
    stages.put(*columns((0, 3, b"def")))
    assert stages.take(0).tobytes() == b"def"


def test_runs_survive_the_growth_of_the_table():
    stages = Stages()
    stages.begin(0, 0, law=0)
    stages.put(*columns((0, 0, b"abc")))
    stages.ensure(1000)
    stages.begin(999, 0, law=0)
    stages.put(*columns((999, 0, b"xyz")))
    assert (stages.take(0).tobytes(), stages.take(999).tobytes()) == (b"abc", b"xyz")


def test_age_of_a_run_is_that_of_its_first_frame():
    stages = Stages()
    for row in 0, 1:
        stages.begin(row, 0, law=0)
    stages.put(*columns((0, 0, b"ab")))  # arrives at 1000
    stages.put(*columns((1, 0, b"ab"), (0, 2, b"cd")))  # at 1000 and 1001
    assert stages.begun_until(999) == []
    assert stages.begun_until(1000) == [0, 1]
    stages.take(0)
    assert stages.begun_until(1000) == [1]
