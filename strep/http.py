"""Serving an aiohttp application on an address."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from strep.specs import Address

SHUTDOWN_TIMEOUT_S = 3.0
"""How long requests under way are waited for at the end."""


class HttpError(OSError):
    """An address that HTTP cannot be served on, in words for the operator."""


async def start(app: web.Application, address: Address) -> web.AppRunner:
    """Serve the application; the caller ends it with `cleanup()`. Raises `HttpError`."""
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        logger=_logger,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port).start()
    except OSError as error:
        await runner.cleanup()
        reason = error.strerror.rsplit(": ", 1)[-1] if error.strerror else str(error)
        raise HttpError(f"cannot serve HTTP on {address}: {reason}") from None
    return runner


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether it is no stranger's doing: aiohttp shows a traceback of what is no HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_logger = logging.getLogger("strep.http")
_logger.addFilter(_is_ours)
