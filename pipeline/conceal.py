"""Concealment of lost packets: audio in the place of theirs, made from what came before.

Two ways, both for all tracks at once. `repeat` says the last frame again and again, fading.
`g711` follows ITU-T G.711 Appendix I: the pitch is found in the last 48.75 ms, its last period is
repeated, after 10 ms the last two and after 20 ms the last three, so that it does not buzz, and
from 10 ms on it fades by 20 % each 10 ms. Either is silent after 60 ms.

Where the appendix overlaps and adds what it makes with what was received, it alters received
samples, which it holds back for 3.75 ms to that end. Here these stay as they came: the overlaps
lie within the hole. At its beginning, the step between the last sample received and the first one
made is faded out; at its end, what was made is faded over into the first period of the frame
behind the hole, going backwards, since that frame is known by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.rows import RowState

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE_HZ = 8000
HISTORY_SAMPLES = 390
"""What is remembered of each track: 48.75 ms (Appendix I, clause I.2.1)."""
LONGEST_SAMPLES = 480
"""Silence from 60 ms on."""
SHORTEST_LAG, LONGEST_LAG = 40, 120
"""Pitch periods that are looked for, 5 to 15 ms: 200 to 66 Hz (clause I.2.2)."""
_WINDOW = 160
"""The last 20 ms are compared with what stood a lag before."""
_STEP_SAMPLES = 80
"""10 ms: fading and further periods go by these."""
_FADE = 0.2


class History(RowState):
    """The last samples of all tracks by row, holes and silence included."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "samples": ((np.int16, HISTORY_SAMPLES), 0),
    }
    samples: NDArray[np.int16]
    """(rows, 390) int16, the last sample last."""

    def extend(self, rows: NDArray[np.intp], pcm: NDArray[np.int16]) -> None:
        """Take the next samples (n, samples) of each row."""
        fresh = pcm[:, -HISTORY_SAMPLES:]
        kept = HISTORY_SAMPLES - fresh.shape[1]
        if kept:
            # a take first: the rows' own samples move
            self.samples[rows, :kept] = self.samples.take(rows, axis=0)[:, -kept:]
        self.samples[rows, kept:] = fresh

    def skip(self, rows: NDArray[np.intp], samples: NDArray[np.int64]) -> None:
        """Take so much silence for each row."""
        shift = np.minimum(samples, HISTORY_SAMPLES)[:, None]
        source = np.arange(HISTORY_SAMPLES) + shift
        kept = np.take_along_axis(
            self.samples.take(rows, axis=0), np.minimum(source, HISTORY_SAMPLES - 1), axis=1
        )
        self.samples[rows] = np.where(source < HISTORY_SAMPLES, kept, 0)


def repeat(history: NDArray[np.int16], frame_samples: int, samples: int) -> NDArray[np.int16]:
    """Return the last frame of each history (n, 390) again, fading to silence by 60 ms.

    (n, samples) int16; frames longer than the history count with its length.
    """
    period = min(frame_samples, HISTORY_SAMPLES)
    again = history[:, HISTORY_SAMPLES - period + np.arange(samples) % period]
    fade = np.clip(1 - np.arange(samples, dtype=np.float32) / LONGEST_SAMPLES, 0, 1)
    return np.rint(again * fade).astype(np.int16)


def g711_appendix_i(
    history: NDArray[np.int16], behind: NDArray[np.int16] | None, samples: int
) -> NDArray[np.int16]:
    """Return what replaces holes of so many samples behind histories (n, 390): (n, samples) int16.

    `behind` (n, any) are the frames right behind the holes, None where there is silence between.
    """
    past = history.astype(np.float32)
    lag = _pitch(past)
    quarter = lag // 4
    at = np.arange(samples)[None, :]
    made = np.empty((len(past), samples))
    reached = np.zeros_like(lag)  # where in the periods that are repeated
    for periods, start, stop in ((1, 0, 80), (2, 80, 160), (3, 160, samples)):
        if start >= samples:
            break
        part = np.arange(min(stop, samples) - start)[None, :]
        # the longer run begins where the shorter one was in its period
        begun = reached % lag
        said: NDArray[Any] = _loop(past, lag, quarter, periods, begun[:, None] + part)
        if start:
            # the shorter run goes on for a quarter of a period, and fades
            ending = _loop(past, lag, quarter, periods - 1, reached[:, None] + part)
            weight = np.clip((part + 1) / (quarter[:, None] + 1), 0, 1)
            said = (1 - weight) * ending + weight * said
        made[:, start : start + part.size] = said
        reached = (begun + _STEP_SAMPLES) % (periods * lag)
    # no step at the beginning: what the next sample would have been, going round, is known
    step = past[:, -1:] - np.take_along_axis(past, (HISTORY_SAMPLES - 1 - lag)[:, None], axis=1)
    made += step * np.clip(1 - at / (quarter[:, None] + 1), 0, 1)
    made *= np.clip(1 - _FADE * (at / _STEP_SAMPLES - 1), 0, 1)
    if behind is not None:
        made = _lead_over(made, behind, lag, quarter)
    return np.clip(np.rint(made), -32768, 32767).astype(np.int16)


def _pitch(past: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the lag of each row at which the last 20 ms resemble what stood before best."""
    window = past[:, -_WINDOW:]
    before = past[:, HISTORY_SAMPLES - _WINDOW - LONGEST_LAG : HISTORY_SAMPLES - SHORTEST_LAG]
    # (n, lags, 160), the longest lag first
    candidates = np.lib.stride_tricks.sliding_window_view(before, _WINDOW, axis=1)
    likeness = np.einsum("ij,ikj->ik", window, candidates)
    sums = np.cumsum(np.pad(before.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
    energy = sums[:, _WINDOW:] - sums[:, :-_WINDOW]
    normalised = likeness / np.sqrt(energy + 1)
    best: NDArray[np.int64] = LONGEST_LAG - normalised.argmax(axis=1)
    return best


def _loop(
    past: NDArray[np.float32],
    lag: NDArray[np.int64],
    quarter: NDArray[np.int64],
    periods: int,
    at: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the last periods, endlessly, at these places: the end leads over to the beginning."""
    length = (periods * lag)[:, None]
    place = at % length
    index = HISTORY_SAMPLES - length + place
    weight = np.clip((place - length + quarter[:, None] + 1) / (quarter[:, None] + 1), 0, 1)
    last = np.take_along_axis(past, index, axis=1)
    first = np.take_along_axis(past, np.maximum(index - length, 0), axis=1)
    looped: NDArray[np.float32] = ((1 - weight) * last + weight * first).astype(np.float32)
    return looped


def _lead_over(
    made: NDArray[np.float64],
    behind: NDArray[np.int16],
    lag: NDArray[np.int64],
    quarter: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Fade what was made into what the frame behind says of the time before it."""
    samples = made.shape[1]
    to_end = samples - np.arange(samples)[None, :]
    period = np.minimum(lag, behind.shape[1])[:, None]
    before = np.take_along_axis(behind, (-to_end) % period, axis=1)
    weight = np.clip(1 - to_end / (quarter[:, None] + 1), 0, 1)
    led: NDArray[np.float64] = (1 - weight) * made + weight * before
    return led
