"""The report as a file: everything in one HTML page that needs no network.

What came from the network stands in a block of JSON, in which no character means anything to HTML.
The page's own policy lets no other script run than ours, and nothing be loaded from elsewhere.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import soundfile

from strep import __version__
from strep.report.errors import ReportError
from strep.report.sound import MEDIA_TYPE, encoded, link, waves
from strep.report.view import View, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from strep.report.gather import Source

MAX_COLUMNS, MIN_COLUMNS = 24_000, 400
WAVE_BYTES = 24 * 2**20
"""For all waveforms of a report together; many calls share it."""


@dataclass(slots=True)
class Outcome:
    """What became of a report."""

    path: Path
    views: int = 0
    bytes: int = 0
    embedded: int = 0
    """Views whose audio stands in the page."""
    linked: int = 0
    """Views whose audio is played from its recording."""
    problems: list[str] = field(default_factory=list)
    """Recordings that could not be read, a sentence each."""


def write_report(
    sources: Iterable[Source],
    out: Path,
    *,
    title: str = "Calls",
    max_audio_mb: float = 20.0,
    progress: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Write a page about the calls of these manifests to `out`.

    At most `max_audio_mb` megabytes of audio stand in the page, those of the newest calls first;
    further recordings are linked. `progress` is told the fraction done. Raises `ReportError`.
    """
    shown = views(sources)
    outcome = Outcome(out, len(shown))
    lanes = sum(len(view.lanes) for view in shown)
    columns = max(MIN_COLUMNS, min(MAX_COLUMNS, WAVE_BYTES // (4 * max(1, lanes))))
    room = round(max_audio_mb * 1e6 * 3 / 4)  # base64 makes four characters of three bytes
    audio: list[bytes] = []
    for number, view in enumerate(shown):
        progress(number / len(shown))
        _add_waves(view, columns, outcome)

        def tell(done: float, number: int = number) -> None:
            progress((number + done) / len(shown))

        room -= _add_audio(view, room, audio, outcome, tell)
    document = {
        "version": __version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "title": title,
        "views": [view.document for view in shown],
    }
    content = page(document, audio, title).encode()
    part = out.with_name(out.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(out)
    except OSError as error:
        raise ReportError(f"cannot write {out}: {error.strerror}") from error
    outcome.bytes = len(content)
    return outcome


def page(document: dict[str, Any], audio: Iterable[bytes], title: str) -> str:
    """Return the page that shows a document of views, with files of audio in it."""
    texts = {name: (files(__package__) / f"page.{name}").read_text("utf-8") for name in _PARTS}
    style, script = texts["css"], texts["js"]
    policy = (
        "default-src 'none'; img-src data:; media-src blob: data: file: 'self'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "version": html.escape(__version__),
        "title": html.escape(f"{title} \N{MIDDLE DOT} call report"),
        "style": style,
        "script": script,
        "data": json_block(document),
        "audio": "\n".join(
            f'<script type="text/plain" id="audio-{n}">{base64.b64encode(each).decode()}</script>'
            for n, each in enumerate(audio)
        ),
    }
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], texts["html"])


def json_block(document: object) -> str:
    """Return JSON that is safe inside a script element: it holds no `<`, `>` nor `&`."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


_PARTS = ("html", "css", "js")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _add_waves(view: View, columns: int, outcome: Outcome) -> None:
    """Add the waveforms; recordings that cannot be read are left out of the view, and told."""
    for path in dict.fromkeys(placed.path for placed in view.recordings):
        own = [placed for placed in view.recordings if placed.path == path]
        try:
            lanes, end_s = waves(own, columns)
        except (OSError, soundfile.LibsndfileError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "error_string", str(error))
            if not path.exists():  # which libsndfile calls a system error
                reason = os.strerror(errno.ENOENT)
            outcome.problems.append(f"cannot read {path}: {reason}")
            view.document["note"] = f"The recording {path.name} could not be read: {reason}"
            view.recordings = [placed for placed in view.recordings if placed.path != path]
            continue
        for lane, found in zip(view.lanes, lanes, strict=False):
            lane["waves"] += found
        view.document["duration_s"] = max(view.document["duration_s"], end_s)


def _add_audio(
    view: View,
    room: int,
    audio: list[bytes],
    outcome: Outcome,
    progress: Callable[[float], None],
) -> int:
    """Give the view something to play; return how many bytes of the room it takes."""
    if not view.recordings:
        return 0
    in_order = sorted(view.recordings, key=lambda placed: placed.start_s)
    paths = {placed.path: placed.start_s for placed in in_order}
    try:
        content = encoded(view.recordings, room, progress)
    except (OSError, soundfile.LibsndfileError):
        content = None  # a libsndfile without Vorbis: the recordings themselves can be played
    if content is not None:
        source = {"embedded": len(audio), "type": MEDIA_TYPE, "start_s": 0.0}
        view.document["audio"] = {"kind": "embedded", "sources": {"both": [source]}}
        audio.append(content)
        outcome.embedded += 1
        return len(content)
    sides = {path: {p.lane for p in view.recordings if p.path == path} for path in paths}
    both = len(view.lanes) == 1 or any(len(lanes) > 1 for lanes in sides.values())
    sources: dict[str, list[dict[str, Any]]] = {}
    for path, start_s in paths.items():
        name = "both" if both else view.lanes[min(sides[path])]["direction"]
        piece = {"href": link(path, outcome.path), "start_s": start_s}
        sources.setdefault(name, []).append(piece)
    view.document["audio"] = {"kind": "linked", "sources": sources}
    view.document["note"] = (
        "The audio is played from its file, which must stay where it is beside this page."
    )
    outcome.linked += 1
    return 0
