"""The jitter bank: behaviour by example, and equality with a plain model on anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from jittermodel import ModelTrack, Packet
from packetmaker import MS, P, columns

from pipeline.jitter import JitterBank


class Bank:
    """A bank with one open track and a record of what it released."""

    def __init__(self, *, reorder_ms=60, first=100, max_held=16_384):
        self.bank = JitterBank(reorder_ms=reorder_ms, max_held=max_held)
        self.bank.open(0, ssrc=1, sequence=first)
        self.out = []

    def push(self, *packets):
        for part in columns(packets).rounds(np.zeros(self.bank.rows, np.intp)):
            self._record(self.bank.push(part)[1])
        return self

    def tick(self, now_ms):
        self._record(self.bank.tick(round(now_ms * MS)))
        return self

    def _record(self, released):
        for part in released:
            lost = part.lost if part.lost is not None else np.zeros(len(part.packets), np.int64)
            for sequence, n in zip(part.packets.sequence, lost, strict=True):
                self.out.append((int(sequence), int(n)))

    @property
    def sequences(self):
        return [sequence for sequence, _ in self.out]


def packets(*sequences, start_ms=0, **kwargs):
    return [P(sequence=s, arrival_ms=start_ms + 20 * i, **kwargs) for i, s in enumerate(sequences)]


def test_packets_in_sequence_are_released_at_once():
    assert Bank().push(*packets(100, 101, 102)).sequences == [100, 101, 102]


def test_packet_behind_a_hole_waits():
    bank = Bank().push(*packets(100, 102))
    assert bank.sequences == [100]
    assert bank.bank.held == 1


def test_packet_behind_a_hole_waits_at_most_reorder_ms():
    bank = Bank().push(P(sequence=100), P(sequence=102, arrival_ms=40))
    assert bank.tick(99.9).sequences == [100]
    assert bank.tick(100).out == [(100, 0), (102, 1)]
    assert bank.bank.lost[0] == 1


def test_time_passes_by_arrivals_alone_too():
    bank = Bank().push(*packets(100, 102, 103, 104, 105))
    assert bank.out == [(100, 0), (102, 1), (103, 0), (104, 0), (105, 0)]


def test_the_next_hole_waits_from_the_first_packet_behind_it():
    bank = Bank().push(
        P(sequence=100), P(sequence=102, arrival_ms=40), P(sequence=104, arrival_ms=80)
    )
    assert bank.tick(100).sequences == [100, 102]
    assert bank.tick(139).sequences == [100, 102]
    assert bank.tick(140).out == [(100, 0), (102, 1), (104, 1)]


def test_a_filled_hole_releases_what_waits_in_order():
    bank = Bank().push(*packets(100, 102, 103, 101))
    assert bank.out == [(100, 0), (101, 0), (102, 0), (103, 0)]
    assert bank.bank.reordered[0] == 1
    assert bank.bank.held == 0


def test_duplicates_are_told_wherever_they_stand():
    bank = Bank().push(*packets(100, 100, 102, 102, 101, 101))
    assert bank.sequences == [100, 101, 102]
    assert bank.bank.duplicate[0] == 3
    assert bank.bank.late[0] == 0


def test_late_packet_is_not_a_duplicate_but_its_repetition_is():
    bank = Bank().push(P(sequence=100), P(sequence=102, arrival_ms=40)).tick(100)
    bank.push(P(sequence=101, arrival_ms=120), P(sequence=101, arrival_ms=121))
    assert bank.sequences == [100, 102]
    assert (bank.bank.late[0], bank.bank.duplicate[0], bank.bank.lost[0]) == (1, 1, 1)


def test_sequence_numbers_wrap():
    bank = Bank(first=65534).push(*packets(65534, 65535, 1, 0, 2))
    assert bank.sequences == [65534, 65535, 0, 1, 2]


def test_a_dropout_beyond_the_window_is_closed_at_once():
    bank = Bank().push(*packets(100, 102, 167))
    assert bank.out == [(100, 0), (102, 1), (167, 64)]
    assert bank.bank.lost[0] == 65


def test_a_packet_beyond_the_window_closes_no_more_holes_than_leave_room_for_it():
    bank = Bank().push(*packets(100, 102, 160, 165))
    # 101 is given up; 103 to 159 and 161 to 164 may come yet
    assert bank.out == [(100, 0), (102, 1)]
    bank.push(*(P(sequence=each, arrival_ms=70) for each in (*range(103, 160), 163, 161, 164, 162)))
    assert bank.sequences == [100, *range(102, 166)]
    assert (bank.bank.lost[0], bank.bank.held) == (1, 0)


def test_a_packet_beyond_the_window_that_is_due_when_room_is_made_waits_no_longer():
    bank = Bank().push(*packets(100, *range(102, 165), 165))
    assert bank.out == [(100, 0), (102, 1), *((each, 0) for each in range(103, 166))]
    assert (bank.bank.lost[0], bank.bank.held) == (1, 0)


def test_the_window_is_64_packets():
    assert Bank().push(*packets(100, 164)).sequences == [100]
    assert Bank().push(*packets(100, 165)).sequences == [100, 165]


def test_a_single_jump_does_no_harm():
    bank = Bank().push(*packets(100, 30_000, 101))
    assert bank.sequences == [100, 101]
    assert bank.bank.on_probation == 1
    assert bank.bank.resets[0] == 0


def test_a_jump_that_the_next_packet_continues_is_a_restart():
    bank = Bank().push(*packets(100, 30_000, 30_001, 30_002))
    assert bank.sequences == [100, 30_000, 30_001, 30_002]
    assert (bank.bank.resets[0], bank.bank.lost[0]) == (1, 0)


def test_a_step_back_beyond_100_packets_restarts_only_when_continued():
    bank = Bank(first=1000).push(*packets(1000, 899, 1001))
    assert bank.sequences == [1000, 1001]
    bank.push(*packets(500, 501, start_ms=100))
    assert bank.sequences == [1000, 1001, 500, 501]
    assert (bank.bank.resets[0], bank.bank.stray_total) == (1, 1)


def test_new_ssrc_takes_over_after_two_packets_in_sequence():
    bank = Bank().push(*packets(100, 101))
    bank.push(*packets(7, start_ms=40, ssrc=2))
    assert bank.sequences == [100, 101]
    bank.push(*packets(8, 9, start_ms=60, ssrc=2))
    assert bank.sequences == [100, 101, 7, 8, 9]
    assert bank.bank.ssrc[0] == 2
    assert bank.bank.resets[0] == 1


def test_stray_packets_of_other_ssrcs_do_no_harm():
    bank = Bank().push(*packets(100), *packets(7, ssrc=2), *packets(9, ssrc=3), *packets(101))
    assert bank.sequences == [100, 101]
    assert bank.bank.stray_total + bank.bank.on_probation == 2


def test_what_waits_is_released_before_a_restart():
    bank = Bank().push(*packets(100, 102), *packets(7, 8, start_ms=40, ssrc=2))
    assert bank.out == [(100, 0), (102, 1), (7, 0), (8, 0)]


def test_a_probation_ends_after_ten_seconds():
    bank = Bank().push(*packets(100), *packets(7, ssrc=2)).tick(10_001)
    assert (bank.bank.on_probation, bank.bank.stray_total) == (0, 1)
    bank.push(*packets(8, ssrc=2, start_ms=10_002))
    assert bank.sequences == [100]


def test_holes_are_closed_when_too_many_packets_wait():
    bank = Bank(max_held=2).push(*packets(100, 102, 104, 106))
    assert bank.sequences == [100]
    bank.push(P(sequence=107, arrival_ms=1))
    assert bank.out == [(100, 0), (102, 1), (104, 1), (106, 1), (107, 0)]


def test_closing_releases_what_waits():
    bank = Bank().push(*packets(100, 102))
    bank._record(bank.bank.close(0))
    assert bank.out == [(100, 0), (102, 1)]


def test_a_reused_row_knows_nothing_of_its_past():
    bank = Bank().push(*packets(100, 102))
    bank.bank.close(0)
    bank.bank.open(0, ssrc=5, sequence=102)
    bank.push(*packets(102, 103, ssrc=5, start_ms=200))
    assert bank.sequences == [100, 102, 103]
    assert (bank.bank.lost[0], bank.bank.duplicate[0], bank.bank.held) == (0, 0, 0)


def test_held_payload_survives_the_reuse_of_its_batch():
    bank = JitterBank()
    bank.open(0, ssrc=1, sequence=100)
    first = columns([P(sequence=100), P(sequence=102, payload=b"\x11" * 160)])
    for part in first.rounds(np.zeros(64, np.intp)):
        bank.push(part)
    first.store[:] = 0xA5
    released = bank.tick(60 * MS)[0].packets
    payload = released.store[released.slot[0], released.offset[0] :][: released.length[0]]
    assert payload.tobytes() == b"\x11" * 160


ROWS = 3
SSRCS = (1, 2)
OFFSETS = st.one_of(
    st.just(0),
    st.integers(-3, 4),
    st.sampled_from([-101, -100, -99, -65, -64, -63, 62, 63, 64, 65, 2999, 3000, 3001, -32768]),
    st.integers(-32768, 32767),
)
ARRIVAL = st.tuples(
    st.integers(0, ROWS - 1), OFFSETS, st.sampled_from((1, 1, 1, 1, 2)), st.integers(0, 70)
)


class BankEqualsModel(RuleBasedStateMachine):
    """Arbitrary arrivals, several of a track in one batch, time steps, closings and reuse."""

    @initialize(reorder_ms=st.sampled_from([0, 20, 60]), first=st.integers(0, 65535))
    def begin(self, reorder_ms, first):
        self.bank = JitterBank(reorder_ms=reorder_ms)
        self.now_ms = 1000
        self.serial = 0
        self.models = {}
        self.pushed = self.belonging = 0
        for row in range(ROWS):
            self.open(row, (first + row * 30_000) & 0xFFFF)

    def open(self, row, sequence):
        self.bank.open(row, ssrc=1, sequence=sequence)
        self.models[row] = ModelTrack.begin(Packet(1, sequence, 0, b""), self.bank.reorder_ns)

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=40))
    def push(self, arrivals):
        batch = []
        due = {row: model.due for row, model in self.models.items()}
        for row, offset, ssrc, wait_ms in arrivals:
            self.now_ms += wait_ms
            self.serial += 1
            sequence = (due[row] + offset) & 0xFFFF
            if offset == 0:
                due[row] += 1
            batch.append(
                P(row, sequence, self.now_ms, ssrc, payload=self.serial.to_bytes(4, "big"))
            )
        self.pushed += len(batch)
        released = []
        for part in columns(batch).rounds(np.zeros(self.bank.rows, np.intp)):
            belongs, out = self.bank.push(part)
            self.belonging += len(part) if belongs is None else int(belongs.sum())
            released += [self.flatten(r) for r in out]
        for p in batch:
            self.models[p.row].push(Packet(p.ssrc, p.sequence, p.arrival_ns, p.payload))
        self.compare([entry for part in released for entry in part])

    @rule(wait_ms=st.integers(0, 200))
    def tick(self, wait_ms):
        self.now_ms += wait_ms
        released = [self.flatten(r) for r in self.bank.tick(self.now_ms * MS)]
        for model in self.models.values():
            model.tick(self.now_ms * MS)
        self.compare([entry for part in released for entry in part])

    @rule(row=st.integers(0, ROWS - 1), sequence=st.integers(0, 65535))
    def close_and_reuse(self, row, sequence):
        released = [self.flatten(r) for r in self.bank.close(row)]
        self.models[row].close()
        self.compare([entry for part in released for entry in part])
        self.open(row, sequence)

    @staticmethod
    def flatten(released):
        p = released.packets
        assert len(set(p.rows.tolist())) == len(p)
        lost = np.zeros(len(p), np.int64) if released.lost is None else released.lost
        return [
            (
                int(p.rows[i]),
                int(p.sequence[i]),
                p.store[p.slot[i], p.offset[i] : p.offset[i] + p.length[i]].tobytes(),
                int(p.arrival_ns[i]),
                int(lost[i]),
                released.restarted,
            )
            for i in range(len(p))
        ]

    def compare(self, released):
        for row, model in self.models.items():
            expected = [
                (row, p.sequence, p.payload, p.arrival_ns, lost, restarted)
                for p, lost, restarted in model.out
            ]
            model.out.clear()
            assert [entry for entry in released if entry[0] == row] == expected

    @invariant()
    def counters_agree(self):
        for row, model in self.models.items():
            for name in ("lost", "late", "duplicate", "reordered", "resets"):
                assert getattr(self.bank, name)[row] == getattr(model, name), name
            assert self.bank.next_sequence[row] == model.due & 0xFFFF
            assert self.bank.loss_runs[row] == len(model.runs)
            assert self.bank.longest_loss[row] == max((n for *_, n in model.runs), default=0)
            assert self.bank.burst_totals(row) == model.burst_totals()

    @invariant()
    def packets_are_conserved(self):
        bank = self.bank
        assert bank.held == sum(len(model.held) for model in self.models.values())
        assert self.pushed == (
            bank.released_total + bank.late_total + bank.duplicate_total
            + bank.held + bank.on_probation + bank.stray_total
        )  # fmt: skip


BankEqualsModel.TestCase.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None
)
test_bank_equals_the_model_on_any_arrivals = BankEqualsModel.TestCase


def losing(*lost, end=200, first=100):
    """A bank that was given all packets from `first` to `end` but these."""
    return (
        Bank(first=first)
        .push(*packets(*(n & 0xFFFF for n in range(first, end) if n not in lost)))
        .bank
    )


@pytest.mark.parametrize(
    ("lost", "runs", "longest", "bursts"),
    [
        ([], 0, 0, (0, 0, 0)),
        # one packet alone is no burst
        ([120], 1, 1, (0, 0, 0)),
        ([120, 121, 122], 1, 3, (1, 3, 3)),
        # 15 packets between them: one burst of 17; with 16 there are two single losses
        ([120, 136], 2, 1, (1, 17, 2)),
        ([120, 137], 2, 1, (0, 0, 0)),
        ([120, 121, 130, 160, 161, 162, 163, 190], 4, 4, (2, 15, 7)),
    ],
)
def test_runs_of_losses_make_bursts(lost, runs, longest, bursts):
    bank = losing(*lost)
    assert (bank.loss_runs[0], bank.longest_loss[0]) == (runs, longest)
    assert bank.burst_totals(0) == bursts


def test_a_burst_goes_on_where_the_sequence_wraps():
    assert losing(65_530, 65_540, first=65_500, end=65_600).burst_totals(0) == (1, 11, 2)


def test_another_source_begins_a_burst_of_its_own():
    bank = Bank(first=100).push(*packets(100, 102, start_ms=0)).tick(1000)
    bank.push(*packets(103, 105, 106, ssrc=2, start_ms=1000)).push(
        *packets(108, ssrc=2, start_ms=2000)
    )
    bank.tick(3000)
    assert bank.bank.lost[0] == 2
    assert bank.bank.burst_totals(0) == (0, 0, 0)


def test_batching_changes_nothing():
    random = np.random.default_rng(5)
    arrivals = [
        P(
            int(random.integers(4)),
            int(100 + random.integers(-3, 40)),
            ms,
            payload=bytes([ms % 256]),
        )
        for ms in range(400)
    ]
    outcomes = []
    for size in (1, 7, 400):
        bank = JitterBank()
        for row in range(4):
            bank.open(row, ssrc=1, sequence=100)
        out = []
        for start in range(0, len(arrivals), size):
            part = columns(arrivals[start : start + size])
            for unique in part.rounds(np.zeros(64, np.intp)):
                out += [e for r in bank.push(unique)[1] for e in BankEqualsModel.flatten(r)]
        outcomes.append([[e for e in out if e[0] == row] for row in range(4)])
    assert outcomes[0] == outcomes[1] == outcomes[2]
