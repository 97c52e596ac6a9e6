"""Errors that commands end with, each one sentence for whoever ran them."""

from __future__ import annotations


class WrongInputError(Exception):
    """What was asked for is wrong: exit code 2."""


class FailureError(Exception):
    """What was asked for could not be done: exit code 1."""
