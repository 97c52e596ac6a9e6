from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sequence import distance16, distance32

# Each row: newer value, older value, distance.
DISTANCES_16 = [
    (0, 0, 0),
    (1, 0, 1),
    (0, 1, -1),
    (0, 65535, 1),
    (65535, 0, -1),
    (5, 65530, 11),
    (65530, 5, -11),
    (32767, 0, 32767),
    (32768, 0, -32768),
    (0, 32768, -32768),
    (32769, 0, -32767),
    (0, 32769, 32767),
    (65535, 32767, -32768),
    (65534, 32767, 32767),
]
DISTANCES_32 = [
    (0, 0, 0),
    (160, 0, 160),
    (0, 160, -160),
    (0, 4_294_967_295, 1),
    (4_294_967_295, 0, -1),
    (100, 4_294_967_236, 160),
    (4_294_967_236, 100, -160),
    (2_147_483_647, 0, 2_147_483_647),
    (2_147_483_648, 0, -2_147_483_648),
    (0, 2_147_483_648, -2_147_483_648),
    (2_147_483_649, 0, -2_147_483_647),
    (0, 2_147_483_649, 2_147_483_647),
    (65_536, 65_535, 1),
]


@pytest.mark.parametrize(("newer", "older", "expected"), DISTANCES_16)
def test_distance_of_16_bit_counters_is_the_shorter_way_around(newer, older, expected):
    assert distance16(newer, older) == expected


@pytest.mark.parametrize(("newer", "older", "expected"), DISTANCES_32)
def test_distance_of_32_bit_counters_is_the_shorter_way_around(newer, older, expected):
    assert distance32(newer, older) == expected


@pytest.mark.parametrize(
    ("distance", "table"), [(distance16, DISTANCES_16), (distance32, DISTANCES_32)]
)
def test_arrays_give_what_scalars_give(distance, table):
    newer, older, expected = np.array(table, np.int64).T
    result = distance(newer, older)
    assert result.dtype == np.int64
    assert result.tolist() == expected.tolist()


@settings(deadline=None)
@given(st.integers(0, 0xFFFF), st.integers(-0x8000, 0x7FFF))
def test_any_16_bit_distance_is_found_again(older, step):
    newer = (older + step) % 0x10000
    assert distance16(newer, older) == step
    assert distance16(np.array([newer]), np.array([older])).tolist() == [step]


@settings(deadline=None)
@given(st.integers(0, 0xFFFF_FFFF), st.integers(-0x8000_0000, 0x7FFF_FFFF))
def test_any_32_bit_distance_is_found_again(older, step):
    newer = (older + step) % 0x1_0000_0000
    assert distance32(newer, older) == step
    assert distance32(np.array([newer]), np.array([older])).tolist() == [step]
