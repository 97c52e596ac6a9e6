"""A picture of a recorded call: what both parties said when, and what the network lost.

Needs matplotlib, which the extra `picture` brings. One lane per track on a common time axis: the
waveform, bands behind it where the party speaks, and a tick for every lost packet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from strep.envelope import envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Column = NDArray[np.float32]

WIDTH_PX = 1600
LANE_PX = 260
HEADER_PX = 108
FOOTER_PX = 72
CAPTION_PX = 40
"""Above each lane, inside `LANE_PX`."""
LEFT_PX, RIGHT_PX = 56, WIDTH_PX - 56
DPI = 200
SMALL = 7.5
"""Font size of all that is no title, in points."""

PAPER = "#fdfdfb"
INK = "#22282e"
GREY = "#68707a"
RULE = "#d9dcdf"
COLOURS = {"inbound": "#2f6690", "outbound": "#2b8a78"}
LOST = "#d1352b"
BAND_ALPHA = 0.13

TICKS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
MAX_TICKS = 13
CHANNELS = {"left": 0, "mono": 0, "right": 1}


class PictureError(Exception):
    """A picture cannot be drawn; the message tells the operator why."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One track, ready to be drawn; all times in seconds since the start of the call."""

    name: str
    caption: str
    colour: str
    low: Column
    """(columns,) lowest sample of each column of pixels, -1 to 1."""
    high: Column
    """(columns,) highest sample."""
    rms: Column
    """(columns,) root mean square of the samples."""
    wave_s: tuple[float, float]
    """Where the first column begins and the last one ends."""
    end_s: float
    speech_s: Sequence[tuple[float, float]]
    lost_s: Sequence[float]


def draw_call(manifest_path: Path, out: Path) -> None:
    """Draw the call of a manifest as a PNG, 1600 pixels wide, 700 high with two tracks.

    The recordings are looked for beside the manifest. A track's `speech` and `lost_at_s`, where
    there are any, count from the track's start, which `offset_s` places in the call. A long
    recording is read piece by piece and never held as a whole.

    Raises `PictureError` where matplotlib is missing or where the manifest, a recording or `out`
    cannot be used.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- optional
        from matplotlib.figure import Figure  # noqa: PLC0415 -- optional
    except ImportError as error:
        raise PictureError(
            "pictures need matplotlib: install it with pip install 'strep[picture]'"
        ) from error

    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        # in the manifest they stand in the order in which they ended
        tracks = sorted(manifest["tracks"], key=lambda track: (track["leg"], track["direction"]))
        lanes = [_lane(track, manifest_path.parent) for track in tracks]
        started = datetime.fromisoformat(manifest["started_at"])
        call_leg_id = str(manifest["call_leg_id"])
    except (OSError, soundfile.LibsndfileError) as error:
        raise PictureError(f"cannot draw {manifest_path}: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise PictureError(
            f"{manifest_path} is not a manifest of a recorded call ({error!r})"
        ) from error
    if not lanes:
        raise PictureError(f"{manifest_path} names no track, expected at least one")

    height_px = HEADER_PX + LANE_PX * len(lanes) + FOOTER_PX
    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    end_s = max(lane.end_s for lane in lanes)
    _draw_header(figure, call_leg_id, f"{started:%Y-%m-%d %H:%M:%S %Z}".rstrip(), end_s)
    loudest = max(float(np.abs([lane.low, lane.high]).max(initial=0)) for lane in lanes)
    for index, lane in enumerate(lanes):
        top_px = HEADER_PX + LANE_PX * index + CAPTION_PX
        axes = _axes(figure, top_px, LANE_PX - CAPTION_PX - 12)
        _draw_lane(axes, lane, loudest or 1.0)
        _draw_time(axes, end_s or 1.0, labelled=index == len(lanes) - 1)
    try:
        figure.savefig(out, format="png")
    except OSError as error:
        raise PictureError(f"cannot write {out}: {error}") from error


def _lane(track: Mapping[str, Any], folder: Path) -> Lane:
    offset_s = float(track["offset_s"])
    end_s = offset_s + float(track["duration_s"])
    start_s = length_s = 0.0
    low = high = rms = np.zeros(0, np.float32)
    if track["recording"] is not None:
        # A manifest stands beside its recordings, wherever both have been moved.
        path = folder / str(track["recording"]).replace("\\", "/").rpartition("/")[2]
        low, high, rms, length_s = _envelope(path, CHANNELS[track["channel"]])
        if track["channel"] == "mono":
            start_s = offset_s
    direction = track["direction"]
    return Lane(
        colour=COLOURS[direction],
        name=f"{direction.capitalize()}, leg {track['leg']}",
        caption=(
            f"{track['packets']:,} packets, {track['lost']:,} lost, {track['late']:,} late, "
            f"{track['reordered']:,} reordered, jitter {track['jitter_mean_ms']:.1f} ms "
            f"(max {track['jitter_max_ms']:.1f})"
        ),
        low=low,
        high=high,
        rms=rms,
        wave_s=(start_s, start_s + length_s),
        end_s=max(end_s, start_s + length_s),
        speech_s=[(offset_s + start, offset_s + end) for start, end in track["speech"]],
        lost_s=[offset_s + lost for lost in track.get("lost_at_s") or ()],
    )


def _envelope(path: Path, channel: int) -> tuple[Column, Column, Column, float]:
    """Return `low`, `high` and `rms` of a lane, and the recording's length in seconds."""
    found = envelope(path, RIGHT_PX - LEFT_PX)
    low, high, rms = (each[:, channel] for each in (found.low, found.high, found.rms))
    return low, high, rms, found.duration_s


