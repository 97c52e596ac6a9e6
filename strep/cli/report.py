"""`strep report`: a page to look at calls, in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import add_command
from strep.cli.calls import open_store
from strep.cli.errors import WrongInputError
from strep.cli.output import print_json, print_plain, progress, warn

if TYPE_CHECKING:
    import argparse

    from strep.report import Source

SUFFIXES = {".json", ".wav", ".flac", ".ogg", ".opus", ".mp3"}
"""Of names that are files even where there is none of that name."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "report",
        run,
        "write a page to look at a call, or at all calls of a folder, in one HTML file",
        "strep report recordings --out calls.html\n  strep report 428c31b6 --open",
    )
    parser.add_argument(
        "what",
        metavar="CALL|FILE|DIR",
        help="a call by its id as of `strep calls show`, a manifest or recording, or a folder",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the folder, or beside"
    )
    parser.add_argument(
        "--max-audio-mb",
        type=_megabytes,
        default=20.0,
        metavar="N",
        help="audio that stands in the page, at most; what is beyond is linked (default 20)",
    )
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help="default: that of the daemon's settings"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Write a report and say where it is."""
    from strep.report import ReportError, write_report  # noqa: PLC0415 -- other commands start without

    try:
        sources, title, out = _find(arguments)
        with progress() as bar:
            task = bar.add_task("drawing calls", total=1.0)
            outcome = write_report(
                sources,
                arguments.out or out,
                title=title,
                max_audio_mb=arguments.max_audio_mb,
                progress=lambda done: bar.update(task, completed=done),
            )
    except ReportError as error:
        raise WrongInputError(str(error)) from None
    for problem in outcome.problems:
        warn(problem)
    if arguments.json:
        print_json(
            {
                "report": str(outcome.path),
                "bytes": outcome.bytes,
                "recordings": outcome.views,
                "audio_embedded": outcome.embedded,
                "audio_linked": outcome.linked,
                "problems": outcome.problems,
            }
        )
    else:
        linked = f", {outcome.linked} played from their files" if outcome.linked else ""
        size_mb = f"{outcome.bytes / 1e6:.1f} MB"
        what = "1 recording" if outcome.views == 1 else f"{outcome.views} recordings"
        print_plain(f"{outcome.path} ({what}{linked}; {size_mb})")
    if arguments.open:
        import webbrowser  # noqa: PLC0415 -- hardly ever

        webbrowser.open(outcome.path.resolve().as_uri())


def _find(arguments: argparse.Namespace) -> tuple[list[Source], str, Path]:
    """Return what the report is about, its title, and where it is written by default."""
    from strep.report import from_database, from_path  # noqa: PLC0415

    path = Path(arguments.what)
    if path.is_dir():
        sources, others = from_path(path)
        if others:
            what = "1 JSON file" if len(others) == 1 else f"{len(others)} JSON files"
            warn(f"{what} in {path} left out: no manifest of a recorded call, as {others[0]}")
        return sources, f"Calls in {path.resolve().name or path}", path / "report.html"
    if path.suffix in SUFFIXES:
        sources, _ = from_path(path)
        return sources, "Call", path.with_suffix(".html")
    if path.exists():
        raise WrongInputError(
            f"{path} is neither a manifest, a recording nor a folder of them;"
            " those of a capture are made by strep analyze --out"
        )
    from strep.store import StoreError  # noqa: PLC0415 -- other commands start without it

    try:
        with open_store(arguments.database) as store:
            details = store.details(arguments.what)
    except StoreError as error:
        raise WrongInputError(
            f"{arguments.what!r} is no file or folder, nor the id of a call: {error}"
        ) from None
    call_leg_id = details.overview.call.call_leg_id
    return from_database(details), "Call", Path(f"{call_leg_id}.html")


def _megabytes(text: str) -> float:
    """Read a size for argparse."""
    from argparse import ArgumentTypeError  # noqa: PLC0415 -- only here

    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1000:
        raise ArgumentTypeError(f"{text!r} is not a number of megabytes from 0 to 1000")
    return value
