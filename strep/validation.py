"""Checks for fields of pydantic models whose errors say what would have been right.

Each check returns the converted value or raises ValueError with a sentence of the form `'x' is
not a whole number from 1 to 10`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

from pydantic import PlainValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator


def shown(value: object) -> str:
    """Return the value as errors quote it: on one line and not endless."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_text(value: object, expected: str) -> str:
    """Check for a text; `expected` says of what."""
    if isinstance(value, str):
        return value
    raise ValueError(f"{shown(value)} is not {expected}")


def as_uuid(value: object) -> UUID:
    """Check for a UUID."""
    try:
        return value if isinstance(value, UUID) else UUID(as_text(value, "a UUID"))
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not a UUID, such as 0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
        ) from None


def as_folder(value: object) -> Path:
    """Check for what can name a folder, whether or not there is one."""
    name = str(value) if isinstance(value, Path) else as_text(value, "a folder")
    if not name or "\0" in name:
        raise ValueError(f"{shown(value)} is not a folder")
    return Path(name)


def as_file(value: object) -> Path:
    """Check for what can name a file, whether or not there is one."""
    name = str(value) if isinstance(value, Path) else as_text(value, "a file")
    if not name or "\0" in name:
        raise ValueError(f"{shown(value)} is not a file")
    return Path(name)


def one_of(literal: Any) -> PlainValidator:
    """Return a validator for the texts of a Literal, in lower or upper case."""
    choices: tuple[str, ...] = get_args(literal)

    def check(value: object) -> str:
        for choice in choices:
            if isinstance(value, str) and value.casefold() == choice.casefold():
                return choice
        raise ValueError(f"{shown(value)} is not {', '.join(choices[:-1])} or {choices[-1]}")

    return PlainValidator(check)


@dataclass(frozen=True)
class Between:
    """Checks for a number of a range: a whole one where `low` is an int."""

    low: float
    high: float

    def __call__(self, value: object, convert: ValidatorFunctionWrapHandler) -> Any:
        """Return the number."""
        try:
            # True would be converted to 1.
            number = None if isinstance(value, bool) else convert(value)
        except (ValidationError, OverflowError):
            number = None
        if number is None or not self.low <= number <= self.high:
            kind = "a whole number" if isinstance(self.low, int) else "a number"
            raise ValueError(f"{shown(value)} is not {kind} from {self}")
        return number

    def __str__(self) -> str:
        """`5 to 120`."""
        return f"{self.low:.12g} to {self.high:.12g}"


def between(low: float, high: float) -> WrapValidator:
    """Return a validator for the numbers of a range: whole ones where `low` is an int."""
    return WrapValidator(Between(low, high))
