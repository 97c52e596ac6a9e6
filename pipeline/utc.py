"""Moments as text."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(unix_ns: int) -> str:
    """Return a moment, nanoseconds since 1970 UTC, as `2026-01-31T12:00:00.123Z`.

    Always of the same length, so that texts sort as their moments do.
    """
    seconds, rest_ns = divmod(unix_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"
