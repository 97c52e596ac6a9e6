"""Why there is no connection: real refusals of the system, the resolver and TLS, in words."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager

import aiohttp
import pytest
from certificates import certificate
from loopback import free_port

from strep.tls import load_tls
from strep.unreachable import reason_of


def reason(url, serve=None):
    """Return what is said of `url`, while `serve` serves."""

    @asynccontextmanager
    async def nobody():
        yield

    async def asked():
        async with (serve or nobody)(), aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError) as raised:
                await session.get(url)
            return reason_of(raised.value)

    return asyncio.run(asked())


def serving(port, context=None):
    async def hear(_reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    @asynccontextmanager
    async def serve():
        async with await asyncio.start_server(hear, "127.0.0.1", port, ssl=context):
            yield

    return serve


def test_port_that_nobody_listens_on():
    port = free_port(socket.SOCK_STREAM)
    assert reason(f"http://127.0.0.1:{port}/") == "Connection refused"


def test_name_that_there_is_not():
    # resolvers differ in their words, and may be out of reach themselves
    said = reason("http://no-such-host.invalid/")
    assert "Cannot connect" not in said
    assert "ssl" not in said


def test_server_without_tls():
    port = free_port(socket.SOCK_STREAM)
    said = reason(f"https://127.0.0.1:{port}/", serving(port))
    assert said == "TLS: wrong version number"


def test_certificate_of_nobody_that_is_trusted(tmp_path):
    context = load_tls(certificate(tmp_path, "localhost"))
    port = free_port(socket.SOCK_STREAM)
    said = reason(f"https://127.0.0.1:{port}/", serving(port, context))
    assert said == "its certificate is not trusted: self-signed certificate"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (OSError("no number"), "no number"),
        (ssl.SSLError("no reason"), "('no reason',)"),
        (aiohttp.ClientPayloadError(), "ClientPayloadError"),
    ],
)
def test_other_errors(error, said):
    assert reason_of(error) == said
