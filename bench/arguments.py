"""What the command lines of `bench`, `fuzz` and `faults` have in common.

Not that of `strep`, which brings all of its commands along: what is measured is to be small.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def between(low: float, high: float) -> Callable[[str], float]:
    """Return what reads a number of a range, for argparse: a whole one where `low` is an int."""
    number, kind = (int, "a whole number") if isinstance(low, int) else (float, "a number")

    def read(text: str) -> float:
        try:
            value: float = number(text)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {kind} from {low:,.15g} to {high:,.15g}")

    return read
