from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.talk import mutual_silence, talk_over


def spans(*pairs):
    return np.array(pairs, float).reshape(-1, 2)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [], []),
        ([(0, 5)], [], []),
        ([(0, 5)], [(3, 8)], [[3, 5]]),
        ([(0, 5)], [(5, 8)], []),
        ([(0, 10)], [(2, 3), (4, 6)], [[2, 3], [4, 6]]),
        ([(0, 5), (5, 9)], [(4, 7)], [[4, 7]]),  # spans that touch are one
        ([(6, 9), (0, 4), (3, 5)], [(1, 8)], [[1, 5], [6, 8]]),  # in any order, overlapping
        ([(0, 5)], [(4.75, 8)], []),  # too short
        ([(0, 5)], [(4.5, 8)], [[4.5, 5]]),
    ],
)
def test_talk_over_is_where_both_speak_for_long_enough(one, other, expected):
    assert talk_over([spans(*one), spans(*other)], 0.5).tolist() == expected


def test_nobody_talks_over_himself():
    assert talk_over([spans((0, 5))], 0.1).tolist() == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [], [[0, 10]]),
        ([(0, 10)], [], []),
        ([(1, 4)], [(3, 7)], [[7, 10]]),
        ([(2, 3)], [], [[0, 2], [3, 10]]),
        ([(2, 4)], [(4, 9)], [[0, 2]]),
        ([(-3, 1)], [(8, 20)], [[1, 8]]),
    ],
)
def test_silence_is_where_nobody_speaks_for_long_enough(one, other, expected):
    assert mutual_silence([spans(*one), spans(*other)], 0, 10, 2).tolist() == expected


def test_silence_of_no_time_is_none():
    assert mutual_silence([spans()], 5, 5, 0.1).tolist() == []
    assert mutual_silence([spans((0, 3))], 5, 5, 0.1).tolist() == []


party = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair))),
    max_size=8,
)


@given(party, party)
@settings(max_examples=100)
def test_both_equal_a_model_that_looks_at_every_moment(one, other):
    moments = range(81)
    speaks = [[any(a <= t < b for a, b in each) for t in moments] for each in (one, other)]
    found = talk_over([spans(*one), spans(*other)], 1).astype(int).tolist()
    assert [t for t in moments if any(a <= t < b for a, b in found)] == [
        t for t in moments if speaks[0][t] and speaks[1][t]
    ]
    found = mutual_silence([spans(*one), spans(*other)], 0, 80, 1).astype(int).tolist()
    assert [t for t in moments[:-1] if any(a <= t < b for a, b in found)] == [
        t for t in moments[:-1] if not speaks[0][t] and not speaks[1][t]
    ]
