"""Serving HTTP, and what comes to a port that strangers can reach."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import pytest
from aiohttp import web

from strep import http
from strep.http import HttpError, start
from strep.specs import Address


async def answer(_):
    return web.Response(text="well")


def serve(scenario, handler=answer):
    """Run a scenario, a coroutine function of the port."""

    async def main():
        app = web.Application()
        app.add_routes([web.get("/", handler)])
        runner = await start(app, Address("127.0.0.1", 0))
        try:
            await scenario(runner.addresses[0][1])
        finally:
            await runner.cleanup()

    asyncio.run(main())


async def exchange(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answered = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answered


def test_address_in_use_is_one_sentence():
    async def main(port):
        with pytest.raises(HttpError) as error:
            await start(web.Application(), Address("127.0.0.1", port))
        assert str(error.value) == (
            f"cannot serve HTTP on 127.0.0.1:{port}: address already in use"
        )

    with socket.create_server(("127.0.0.1", 0)) as taken:
        asyncio.run(main(taken.getsockname()[1]))


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_not_logged(request_, caplog):
    async def scenario(port):
        assert (await exchange(port, request_)).startswith(b"HTTP/1.0 400 Bad Request\r\n")

    with caplog.at_level(logging.DEBUG, "strep.http"):
        serve(scenario)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_goes_wrong_here_is_logged(caplog):
    async def broken(_):
        raise RuntimeError("ours")

    async def scenario(port):
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await exchange(port, request)).startswith(b"HTTP/1.1 500 ")

    serve(scenario, broken)
    assert [str(record.exc_info[1]) for record in caplog.records] == ["ours"]


def test_a_request_that_takes_for_ever_does_not_keep_the_end_from_coming(monkeypatch):
    monkeypatch.setattr(http, "SHUTDOWN_TIMEOUT_S", 0.05)
    began = asyncio.Event()

    async def stuck(_):
        began.set()
        await asyncio.Event().wait()

    async def scenario(port):
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await began.wait()

    began_s = time.monotonic()
    with socket.socket() as sock:
        serve(scenario, stuck)
    assert time.monotonic() - began_s < 20
