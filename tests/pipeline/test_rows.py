from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray


class State(RowState):
    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "count": (np.int64, 0),
        "last_ns": (np.int64, -1),
        "ring": ((np.int32, 3), 7),
    }
    count: NDArray[np.int64]
    last_ns: NDArray[np.int64]
    ring: NDArray[np.int32]


def test_columns_begin_fresh_with_64_rows():
    state = State()
    assert state.rows == 64
    assert (state.count.dtype, state.ring.dtype) == (np.int64, np.int32)
    assert state.count.tolist() == [0] * 64
    assert state.last_ns.tolist() == [-1] * 64
    assert state.ring.tolist() == [[7, 7, 7]] * 64


@pytest.mark.parametrize(
    ("asked", "made"), [(0, 64), (1, 64), (64, 64), (65, 128), (128, 128), (129, 256), (5000, 8192)]
)
def test_room_is_a_power_of_two(asked, made):
    state = State()
    state.ensure(asked)
    assert state.rows == made
    assert state.count.shape == (made,)
    assert state.ring.shape == (made, 3)


def test_growing_keeps_what_there_is_and_adds_fresh_rows():
    state = State()
    state.count[:] = np.arange(64)
    state.ring[63] = (1, 2, 3)
    state.ensure(65)
    assert state.count.tolist() == [*range(64), *[0] * 64]
    assert state.last_ns[64:].tolist() == [-1] * 64
    assert state.ring[62:65].tolist() == [[7, 7, 7], [1, 2, 3], [7, 7, 7]]


def test_asking_for_fewer_rows_takes_none_away():
    state = State()
    state.ensure(65)
    state.count[127] = 5
    state.ensure(1)
    assert state.rows == 128
    assert state.count[127] == 5


def test_a_renewed_row_is_fresh_and_its_neighbours_stay():
    state = State()
    state.count[:3] = (1, 2, 3)
    state.last_ns[:3] = 9
    state.ring[:3] = 8
    state.renew(1)
    assert state.count[:3].tolist() == [1, 0, 3]
    assert state.last_ns[:3].tolist() == [9, -1, 9]
    assert state.ring[:3].tolist() == [[8, 8, 8], [7, 7, 7], [8, 8, 8]]
