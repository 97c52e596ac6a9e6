"""The track table: behaviour by example, and equality with a dict on anything."""

from __future__ import annotations

import random
from uuid import UUID

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from strep.receive.tracks import NO_ROW, TrackTable

pytestmark = pytest.mark.usefixtures("kernel")

CALL = UUID("01234567-89ab-4cde-8f01-23456789abcd")


class CrowdedTable(TrackTable):
    """A table that mixes all keys into one bucket, and all to the same place at first.

    They differ in bits that only another multiplier brings into the place.
    """

    def __init__(self, max_tracks):
        super().__init__(max_tracks)
        self._kernel = None  # which mixes as the table does

    def _mix(self, word0, word1, side):
        eleven = np.uint64(11)
        return (word0 % eleven * eleven + word1 % eleven) * np.uint64(4) + side

    def _mixed(self, row):
        one = slice(row, row + 1)
        return int(self._mix(self._word0[one], self._word1[one], self._side[one])[0])


def words(call_leg_id):
    return np.frombuffer(call_leg_id.bytes, np.uint64)


def add(table, call_leg_id, side=0):
    return table.add(*words(call_leg_id), side)


def lookup(table, *keys):
    """Return the rows of (call_leg_id, side) keys, looked up together."""
    ids = np.array([words(call_leg_id) for call_leg_id, _ in keys], np.uint64).reshape(-1, 2)
    ids = np.ascontiguousarray(ids.T)
    sides = np.array([side for _, side in keys], np.uint8)
    rows, missing = table.lookup(ids[0], ids[1], sides)
    assert missing == rows.tolist().count(NO_ROW)
    return rows.tolist()


def test_a_key_is_found_at_its_row():
    table = TrackTable(4)
    assert add(table, CALL) == 0
    assert lookup(table, (CALL, 0)) == [0]
    assert len(table) == 1


def test_legs_and_directions_of_a_call_are_four_keys():
    table = TrackTable(4)
    assert [add(table, CALL, side) for side in range(4)] == [0, 1, 2, 3]
    assert lookup(table, (CALL, 3), (CALL, 0), (CALL, 2), (CALL, 1), (CALL, 3)) == [3, 0, 2, 1, 3]


def test_an_empty_table_knows_nobody():
    table = TrackTable(1)
    assert lookup(table, (CALL, 0), (UUID(int=0), 0), (CALL, 0)) == [NO_ROW] * 3
    assert lookup(table) == []


def test_a_call_of_all_zeros_is_a_key_like_any_other():
    table = TrackTable(2)
    assert lookup(table, (UUID(int=0), 0)) == [NO_ROW]
    add(table, UUID(int=0))
    assert lookup(table, (UUID(int=0), 0), (UUID(int=0), 1)) == [0, NO_ROW]


def test_keys_that_share_a_word_are_told_apart():
    same_start = UUID(int=CALL.int ^ 1)
    same_end = UUID(int=CALL.int ^ 1 << 127)
    table = TrackTable(4)
    add(table, CALL)
    assert lookup(table, (same_start, 0), (same_end, 0)) == [NO_ROW, NO_ROW]
    add(table, same_start)
    add(table, same_end)
    assert lookup(table, (CALL, 0), (same_start, 0), (same_end, 0)) == [0, 1, 2]


def test_a_full_table_gives_no_row():
    table = TrackTable(2)
    add(table, CALL, 0)
    assert not table.is_full
    add(table, CALL, 1)
    assert table.is_full
    assert add(table, CALL, 2) == NO_ROW
    assert lookup(table, (CALL, 0), (CALL, 1), (CALL, 2)) == [0, 1, NO_ROW]
    assert table.generation.tolist() == [1, 1]


def test_a_row_is_reused_with_the_next_generation():
    table = TrackTable(2)
    add(table, CALL, 0)
    table.remove(0)
    assert lookup(table, (CALL, 0)) == [NO_ROW]
    assert add(table, CALL, 1) == 0
    assert lookup(table, (CALL, 0), (CALL, 1)) == [NO_ROW, 0]
    assert table.generation.tolist() == [2, 0]


def test_the_lowest_free_row_is_given_out_first():
    table = TrackTable(4)
    for side in range(4):
        add(table, CALL, side)
    for row in (0, 2, 1):
        table.remove(row)
    assert [add(table, CALL, side) for side in (2, 1, 0)] == [0, 1, 2]


@pytest.mark.parametrize("row", [NO_ROW, 0, 1, 2, 99])
def test_a_row_that_is_nobodys_cannot_be_removed(row):
    table = TrackTable(2)
    with pytest.raises(KeyError):
        table.remove(row)
    add(table, CALL)
    table.remove(0)
    with pytest.raises(KeyError):
        table.remove(row)
    assert len(table) == 0


