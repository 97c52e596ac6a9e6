"""Who speaks while whom: talk-over and mutual silence of two parties, from their speech.

Spans are arrays (n, 2) of beginnings and ends, in any unit, in any order, overlapping or not.
Spans that touch are one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Spans = NDArray[Any]
    """(n, 2)"""


def talk_over(parties: Sequence[Spans], least: float) -> Spans:
    """Return where all parties speak for `least` or longer, in order; nothing of a single one."""
    if len(parties) < 2:
        return np.zeros((0, 2))
    time, depth = _sweep(parties)
    return _runs(time, np.all(depth > 0, axis=0), least)


def mutual_silence(parties: Sequence[Spans], begin: float, end: float, least: float) -> Spans:
    """Return where nobody speaks for `least` or longer between `begin` and `end`, in order."""
    edges = np.array([[begin, begin], [end, end]])
    time, depth = _sweep([edges, *parties])
    within = (time >= begin) & (time < end)
    return _runs(time, np.all(depth[1:] == 0, axis=0) & within, least)


def _sweep(parties: Sequence[Spans]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return all edges in order, (n,), and how often each party speaks behind them, (k, n)."""
    spans = [np.asarray(each).reshape(-1, 2) for each in parties]
    time = np.concatenate([each.T.ravel() for each in spans])
    step = np.zeros((len(spans), len(time)), np.intp)
    first = 0
    for party, each in enumerate(spans):
        middle, last = first + len(each), first + 2 * len(each)
        step[party, first:middle], step[party, middle:last] = 1, -1
        first = last
    # at one moment beginnings come first, so that spans that touch are one
    order = np.lexsort((-step.sum(axis=0), time))
    return time[order], step[:, order].cumsum(axis=1)


def _runs(time: NDArray[Any], holds: NDArray[np.bool_], least: float) -> Spans:
    """Return the stretches in which `holds`, which counts from each edge to the next, is true."""
    change = np.diff(np.concatenate([[False], holds, [False]]).astype(np.int8))
    begin = time[(change == 1).nonzero()[0]]
    end = time[(change == -1).nonzero()[0]]  # nothing holds behind the last edge
    length = end - begin
    is_long = (length >= least) & (length > 0)
    return np.stack([begin[is_long], end[is_long]], axis=1)
