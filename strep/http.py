"""The daemon's HTTP interface: health, metrics and the list of open calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from strep.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strep.specs import Address


class HttpError(OSError):
    """An address that HTTP cannot be served on, in words for the operator."""


class Source(Protocol):
    """Who knows the answers."""

    async def health(self) -> Mapping[str, object]:
        """Return the document of `/healthz`; its `status` is `down` where nothing receives."""
        ...

    async def exposition(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        ...

    async def calls(self) -> str:
        """Return the document of `/v1/calls`, a text of JSON."""
        ...


def application(source: Source) -> web.Application:
    """Return the application.

    `GET /healthz` (JSON; 503 where nothing receives), `GET /metrics` (Prometheus) and
    `GET /v1/calls` (JSON).
    """

    async def healthz(_: web.Request) -> web.Response:
        document = await source.health()
        return web.json_response(document, status=503 if document["status"] == "down" else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await source.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def calls(_: web.Request) -> web.Response:
        return web.Response(text=await source.calls(), content_type="application/json")

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/metrics", metrics),
            web.get("/v1/calls", calls),
        ]
    )
    return app


async def start(app: web.Application, address: Address) -> web.AppRunner:
    """Serve the application; the caller ends it with `cleanup()`. Raises `HttpError`."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port).start()
    except OSError as error:
        await runner.cleanup()
        reason = error.strerror.rsplit(": ", 1)[-1] if error.strerror else str(error)
        raise HttpError(f"cannot serve HTTP on {address}: {reason}") from None
    return runner
