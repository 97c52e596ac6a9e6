"""One measurement after the other, with more tracks each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import measure, receivers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.report import Context, Report


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
