"""Who speaks in many conversations at once: where both parties do, and where none does.

Edges of speech are told late and by party, so they wait until all that happened up to a moment has
been told. Then they are *settled*, those of all conversations together in the order in which they
happened. What has been settled stays: an edge that is told later than that counts from there on.

Python runs for what is told only. Edges are many, and what is kept of a thousand conversations as
objects has left the processor's cache each time one of them is due.
"""

from __future__ import annotations

from itertools import compress
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
_NOBODY = -1
"""The number of edges of conversations that have ended."""

PartyT = TypeVar("PartyT")


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
        self._added: list[tuple[int, int, int, int, PartyT]] = []
        self._pending = np.zeros((4, 0), np.int64)
        """Number, moment, step and side of each edge that is not settled yet, as they were told."""
        self._parties: list[PartyT] = []
        """Whose they are."""
        self._last: dict[int, PartyT] = {}
        """Who spoke up last, of the conversations in which both sides speak."""
        super().__init__()

    @property
    def pending(self) -> int:
        """Edges that are not settled yet."""
        return len(self._added) + len(self._parties)

    def open(self, number: int, at_ns: int) -> None:
        """Begin a conversation, in silence."""
        self.ensure(number + 1)
        self.renew(number)
        self.settled_ns[number] = self.since_ns[number, QUIET] = at_ns

    def add(self, number: int, at_ns: int, step: int, side: int, party: PartyT) -> None:
        """Take in that a party of a side begins to speak, where `step` is 1, or ceases to, -1."""
        self._added.append((number, at_ns, step, side, party))

    def settle(self, until_ns: int) -> list[Told[PartyT]]:
        """Settle all conversations up to a moment; return what that tells, of each in order."""
        self._take_added()
        due = self._pending[1] <= until_ns
        told = self._settle(*self._drop(due), until_ns) if due.any() else []
        return told + self._tell_starts(np.arange(self.rows), until_ns)

    def settle_half(self) -> list[Told[PartyT]]:
        """Settle the earlier half of what is pending, whatever else may still be told."""
        self._take_added()
        return self.settle(int(np.median(self._pending[1])) if self._parties else 0)

    def close(self, number: int, until_ns: int) -> list[Told[PartyT]]:
        """Settle all of one conversation and end it, no earlier than at `until_ns`."""
        self._take_added()
        own = np.flatnonzero(self._pending[0] == number)
        edges = [(*self._pending[1:, i].tolist(), self._parties[i]) for i in own.tolist()]
        self._pending[0, own] = _NOBODY
        until_ns = max([until_ns, *(edge[0] for edge in edges)])
        told = self._settle_one(number, edges, until_ns) if edges else []
        told += self._tell_starts(np.array([number]), until_ns)
        end_ns = max(until_ns, self.settled_ns.item(number))
        last = self._last.pop(number, None)
        for condition in (OVER, QUIET):
            if self.is_told[number, condition]:
                since_ns = self.since_ns.item(number, condition)
                party = last if condition == OVER else None
                told.append(Told(number, condition, since_ns, end_ns, party))
        self.renew(number)
        return told

    def trim(self, rows: int) -> None:
        """Give memory back when only so many conversations, the first ones, are open."""
        super().trim(rows)
        self._drop(self._pending[0] == _NOBODY)

    def _take_added(self) -> None:
        if self._added:
            *facts, parties = zip(*self._added, strict=True)
            self._added.clear()
            self._pending = np.concatenate((self._pending, np.array(facts, np.int64)), axis=1)
            self._parties.extend(parties)

    def _drop(self, which: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[PartyT]]:
        """Take edges out of those that are pending; return them, and whose they are."""
        dropped = self._pending[:, which], list(compress(self._parties, which.tolist()))
        self._pending = self._pending[:, ~which]
        self._parties = list(compress(self._parties, (~which).tolist()))
        return dropped

    def _settle(
        self, due: NDArray[np.int64], parties: list[PartyT], until_ns: int
    ) -> list[Told[PartyT]]:
        """Settle edges of any conversations, all that these have up to a moment."""
        number, at_ns, step, side = due
        # at one moment those who begin come first, so that nobody is thought silent in between
        order = np.lexsort((-step, at_ns, number))
        order = order[np.count_nonzero(number == _NOBODY) :]  # which come first
        if not len(order):
            return []
        number, at_ns, step, side = number[order], at_ns[order], step[order], side[order]
        n = np.arange(len(number))
        is_first = np.diff(number, prepend=_NOBODY) != 0
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
        edges = _Edges(number, at_ns, sides, before, first, last, [parties[i] for i in order])
        told = [each for need in _NEEDED for each in self._turn(*need, edges)]
        self.speaking[rows] = speaking[last]
        self.settled_ns[rows] = np.maximum(at_ns[last], until_ns)
        return [each for _, each in sorted(told, key=lambda each: each[0])]

    def _settle_one(
        self, number: int, edges: list[tuple[int, int, int, PartyT]], until_ns: int
    ) -> list[Told[PartyT]]:
        """Do what `_settle` does, for one conversation: sooner for a few edges."""
        speaking, since_ns = self.speaking[number].tolist(), self.since_ns[number].tolist()
        is_told, settled_ns = self.is_told[number].tolist(), self.settled_ns.item(number)
        told: list[Told[PartyT]] = []
        for at_ns, step, side, party in sorted(edges, key=lambda edge: (edge[0], -edge[1])):
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
        self, condition: int, needed: int, edges: _Edges[PartyT]
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

    def _tell_starts(self, rows: NDArray[np.intp], until_ns: int) -> list[Told[PartyT]]:
        """Tell which conditions have held for long enough by now."""
        settled_ns = np.maximum(self.settled_ns.take(rows), until_ns)
        is_certain = self.since_ns[rows] + self._least_ns <= settled_ns[:, None]
        is_certain &= ~self.is_told[rows]
        told = []
        for i, condition in np.argwhere(is_certain).tolist():
            row = int(rows[i])
            self.is_told[row, condition] = True
            self.settled_ns[row] = settled_ns[i]
            party = self._last.get(row) if condition == OVER else None
            told.append(Told(row, condition, int(self.since_ns[row, condition]), None, party))
        return told


class _Edges(NamedTuple, Generic[PartyT]):
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