def test_colliding_keys_are_found_while_others_of_them_come_and_go():
    table = CrowdedTable(20)
    keys = [(UUID(bytes=bytes([i // 2]) + bytes(15)), i % 2) for i in range(20)]
    for key in keys:
        assert add(table, *key) != NO_ROW
    assert len(table._members) == 1
    for removed in range(20):
        rows = [NO_ROW if i < removed else i for i in range(20)]
        assert lookup(table, *keys) == rows
        table.remove(removed)
    assert len(table) == 0


def test_keys_that_cannot_be_told_apart_are_refused_and_harm_nobody():
    table = TrackTable(20)
    table._keys[:] = 0
    table._side_keys[:] = 0
    other = UUID(int=5)
    assert add(table, CALL) == 0
    assert add(table, other) == NO_ROW
    assert lookup(table, (CALL, 0), (other, 0)) == [0, NO_ROW]
    assert (len(table), table.generation[1]) == (1, 0)
    table.remove(0)
    assert add(table, other) == 0


def test_a_key_of_all_zeros_finds_a_place_among_many():
    for _ in range(20):
        table = TrackTable(4096)
        for i in range(1, 2000):
            add(table, UUID(int=i * 2**70 + i))
        assert add(table, UUID(int=0)) == 1999
        assert lookup(table, (UUID(int=0), 0)) == [1999]


def test_a_table_needs_a_row():
    with pytest.raises(ValueError, match=r"^max_tracks is 0, expected at least 1$"):
        TrackTable(0)


def version_1_calls(count):
    """Return call legs that one node names, 20 ms and a little apart: RFC 9562 section 5.1."""
    spread = random.Random(1)
    ticks = (0x1EF_0123_4567_89AB + 200_000 * i + spread.randrange(1000) for i in range(count))
    return [
        UUID(
            fields=(t & 0xFFFFFFFF, t >> 32 & 0xFFFF, t >> 48 | 0x1000, 0x92, 0x34, 0x0242AC110002)
        )
        for t in ticks
    ]


def version_4_calls(count):
    spread = random.Random(2)
    return [UUID(int=spread.getrandbits(128), version=4) for _ in range(count)]


def numbered_calls(count):
    """Return call legs of a carrier that counts, all alike but in their last two bytes."""
    return [UUID(int=CALL.int + i) for i in range(count)]


@pytest.mark.parametrize("calls_of", [version_1_calls, version_4_calls, numbered_calls])
@pytest.mark.parametrize("seed", range(5))
def test_the_call_legs_there_are_spread_over_the_table(calls_of, seed):
    calls = calls_of(1024)
    table = TrackTable(4096)
    draw = random.Random(seed)
    table._keys[:] = [draw.getrandbits(64) | 1 for _ in range(2)]
    table._side_keys[:] = [draw.getrandbits(64) | 1 for _ in range(4)]
    rows = [add(table, call, side) for call in calls for side in range(4)]
    assert rows == list(range(4096))
    assert table.is_full
    assert lookup(table, *((call, side) for call in calls for side in range(4))) == rows
    # 4,096 keys in 16,384 buckets: at random 3,624 of them have a member, the fullest one 5 or so;
    # multiplying spreads ids that count a little less evenly
    assert len(table._members) > 2500
    assert max(map(len, table._members.values())) <= 10
    # an eighth of the places is taken, so that about 6 % of the keys had to be rearranged
    assert (table._multiplier != 1).sum() < 500


WORDS = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
KEYS = st.tuples(WORDS, WORDS, st.integers(0, 3))


class TableEqualsDict(RuleBasedStateMachine):
    """Keys come and go; after every step each key is found where the dict has it."""

    @initialize(max_tracks=st.integers(1, 12), table=st.sampled_from([TrackTable, CrowdedTable]))
    def begin(self, max_tracks, table):
        self.table = table(max_tracks)
        self.rows = {}
        self.generations = [0] * max_tracks
        self.seen = set()

    @rule(key=KEYS)
    def add(self, key):
        if key in self.rows:
            return
        self.seen.add(key)
        free = set(range(self.table.max_tracks)) - set(self.rows.values())
        row = self.table.add(np.uint64(key[0]), np.uint64(key[1]), key[2])
        if not free:
            assert row == NO_ROW
            return
        assert row == min(free)
        self.rows[key] = row
        self.generations[row] += 1

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def remove(self, data):
        key = data.draw(st.sampled_from(sorted(self.rows)))
        self.table.remove(self.rows.pop(key))

    @precondition(lambda self: len(self.rows) < self.table.max_tracks)
    @rule(data=st.data())
    def remove_nobody(self, data):
        free = set(range(self.table.max_tracks)) - set(self.rows.values())
        with pytest.raises(KeyError):
            self.table.remove(data.draw(st.sampled_from(sorted(free))))

    @rule(keys=st.lists(KEYS, max_size=30))
    def look_up(self, keys):
        self.compare(keys)

    @invariant()
    def every_key_is_at_its_row(self):
        self.compare(sorted(self.seen))
        assert len(self.table) == len(self.rows)
        assert self.table.is_full == (len(self.rows) == self.table.max_tracks)
        assert self.table.generation.tolist() == self.generations

    def compare(self, keys):
        found, missing = self.table.lookup(
            np.array([key[0] for key in keys], np.uint64),
            np.array([key[1] for key in keys], np.uint64),
            np.array([key[2] for key in keys], np.uint8),
        )
        assert found.dtype == np.intp
        assert found.tolist() == [self.rows.get(key, NO_ROW) for key in keys]
        assert missing == sum(key not in self.rows for key in keys)


def test_table_equals_a_dict():
    run_state_machine_as_test(
        TableEqualsDict,
        settings=settings(max_examples=80, stateful_step_count=40, deadline=None),
    )
