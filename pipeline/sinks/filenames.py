"""Names of recordings, made from a template.

    {time:%Y/%m/%d}/{from}-{to}-{call_leg_id}-{leg}

What a field brings came from the network in the end: only letters, digits and `._+-` of it are
kept, at most `FIELD_CHARACTERS` of them, and no component of the path begins with a dot. Folders
come from the template alone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from string import Formatter
from typing import TYPE_CHECKING, Any

from pipeline.sinks.base import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.block import Track

FIELD_CHARACTERS = 64
"""The longest that a field gets."""
COMPONENT_CHARACTERS = 200
"""The longest that a file or folder may be named; most file systems take 255, suffixes included."""
UNKNOWN = "unknown"
"""What stands for a fact that nobody has told when the file is made."""

_FACTS = ("call_control_id", "call_session_id", "connection_id", "from", "to")
_TIMES = {"time": "%Y%m%dT%H%M%SZ", "date": "%Y-%m-%d"}
FIELDS = (*_TIMES, "call_leg_id", "leg", "direction", "segment", *_FACTS)


class FileNames:
    """A template, checked; raises `SinkError` where it is none.

    `is_mono` tells whether each file has one track, so that `{direction}` says something.
    """

    def __init__(self, template: str, *, is_mono: bool) -> None:
        self._parts: list[tuple[str, str | None, str]] = []
        """Literal text, the field behind it, and how a time is written."""
        try:
            parsed = list(Formatter().parse(template))
        except ValueError as error:
            raise SinkError(f"file_name={template} is no template: {error}") from None
        for literal, field, form, conversion in parsed:
            if conversion or (form and field not in _TIMES):
                raise SinkError(
                    f"file_name={template} is wrong: {{{field}}} is written without ! and :"
                )
            if field is not None and field not in FIELDS:
                known = ", ".join(each for each in FIELDS if is_mono or each != "direction")
                raise SinkError(f"file_name={template} has no field {{{field}}}: there are {known}")
            self._parts.append((literal, field, form or _TIMES.get(field or "", "")))
        fields = {field for _, field, _ in self._parts}
        if "direction" in fields and not is_mono:
            raise SinkError(
                f"file_name={template} is wrong: both directions are in one file, unless"
                " layout=mono"
            )
        if "call_leg_id" not in fields:
            raise SinkError(
                f"file_name={template} could name two calls at the same time alike: it needs"
                " {call_leg_id}"
            )
        self._check_path(template)

    def stem(self, track: Track, facts: Mapping[str, Any]) -> str:
        """Return the path without suffix of a file that begins with this track, folders included.

        `facts` are what is known of its call.
        """
        values = {
            "call_leg_id": str(track.call_leg_id),
            "leg": track.leg.lower(),
            "direction": track.direction,
            "segment": getattr(track, "segment", 0),
            **{name: facts.get(name) for name in _FACTS},
        }
        opened = datetime.fromtimestamp(track.opened_unix_ns // 1_000_000_000, UTC)
        return self._fill(values, opened)

    def _fill(self, values: Mapping[str, object], opened: datetime) -> str:
        text = ""
        for literal, field, form in self._parts:
            text += literal
            if field in _TIMES:
                text += re.sub(r"[^A-Za-z0-9._+/-]", "_", opened.strftime(form))
            elif field is not None:
                value = values[field]
                text += _safe(UNKNOWN if value in (None, "") else str(value))
        return "/".join(re.sub(r"^\.+", "_", part) for part in text.split("/"))

    def _check_path(self, template: str) -> None:
        """Raise `SinkError` unless a path of the longest fields is one that can be had."""
        literals = "".join(literal for literal, _, _ in self._parts)
        if wrong := re.search(r"[^A-Za-z0-9._+/-]", literals):
            raise SinkError(
                f"file_name={template} is wrong: {wrong[0]!r} is none of the letters, digits and"
                " ._+-/ that there may be around fields"
            )
        longest = dict.fromkeys(FIELDS, "x" * FIELD_CHARACTERS)
        longest |= {"call_leg_id": "x" * 36, "leg": "a", "direction": "outbound", "segment": "9999"}
        example = self._fill(longest, datetime(2026, 12, 31, tzinfo=UTC)).split("/")
        plain = "".join(
            literal + ("" if field is None else "x") for literal, field, _ in self._parts
        )
        dotted = any(part.startswith(".") for part in plain.split("/"))
        if "" in example or dotted:
            raise SinkError(
                f"file_name={template} is wrong: the path is to be relative, without empty parts"
                " or parts that begin with a dot"
            )
        if (length := max(map(len, example))) > COMPONENT_CHARACTERS:
            raise SinkError(
                f"file_name={template} makes names of {length} characters, expected"
                f" {COMPONENT_CHARACTERS} at most"
            )


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text[:FIELD_CHARACTERS])
