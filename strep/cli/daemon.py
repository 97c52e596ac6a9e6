"""How commands ask a running daemon: by its HTTP interface."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from strep.cli.errors import FailureError, WrongInputError
from strep.unreachable import reason_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

DAEMON = "http://127.0.0.1:8080"
DAEMON_VARIABLE = "STREP_DAEMON"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 660.0
"""A command to the carrier may take ten minutes, where the daemon is told so."""


def add_daemon(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which daemon is asked."""
    parser.add_argument(
        "--daemon",
        metavar="URL",
        default=os.environ.get(DAEMON_VARIABLE) or DAEMON,
        help=f"where the daemon serves HTTP (default: {DAEMON_VARIABLE}, or else {DAEMON})",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the daemon's token (default: STREP_HTTP_TOKEN, or the file that"
        " STREP_HTTP_TOKEN_FILE names)",
    )


def ask(
    arguments: argparse.Namespace, method: str, path: str, body: Mapping[str, Any] | None = None
) -> Any:
    """Return the daemon's answer. Raises `WrongInputError` or `FailureError` with its words."""
    from strep.api.access import find_token  # noqa: PLC0415 -- other commands start without it

    daemon = _checked_url(arguments.daemon)
    token = find_token(arguments.token_file, os.environ)
    headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
    try:
        status, content = asyncio.run(_exchange(method, daemon + path, body, headers))
    except OSError as error:
        raise FailureError(f"no daemon answers at {daemon}: {reason_of(error)}") from None
    if status == 401:
        raise WrongInputError(
            f"{daemon} asks for another token: set STREP_HTTP_TOKEN to it, or give --token-file"
        )
    try:
        document = json.loads(content)
        if status < 300:
            return document
        detail = document["detail"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise FailureError(f"{daemon} answers {status}, but not as a strep daemon does") from None
    raise (FailureError if status >= 500 else WrongInputError)(detail)


async def _exchange(
    method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Return status and body of the answer. Raises OSError."""
    import aiohttp  # noqa: PLC0415 -- other commands start without it

    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            # A redirect would take the token elsewhere.
            session.request(method, url, json=body, allow_redirects=False) as response,
        ):
            return response.status, await response.read()
    except aiohttp.ClientError as error:
        raise error if isinstance(error, OSError) else OSError(str(error)) from None


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme in {"http", "https"} and parts.netloc:
        return text.rstrip("/")
    raise WrongInputError(f"--daemon: {text!r} is not the URL of a daemon, such as {DAEMON}")
