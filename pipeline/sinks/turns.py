"""Who speaks in many conversations at once: where both parties do, and where none does.

Edges of speech are told late and by party, so they wait until all that happened up to a moment has
been told. Then they are *settled*, those of all conversations together in the order in which they
happened. What has been settled stays: an edge that is told later than that counts from there on.

Where they are many, all are settled at once in columns, and Python runs for what is told only: what
is kept of thousands of conversations as objects would have left the processor's cache each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVER, QUIET = range(2)
"""The conditions: both sides speak, none does."""
INBOUND, OUTBOUND = range(2)
"""The sides of a conversation, each of any number of parties."""

_NEEDED = ((OVER, 2), (QUIET, 0))
"""How many sides speak where a condition holds."""
_NEVER_NS = 1 << 62

MANY = 64
"""So many edges are sooner settled together than one by one."""

PartyT = TypeVar("PartyT")
_Edge = tuple[int, int, int, int, PartyT]
"""Number of the conversation, moment, step, side and party."""


class Told(NamedTuple, Generic[PartyT]):
    """A condition has held for long enough, or ends after that."""

    number: int
    """Of the conversation."""
    condition: int
    since_ns: int
    until_ns: int | None
    """None where it goes on."""
    party: PartyT | None
    """Who spoke up last; None where nobody does."""


class Turns(RowState, Generic[PartyT]):
    """Settles conversations, a row each; all moments are on one clock.

    `over_ns` and `quiet_ns` say how long a condition holds before it is told.
    """

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "settled_ns": (np.int64, 0),
        "speaking": ((np.int64, 2), 0),
        "since_ns": ((np.int64, 2), _NEVER_NS),
        "is_told": ((np.bool_, 2), False),
    }
    settled_ns: NDArray[np.int64]
    """What happened before stays."""
    speaking: NDArray[np.int64]
    """(rows, 2): parties that speak then, by side."""
    since_ns: NDArray[np.int64]
    """(rows, 2): since when each condition holds; never where it does not."""
    is_told: NDArray[np.bool_]
    """(rows, 2): whether that has been told."""

    def __init__(self, *, over_ns: int, quiet_ns: int) -> None:
        self._least_ns = np.array([over_ns, quiet_ns])
        self._pending: list[_Edge[PartyT]] = []
        """What is not settled yet, as it was told."""
        self._last: dict[int, PartyT] = {}
        """Who spoke up last, of the conversations in which both sides speak."""
        super().__init__()

    @property
    def pending(self) -> int:
        """Edges that are not settled yet."""
        return len(self._pending)

    def open(self, number: int, at_ns: int) -> None:
        """Begin a conversation, in silence."""
        self.ensure(number + 1)
        self.renew(number)
        self.settled_ns[number] = self.since_ns[number, QUIET] = at_ns

    def add(self, number: int, at_ns: int, step: int, side: int, party: PartyT) -> None:
        """Take in that a party of a side begins to speak, where `step` is 1, or ceases to, -1."""
        self._pending.append((number, at_ns, step, side, party))

    def settle(self, until_ns: int) -> list[Told[PartyT]]:
        """Settle all conversations up to a moment; return what that tells, of each in order."""
        due = [edge for edge in self._pending if edge[1] <= until_ns]
        told: list[Told[PartyT]] = []
        if due:
            self._pending = [edge for edge in self._pending if edge[1] > until_ns]
            if len(due) >= MANY:
                told = self._settle_many(due, until_ns)
            else:
                by_number: dict[int, list[_Edge[PartyT]]] = {}
                for edge in due:
                    by_number.setdefault(edge[0], []).append(edge)
                for number, edges in by_number.items():
                    told += self._settle_one(number, edges, until_ns)
        return told + self._tell_starts(0, self.rows, until_ns)

    def settle_half(self) -> list[Told[PartyT]]:
        """Settle the earlier half of what is pending, whatever else may still be told."""
        moments_ns = sorted(edge[1] for edge in self._pending)
        return self.settle(moments_ns[(len(moments_ns) - 1) // 2]) if moments_ns else []

    def close(self, number: int, until_ns: int) -> list[Told[PartyT]]:
        """Settle all of one conversation and end it, no earlier than at `until_ns`."""
        told: list[Told[PartyT]] = []
        edges = [edge for edge in self._pending if edge[0] == number]
        if edges:
            self._pending = [edge for edge in self._pending if edge[0] != number]
            until_ns = max(until_ns, *(edge[1] for edge in edges))
            told = self._settle_one(number, edges, until_ns)
        told += self._tell_starts(number, number + 1, until_ns)
        end_ns = max(until_ns, self.settled_ns.item(number))
        last = self._last.pop(number, None)
        for condition in (OVER, QUIET):
            if self.is_told[number, condition]:
                since_ns = self.since_ns.item(number, condition)
                party = last if condition == OVER else None
                told.append(Told(number, condition, since_ns, end_ns, party))
        self.renew(number)
        return told

    def _settle_many(self, due: list[_Edge[PartyT]], until_ns: int) -> list[Told[PartyT]]:
        """Settle edges of any conversations, all that these have up to a moment."""
        *facts, parties = zip(*due, strict=True)
        number, at_ns, step, side = np.array(facts, np.int64)
        # at one moment those who begin come first, so that nobody is thought silent in between
        order = np.lexsort((-step, at_ns, number))
        number, at_ns, step, side = number[order], at_ns[order], step[order], side[order]
        n = np.arange(len(number))
        is_first = np.diff(number, prepend=-1) != 0
        first = np.maximum.accumulate(np.where(is_first, n, 0))  # of the same conversation
        last = np.append(n[is_first][1:], len(n)) - 1
        rows = number[last]

        at_ns = np.maximum(at_ns, self.settled_ns.take(number))
        steps = np.zeros((len(n), 2), np.int64)
        steps[n, side] = step
        total = steps.cumsum(axis=0)
        speaking = total - (total - steps)[first] + self.speaking[number]
        sides = np.count_nonzero(speaking, axis=1)
        before = np.count_nonzero(speaking - steps, axis=1)
        edges = _Sorted(number, at_ns, sides, before, first, last, [parties[i] for i in order])
        told = [each for need in _NEEDED for each in self._turn(*need, edges)]
        self.speaking[rows] = speaking[last]
        self.settled_ns[rows] = np.maximum(at_ns[last], until_ns)
        return [each for _, each in sorted(told, key=lambda each: each[0])]

    def _settle_one(
        self, number: int, edges: list[_Edge[PartyT]], until_ns: int
    ) -> list[Told[PartyT]]:
        """Do what `_settle_many` does, for one conversation."""
        speaking, since_ns = self.speaking[number].tolist(), self.since_ns[number].tolist()
        is_told, settled_ns = self.is_told[number].tolist(), self.settled_ns.item(number)
        told: list[Told[PartyT]] = []
        for _, at_ns, step, side, party in sorted(edges, key=lambda edge: (edge[1], -edge[2])):
            settled_ns = max(settled_ns, at_ns)
            before = (speaking[INBOUND] > 0) + (speaking[OUTBOUND] > 0)
            speaking[side] += step
            sides = (speaking[INBOUND] > 0) + (speaking[OUTBOUND] > 0)
            for condition, needed in _NEEDED:
                if sides == needed != before:
                    since_ns[condition] = settled_ns
                    if condition == OVER:
                        self._last[number] = party
                elif before == needed != sides:
                    last = self._last.pop(number, None) if condition == OVER else None
                    if settled_ns - since_ns[condition] >= self._least_ns[condition]:
                        facts = number, condition, since_ns[condition]
                        told += [] if is_told[condition] else [Told(*facts, None, last)]
                        told.append(Told(*facts, settled_ns, last))
                    since_ns[condition], is_told[condition] = _NEVER_NS, False
        self.speaking[number], self.since_ns[number] = speaking, since_ns
        self.is_told[number], self.settled_ns[number] = is_told, max(settled_ns, until_ns)
        return told

    def _turn(
        self, condition: int, needed: int, edges: _Sorted[PartyT]
    ) -> list[tuple[int, Told[PartyT]]]:
        """Take in where a condition begins to hold and ceases to.

        Returns what that tells, and at which edge.
        """
        number, at_ns, last = edges.number, edges.at_ns, edges.last
        holds, held = edges.sides == needed, edges.before == needed
        begun = np.maximum.accumulate(np.where(holds & ~held, np.arange(len(number)), -1))
        is_new = begun >= edges.first
        since_ns = np.where(is_new, at_ns[begun], self.since_ns[number, condition])
        was_told = ~is_new & self.is_told[number, condition]

        def party_of(i: int) -> PartyT | None:
            if condition == QUIET:
                return None
            return edges.parties[begun[i]] if is_new[i] else self._last.get(int(number[i]))

        told = []
        is_long = at_ns - since_ns >= self._least_ns[condition]
        for i in np.flatnonzero(held & ~holds & is_long).tolist():
            row, began_ns, party = int(number[i]), int(since_ns[i]), party_of(i)
            if not was_told[i]:
                told.append((i, Told(row, condition, began_ns, None, party)))
            told.append((i, Told(row, condition, began_ns, int(at_ns[i]), party)))

        rows, goes_on = number[last], holds[last]
        self.since_ns[rows, condition] = np.where(goes_on, since_ns[last], _NEVER_NS)
        self.is_told[rows, condition] = goes_on & was_told[last]
        if condition == OVER:
            for i, row, is_held in zip(last.tolist(), rows.tolist(), goes_on.tolist(), strict=True):
                party = party_of(i) if is_held else None
                if party is not None:
                    self._last[row] = party
                else:
                    self._last.pop(row, None)
        return told

    def _tell_starts(self, first: int, end: int, until_ns: int) -> list[Told[PartyT]]:
        """Tell which conditions have held for long enough by now, of the rows up to `end`."""
        settled_ns = np.maximum(self.settled_ns[first:end, None], until_ns)
        is_certain = self.since_ns[first:end] + self._least_ns <= settled_ns
        is_certain &= ~self.is_told[first:end]
        told: list[Told[PartyT]] = []
        if not is_certain.any():
            return told
        for i, condition in np.argwhere(is_certain).tolist():
            row = first + i
            self.is_told[row, condition] = True
            self.settled_ns[row] = max(self.settled_ns.item(row), until_ns)
            party = self._last.get(row) if condition == OVER else None
            told.append(Told(row, condition, self.since_ns.item(row, condition), None, party))
        return told


class _Sorted(NamedTuple, Generic[PartyT]):
    """Edges that are being settled, by conversation and moment."""

    number: NDArray[np.int64]
    at_ns: NDArray[np.int64]
    sides: NDArray[np.int64]
    """How many sides speak behind each."""
    before: NDArray[np.int64]
    """How many do before it."""
    first: NDArray[np.intp]
    """Index of the first one of the same conversation."""
    last: NDArray[np.intp]
    """Index of the last one of each conversation."""
    parties: list[PartyT]
