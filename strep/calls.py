"""The list of open calls, made in small pieces: it shares the receive loop with the packets."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from uuid import UUID

    from pipeline.block import Track
    from pipeline.pipeline import Pipeline

CALLS_AT_ONCE = 16
"""A millisecond or two of work between turns of the loop."""


async def open_calls(
    pipeline: Pipeline, worker: int, facts: Callable[[UUID], Mapping[str, Any] | None]
) -> AsyncIterator[str]:
    """Give out the open calls as JSON objects, some at a time, separated by commas.

    Each has its `call_leg_id`, the `worker` that receives it, its open `tracks`, and whatever
    `facts` knows of its call leg.
    """
    legs: dict[int, list[Track]] = {}
    for track in pipeline.tracks.values():
        legs.setdefault(track.call_leg_id.int, []).append(track)  # a UUID's own hash is slow
    rest = iter(legs.values())
    while some := list(islice(rest, CALLS_AT_ONCE)):
        calls = [
            {
                **(facts(tracks[0].call_leg_id) or {}),
                "call_leg_id": str(tracks[0].call_leg_id),
                "worker": worker,
                "tracks": entries,
            }
            for tracks in some
            if (entries := [_entry(pipeline, t) for t in tracks if _is_open(pipeline, t)])
        ]
        if calls:
            yield json.dumps(calls)[1:-1]
        await asyncio.sleep(0)


def _is_open(pipeline: Pipeline, track: Track) -> bool:
    """Tell whether the track has not been closed since the list was begun."""
    return pipeline.tracks.get(track.row) is track


def _entry(pipeline: Pipeline, track: Track) -> dict[str, Any]:
    now = pipeline.summary(track.row, "end")
    return {
        "leg": track.leg,
        "direction": track.direction,
        "source": track.source,
        "destination": track.destination,
        "ssrc": f"{now.ssrcs[-1]:#010x}",
        "codec": now.codec,
        "sample_rate_hz": now.sample_rate_hz,
        "opened_at": rfc3339(track.opened_unix_ns),
        "duration_s": round(now.duration_s, 3),
        "packets": now.packets,
        "lost": now.lost,
        "jitter_mean_ms": round(now.jitter_mean_ms, 3),
    }
