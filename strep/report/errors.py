"""What goes wrong with reports."""

from __future__ import annotations


class ReportError(Exception):
    """A report cannot be made; the message is one sentence for whoever asked for it."""
