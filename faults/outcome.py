"""What a fault is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

Say: TypeAlias = Callable[[str], None]
"""Takes what a fault is doing just now, for a person who waits."""


class CannotRunError(RuntimeError):
    """This machine cannot be hurt so, for a reason that is said."""


@dataclass(slots=True)
class Outcome:
    """What was done, how often, what was lost, and what may be at most."""

    done: str
    times: int
    lost: str
    bound: str
    wrong: list[str] = field(default_factory=list)
    """What is beyond the bound, in words; nothing where all is well."""
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Whether the bound was kept."""
        return not self.wrong


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to hurt a daemon: `run(folder, times, say)` does it so often."""

    name: str
    run: Callable[[Path, int, Say], Outcome]
    times: int
    """How often for the whole table..."""
    quick: int
    """...and with `--quick`, and in the tests."""
