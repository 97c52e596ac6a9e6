"""The sinks of a command: made from its settings, and what is written when they closed a track."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.manifest import add_call, add_earlier, add_track
from pipeline.sinks.load import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.block import Track, TrackSummary
    from pipeline.dispatch import Results
    from pipeline.sinks.base import Sink
    from strep.specs import SinkSpec

logger = structlog.get_logger("strep")


def make_sinks(specs: Iterable[SinkSpec], directory: Path) -> dict[str, Sink]:
    """Make the sinks by name, a second one of a name as `name-2`; raises `SinkError`.

    `directory` is where those write that have an option of that name and were not told.
    """
    sinks: dict[str, Sink] = {}
    for spec in specs:
        name, copy = spec.name, 1
        while name in sinks:
            copy += 1
            name = f"{spec.name}-{copy}"
        sinks[name] = load(spec.name, spec.options, {"directory": directory})
    return sinks


def folders(specs: Iterable[SinkSpec], directory: Path) -> list[Path]:
    """Return the folders that sinks may write to: `directory`, and those that they were told."""
    told = [Path(str(each.options["directory"])) for each in specs if "directory" in each.options]
    return list(dict.fromkeys([directory, *told]))


def write_manifests(
    track: Track,
    summary: TrackSummary,
    results: Results,
    *,
    call: Mapping[str, Any] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Add a closed track to the manifest of each recording that it has; see `add_track`.

    Return how many could not be written; the log says why.
    """
    failed = 0
    for result in results.values():
        if "manifest" in result:
            path = Path(result["manifest"])
            try:
                add_track(path, track, summary, results, call=call, earlier=earlier)
            except (OSError, ValueError) as error:
                failed += 1
                logger.error("manifest not written", path=str(path), error=str(error))  # noqa: TRY400 -- a sentence says all
    return failed


def recorded_files(results: Results) -> list[str]:
    """Return the paths of all files that a track was recorded in, those of split recordings too."""
    paths: list[str] = []
    for result in results.values():
        if "recording" in result:
            first = Path(result["recording"])
            files = result.get("files") or [{"recording": first.name}]
            paths += [str(first.with_name(each["recording"])) for each in files]
    return paths


def complete_manifest(
    path: Path,
    *,
    call: Mapping[str, Any] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Add to a manifest what was not known when it was written; see `add_call`, `add_earlier`."""
    if call is not None:
        add_call(path, call)
    if earlier:
        add_earlier(path, earlier)
