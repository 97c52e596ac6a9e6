"""The daemon's HTTP interface: health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from strep.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strep.metrics import Metrics
    from strep.specs import Address


class HttpError(OSError):
    """An address that HTTP cannot be served on, in words for the operator."""


def application(metrics: Metrics, health: Callable[[], Mapping[str, object]]) -> web.Application:
    """Return the application: `GET /healthz` (JSON) and `GET /metrics` (Prometheus)."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response(health())

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", exposition)])
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
