from __future__ import annotations

from pipeline.utc import rfc3339


def test_moment_is_written_in_milliseconds_rounded_down():
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_767_225_599_999_999_999) == "2025-12-31T23:59:59.999Z"
