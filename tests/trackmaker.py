"""A track for tests."""

from __future__ import annotations

from uuid import UUID

from pipeline.block import Track

CALL_LEG_ID = UUID("0ccc7b54-4df3-4bca-a65a-3da1ecc777f0")


def track(row: int = 0, *, generation: int = 0, ssrc: int = 1) -> Track:
    """Return a track of leg A, inbound, that was opened at 0."""
    return Track(
        row=row,
        generation=generation,
        call_leg_id=CALL_LEG_ID,
        leg="A",
        direction="inbound",
        opened_ns=0,
        opened_unix_ns=0,
        source="192.0.2.1:4000",
        destination="192.0.2.2:9000",
        ssrc=ssrc,
    )