def _axes(figure: Figure, top_px: int, height_px: int) -> Axes:
    """Add axes without a frame; pixels are counted from the top left."""
    figure_px = figure.get_figheight() * DPI
    axes = figure.add_axes(
        (
            LEFT_PX / WIDTH_PX,
            1 - (top_px + height_px) / figure_px,
            (RIGHT_PX - LEFT_PX) / WIDTH_PX,
            height_px / figure_px,
        )
    )
    axes.patch.set_visible(False)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _draw_header(figure: Figure, call_leg_id: str, started: str, duration_s: float) -> None:
    axes = _axes(figure, 0, HEADER_PX)
    axes.set_xticks([])
    axes.set_xlim(LEFT_PX, RIGHT_PX)
    axes.set_ylim(HEADER_PX, 0)
    axes.text(LEFT_PX, 54, f"Call of {started}", color=INK, fontsize=10.5, weight="bold")
    axes.text(
        LEFT_PX, 88, f"Call leg {call_leg_id},  {duration_s:,.1f} s", color=GREY, fontsize=SMALL
    )
    axes.text(RIGHT_PX, 88, "lost packet", color=GREY, fontsize=SMALL, ha="right")
    axes.vlines(RIGHT_PX - 130, 70, 90, color=LOST, linewidth=1)
    axes.text(RIGHT_PX - 168, 88, "speech", color=GREY, fontsize=SMALL, ha="right")
    for index, colour in enumerate(COLOURS.values()):
        right = RIGHT_PX - 272 + 20 * index
        axes.fill_between(
            [right - 20, right], 70, 90, color=colour, alpha=2 * BAND_ALPHA, linewidth=0
        )


def _draw_lane(axes: Axes, lane: Lane, loudest: float) -> None:
    axes.set_ylim(-1.25, 1.1)
    axes.text(
        0, 1.06, lane.name, color=lane.colour, fontsize=8.5, weight="bold", transform=axes.transAxes
    )
    axes.text(
        1, 1.06, lane.caption, color=GREY, fontsize=SMALL, ha="right", transform=axes.transAxes
    )
    for start, end in lane.speech_s:
        axes.axvspan(start, end, color=lane.colour, alpha=BAND_ALPHA, linewidth=0)
    axes.axhline(0, color=lane.colour, linewidth=0.5, alpha=0.6)
    if lane.high.size:
        time_s = np.linspace(*lane.wave_s, lane.high.size)
        for low, high, alpha in ((lane.low, lane.high, 0.55), (-lane.rms, lane.rms, 1.0)):
            axes.fill_between(
                time_s, low / loudest, high / loudest, color=lane.colour, alpha=alpha, linewidth=0
            )
    axes.vlines(lane.lost_s, 0, 0.09, color=LOST, linewidth=1, transform=axes.get_xaxis_transform())


def _draw_time(axes: Axes, end_s: float, *, labelled: bool) -> None:
    step = next((tick for tick in TICKS_S if end_s / tick < MAX_TICKS), TICKS_S[-1])
    ticks = np.arange(0, end_s + 1e-9, step)
    axes.set_xlim(0, end_s)
    axes.set_xticks(ticks if labelled else [], [_clock(int(tick)) for tick in ticks if labelled])
    axes.tick_params(axis="x", length=3, width=0.5, color=GREY, labelcolor=GREY, labelsize=SMALL)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set(color=RULE, linewidth=0.6)


def _clock(seconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
