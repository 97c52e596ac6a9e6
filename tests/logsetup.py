"""What `strep.logs.configure` changes in the whole process, put back afterwards."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import structlog


@contextmanager
def restored_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # the root logger closes what it loses; pytest needs its own handlers afterwards
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
