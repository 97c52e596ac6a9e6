from __future__ import annotations

import pytest

from strep.simulator.trace import TraceError, load_trace


def written(tmp_path, text):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def test_delays_are_read_by_the_name_of_their_column(tmp_path):
    trace = load_trace(
        written(tmp_path, "seq,rtp_ms,arrival_ms,relative_delay_ms\n7,0,0,1.5\n8,20,21,0\n")
    )
    assert trace.delay_s.tolist() == [0.0015, 0.0]
    assert trace.lost.tolist() == [False, False]


def test_numbers_that_are_left_out_were_lost(tmp_path):
    trace = load_trace(written(tmp_path, "seq,relative_delay_ms\n7,1\n10,2\n"))
    assert trace.lost.tolist() == [False, True, True, False]
    assert trace.delay_s.tolist() == [0.001, 0.0, 0.0, 0.002]


def test_without_numbers_nothing_was_lost(tmp_path):
    trace = load_trace(written(tmp_path, "relative_delay_ms,note\n1,a\n2,b\n"))
    assert trace.lost.tolist() == [False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line names no column relative_delay_ms"),
        ("seq,delay\n1,2\n", "the first line names no column relative_delay_ms"),
        ("relative_delay_ms\n", "there are no packets in it"),
        ("seq,relative_delay_ms\n1,x\n", "line 2: expected a whole number as seq and 0 to 60000"),
        ("seq,relative_delay_ms\n1,0\nx,1\n", "line 3: expected a whole number as seq and 0 to"),
        ("relative_delay_ms\n-1\n", "line 2: expected a whole number as seq and 0 to 60000"),
        ("relative_delay_ms\nnan\n", "line 2: expected a whole number as seq and 0 to 60000"),
        ("seq,relative_delay_ms\n5,0\n5,1\n", "seq does not rise by 1 or a little more on each"),
        ("seq,relative_delay_ms\n1,0\n9999999,1\n", "seq does not rise by 1 or a little more"),
        ("relative_delay_ms\n\xff\udcff", "not a CSV file"),
    ],
)
def test_trace_that_cannot_be_used_is_named_with_its_line(text, message, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TraceError) as error:
        load_trace(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        TraceError, match=r"nowhere\.csv: cannot be read: No such file or directory"
    ):
        load_trace(tmp_path / "nowhere.csv")
