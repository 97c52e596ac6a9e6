"""Which call legs are paused, on disk, so that neither a worker's death nor the daemon's undoes it.

A file for each, named by its call_leg_id, in a folder of its own beside the recordings. Whoever
begins to receive reads them first.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".paused"
KEPT_S = 24 * 3600
"""How long a call leg stays paused that nobody resumes: longer than its call can last."""
MAX_PAUSED = 10_000
"""Call legs that may be paused at a time."""


class PauseError(RuntimeError):
    """It cannot be made sure that a call leg is paused, or resumed."""


class PauseFiles:
    """The files of paused call legs. `recordings` is the folder that theirs is in."""

    def __init__(self, recordings: Path) -> None:
        self._folder = recordings / FOLDER

    def legs(self) -> set[UUID]:
        """Return the paused call legs, and remove the files of those that are long over."""
        legs = set()
        with suppress(OSError):  # there is no folder before the first pause
            for file in self._folder.iterdir():
                with suppress(OSError, ValueError):
                    leg = UUID(file.name)
                    if file.stat().st_mtime < time.time() - KEPT_S:
                        file.unlink()
                    else:
                        legs.add(leg)
        return legs

    def put(self, call_leg_id: UUID) -> None:
        """Note that a leg is paused; on disk when this returns. Raises OSError and `PauseError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / str(call_leg_id)
        if not file.exists() and len(self.legs()) >= MAX_PAUSED:
            raise PauseError(f"{MAX_PAUSED} call legs are paused already, which are as many as can")
        file.touch()
        self._sync()

    def remove(self, call_leg_id: UUID) -> None:
        """Note that a leg is not paused any more. Raises OSError."""
        (self._folder / str(call_leg_id)).unlink(missing_ok=True)

    def _sync(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
