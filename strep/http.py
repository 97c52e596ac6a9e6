"""Serving an aiohttp application on an address, with bounds on what strangers can hold."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from strep.specs import Address

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Refuse = Callable[[int, str], web.StreamResponse]
    """Makes the answer to what is no HTTP request, of a status and a reason."""

SHUTDOWN_TIMEOUT_S = 3.0
"""How long requests under way are waited for at the end."""
QUIET_S = 15.0
"""How long a connection may be without a request under way: before its first one, between two,
while the lines of one trickle in, and while an answer is not taken."""
LOOK_S = 1.0
"""How often such connections are looked for."""
HANDSHAKE_S = 10.0
"""How long TLS may take to agree."""
MAX_CONNECTIONS = 256
"""Connections at once; further ones are closed as they come."""
MAX_LINE_BYTES = 8190
"""Of the request line and of each header."""
MAX_HEADERS = 100


class HttpError(OSError):
    """An address that HTTP cannot be served on, in words for the operator."""


class ConnectionsClosed(NamedTuple):
    """Connections that were closed without an answer."""

    too_many: int = 0
    """As they came, because there were too many."""
    quiet: int = 0
    """Because they were quiet for too long."""


class Site:
    """An application that is served until `cleanup`."""

    def __init__(self, app: web.Application, refuse: Refuse) -> None:
        """Take the application, which is not used elsewhere; `refuse` as for `start`."""
        self.closed = ConnectionsClosed()
        self._refuse = refuse
        self._options: dict[str, Any] = {
            "access_log": None,
            "logger": _logger,
            "keepalive_timeout": 4 * QUIET_S,  # so that it is closed, and counted, here
            "max_line_size": MAX_LINE_BYTES,
            "max_field_size": MAX_LINE_BYTES,
            "max_headers": MAX_HEADERS,
        }
        self._busy: dict[asyncio.BaseProtocol, int] = {}
        """How many requests are under way on each connection that has any."""
        self._quiet_since_s: dict[asyncio.BaseProtocol, float] = {}
        app.middlewares.insert(0, self._count_request)
        self._runner = web.AppRunner(
            app, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT_S, **self._options
        )
        self._server: asyncio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> Sequence[Any]:
        """The addresses that are listened on, as sockets name them."""
        sockets = () if self._server is None else self._server.sockets
        return [sock.getsockname() for sock in sockets]

    async def start(self, address: Address, tls: ssl.SSLContext | None) -> None:
        """Begin to listen; raises OSError."""
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._connect,
            address.host,
            address.port,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
        )
        self._watcher = asyncio.create_task(self._watch())

    async def cleanup(self) -> None:
        """Take no more connections, and close those that there are."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _connect(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None  # noqa: S101 -- `setup` made it
        if len(server.connections) >= MAX_CONNECTIONS:
            self.closed = self.closed._replace(too_many=self.closed.too_many + 1)
            return _Refusal()
        loop = asyncio.get_running_loop()
        return _Connection(server, self._refuse, loop=loop, **self._options)

    @web.middleware
    async def _count_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        self._busy[connection] = self._busy.get(connection, 0) + 1
        try:
            return await handler(request)
        finally:
            self._busy[connection] -= 1
            if not self._busy[connection]:
                del self._busy[connection]

    async def _watch(self) -> None:
        """Close connections that have been quiet for too long."""
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None  # noqa: S101 -- `setup` made it
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = loop.time()
            quiet = [each for each in server.connections if each not in self._busy]
            before, self._quiet_since_s = self._quiet_since_s, {}
            for connection in quiet:
                since_s = before.get(connection, now_s)
                self._quiet_since_s[connection] = since_s
                if now_s - since_s > QUIET_S:
                    self.closed = self.closed._replace(quiet=self.closed.quiet + 1)
                    connection.force_close()


class _Connection(web.RequestHandler):
    """A connection on which what is no HTTP request is answered as all else is."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse, **options: Any) -> None:
        super().__init__(server, **options)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)
        # the first line; further ones show where in the bytes it was
        reason = (message or "").partition("\n")[0].rstrip(": ")
        answer = self._refuse(status, reason or HTTPStatus(status).phrase)
        answer.force_close()
        return answer


class _Refusal(asyncio.Protocol):
    """A connection that is closed as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # not by its class: those of uvloop are none of asyncio's
        cast("asyncio.WriteTransport", transport).abort()


def _plainly(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=f"{reason}\n")


async def start(
    app: web.Application,
    address: Address,
    tls: ssl.SSLContext | None = None,
    *,
    refuse: Refuse = _plainly,
) -> Site:
    """Serve the application; the caller ends it with `cleanup()`. Raises `HttpError`.

    `refuse` makes the answer to what is no HTTP request, which never comes to the application.
    """
    site = Site(app, refuse)
    try:
        await site.start(address, tls)
    except OSError as error:
        await site.cleanup()
        reason = error.strerror.rsplit(": ", 1)[-1] if error.strerror else str(error)
        raise HttpError(f"cannot serve HTTP on {address}: {reason}") from None
    return site


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether it is no stranger's doing: aiohttp shows a traceback of what is no HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_logger = logging.getLogger("strep.http")
_logger.addFilter(_is_ours)
