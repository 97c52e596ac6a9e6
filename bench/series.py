"""Many measurements: one after the other with more tracks each time, or several in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from bench import measure, receivers
from bench.report import median

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from bench.report import Context, Report

    Case = TypeVar("Case", bound=Hashable)
    Runs = dict[int, measure.Run]
    """The runs of a case by the number of the round, but for those that failed."""


def by_tracks(
    context: Context,
    report: Report,
    series: Sequence[int],
    measured: Callable[[int], tuple[dict[str, Any], measure.Run]],
) -> None:
    """Add a row for each number of tracks, or a note where there is none, and what disturbed."""
    runs = {}
    for number, tracks in enumerate(series):
        name = f"{tracks:,} tracks"
        context.progress(name, number / len(series))
        try:
            row, done = measured(tracks)
        except (receivers.ReceiverError, measure.LoadError) as error:
            report.notes.append(f"{name}: {error}")
        else:
            report.rows.append(row)
            runs[name] = [done]
    report.notes += measure.notes_on(runs)


def in_turn(
    context: Context,
    report: Report,
    rounds: int,
    cases: Mapping[Case, str],
    measured: Callable[[Case], measure.Run],
) -> dict[Case, Runs]:
    """Measure every case once a round and return its runs; `cases` says what each is called.

    So a machine that grows slower in between slows all of them. What failed, and what disturbed,
    is noted.
    """
    runs: dict[Case, Runs] = {case: {} for case in cases}
    steps = [(number, case) for number in range(rounds) for case in cases]
    for step, (number, case) in enumerate(steps):
        what = f"round {number + 1} of {rounds}, {cases[case]}"
        context.progress(what, step / len(steps))
        try:
            runs[case][number] = measured(case)
        except (receivers.ReceiverError, measure.LoadError) as error:
            report.notes.append(f"{what}: {error}")
    report.notes += measure.notes_on(
        {cases[case]: list(found.values()) for case, found in runs.items() if found}
    )
    return runs


def ratio(runs: Runs, others: Runs) -> float | None:
    """Return the median of the rounds' ratios, None where there is nothing to compare with."""
    ratios = [
        run.us_per_packet / others[number].us_per_packet
        for number, run in runs.items()
        if number in others and others[number].arrived
    ]
    return round(median(ratios), 4) if ratios else None


def costs(runs: Runs, others: Runs, of: str) -> dict[str, Any]:
    """Return a row's figures of a case that ran; under `of` stands what they are of others'."""
    return {
        "us_per_packet": round(median(run.us_per_packet for run in runs.values()), 4),
        of: ratio(runs, others),
        "lost": sum(run.drops + run.missing for run in runs.values()),
        "runs": [run.as_dict() for run in runs.values()],
    }
