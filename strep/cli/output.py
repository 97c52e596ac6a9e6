"""How commands print: consoles, JSON, progress and the tables that several of them show."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

out = Console()
err = Console(stderr=True)

WIDE = 120
"""Columns from which tables show more."""


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print a JSON document and a newline on standard output."""
    json.dump(document, sys.stdout, indent=indent)
    sys.stdout.write("\n")


def print_plain(text: str) -> None:
    """Print a line on standard output as it is, without markup, colours or further breaks."""
    out.print(safe(text), highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a line on standard error that is no reason to stop."""
    err.print(f"strep: {text}", style="yellow", markup=False, soft_wrap=True)


def safe(text: str) -> Text:
    """Return a text for the terminal: neither markup nor control characters in it do anything.

    Whatever came from the network, such as a caller's number, is printed through this.
    """
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return Text(shown, no_wrap=True, overflow="ellipsis")


def progress() -> Progress:
    """Return a progress bar on standard error, shown where that is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def is_wide() -> bool:
    """Tell whether the terminal has room for tables that show more."""
    return out.width >= WIDE


def table(
    rows: Sequence[Mapping[str, object]],
    *,
    numbers: Container[str] = (),
    elastic: Container[str] = (),
) -> Table:
    """Return rows as a table; all have the same keys, which head the columns.

    `numbers` names the columns that are aligned right, `elastic` those that are cut short where the
    terminal is too narrow for all. None is shown as a dash.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2 if is_wide() else 1, 0, 0))
    for name in rows[0]:
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        grid.add_column(name, justify=justify, no_wrap=name not in elastic)
    for row in rows:
        grid.add_row(*("-" if value is None else safe(str(value)) for value in row.values()))
    return grid


def track_table(tracks: list[dict[str, Any]]) -> Table:
    """Return the tracks of manifests as a table that fits 80 columns; a wider one shows more."""
    wide = is_wide()
    rows = [
        {
            "call leg": str(track["call_leg_id"])[:8],
            "side": f"{track['leg']} {track['direction']}",
            **({"from": track["source"]} if wide else {}),
            "codec": _codec(track),
            "duration": f"{track['duration_s']:.2f} s",
            "packets": track["packets"],
            "lost": track["lost"],
            "late": track["late"],
            "dup": track["duplicate"],
            "reord": track["reordered"],
            **({"resets": track["resets"]} if wide else {}),
            "jitter": f"{track['jitter_mean_ms']:.1f} ms",
            "speech": f"{sum(end - start for start, end in track['speech']):.1f} s",
            **({"mos": track["quality"]["mos"]} if wide else {}),
        }
        for track in tracks
    ]
    return table(rows, numbers=rows[0].keys() - {"call leg", "side", "from", "codec"})


def _codec(track: Mapping[str, Any]) -> str:
    """Return the codec's name, with the rate in kHz where it is not that of a telephone."""
    rate_hz, name = track["sample_rate_hz"], track["codec"].removeprefix("telephone-")
    return str(name) if rate_hz == 8000 else f"{name} {rate_hz / 1000:g}k"
