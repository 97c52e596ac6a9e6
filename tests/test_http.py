"""Serving HTTP, and what comes to a port that strangers can reach."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from contextlib import suppress
from functools import partial

import pytest
from aiohttp import web
from certificates import certificate
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from strep import http
from strep.config import Settings
from strep.http import HttpError, start
from strep.specs import Address, ConfigError
from strep.tls import load_tls


async def answer(_):
    return web.Response(text="well")


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request):
    """Serve on the event loop of the standard library, and on the daemon's."""
    new_loop = pytest.importorskip(request.param).new_event_loop
    return partial(_serve, new_loop)


def _serve(new_loop, scenario, handler=answer, tls=None):
    """Run a scenario, a coroutine function of the port; return the connections closed."""

    async def main():
        app = web.Application()
        app.add_routes([web.get("/", handler)])
        site = await start(app, Address("127.0.0.1", 0), tls)
        try:
            await scenario(site.addresses[0][1])
        finally:
            await site.cleanup()
        return site.closed

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


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
def test_what_is_no_http_is_refused_and_not_logged(serve, request_, caplog):
    async def scenario(port):
        assert (await exchange(port, request_)).startswith(b"HTTP/1.0 400 Bad Request\r\n")

    with caplog.at_level(logging.DEBUG, "strep.http"):
        serve(scenario)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_goes_wrong_here_is_logged(serve, caplog):
    async def broken(_):
        raise RuntimeError("ours")

    async def scenario(port):
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await exchange(port, request)).startswith(b"HTTP/1.1 500 ")

    serve(scenario, broken)
    assert [str(record.exc_info[1]) for record in caplog.records] == ["ours"]


def test_a_request_that_takes_for_ever_does_not_keep_the_end_from_coming(serve, monkeypatch):
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


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(http, "QUIET_S", 0.05)
    monkeypatch.setattr(http, "LOOK_S", 0.02)


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET", REQUEST, REQUEST + b"\r\n"])
@pytest.mark.usefixtures("hasty")
def test_quiet_connection_is_closed(serve, sent):
    async def scenario(port):
        answered = await exchange(port, sent)
        assert answered.startswith(b"HTTP/1.1 200 " if sent.endswith(b"\r\n\r\n") else b"")

    assert serve(scenario).quiet == 1


@pytest.mark.usefixtures("hasty")
def test_headers_that_trickle_in_do_not_hold_a_connection(serve):
    async def scenario(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"A: b\r\n")
            await asyncio.sleep(0.01)
        with suppress(ConnectionError):
            assert await ended == b""
        writer.close()

    assert serve(scenario).quiet == 1


@pytest.mark.usefixtures("hasty")
def test_request_that_is_worked_on_is_not_quiet(serve):
    async def slow(_):
        await asyncio.sleep(0.2)
        return web.Response(text="well")

    async def scenario(port):
        answered = await exchange(port, REQUEST + b"Connection: close\r\n\r\n")
        assert answered.endswith(b"well")

    assert serve(scenario, slow) == (0, 0)


def test_connections_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 2)

    async def scenario(port):
        first = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in first:
            writer.write(REQUEST)
        await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        for reader_, writer_ in first:
            writer_.write(b"Connection: close\r\n\r\n")
            assert (await reader_.read()).endswith(b"well")
            writer_.close()
        writer.close()

    assert serve(scenario).too_many == 1


def test_headers_are_bounded_in_number(serve):
    async def scenario(port):
        many = b"".join(b"A%d: b\r\n" % i for i in range(http.MAX_HEADERS + 2))
        assert (await exchange(port, REQUEST + many + b"\r\n")).startswith(b"HTTP/1.0 400 ")

    serve(scenario)


async def served_name(port):
    """Return the name in the certificate that is served, and the version of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(REQUEST + b"Connection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"well")
    session = writer.get_extra_info("ssl_object")
    made = x509.load_der_x509_certificate(session.getpeercert(binary_form=True))
    writer.close()
    return made.subject.rfc4514_string(), session.version()


def test_tls_is_served_and_its_certificate_renewed(serve, tmp_path):
    tls = load_tls(certificate(tmp_path, "old"))

    async def scenario(port):
        assert await served_name(port) == ("CN=old", "TLSv1.3")
        load_tls(certificate(tmp_path, "new"), tls)
        assert (await served_name(port))[0] == "CN=new"
        assert await exchange(port, REQUEST + b"\r\n") == b""

    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2
    serve(scenario, tls=tls)


@pytest.mark.parametrize("wrong", ["missing", "no certificate", "another's key", "password"])
def test_certificate_that_is_none_is_one_sentence(tmp_path, wrong):
    settings = certificate(tmp_path, "strep")
    pem, key = settings.http_tls_certificate, settings.http_tls_key
    match wrong:
        case "missing":
            key.unlink()
            expected = f"http_tls_key: {key}: cannot be read: No such file or directory"
        case "no certificate":
            pem.write_text("hello")
            expected = f"http_tls_certificate: {pem}: is no certificate in PEM of the key {key}: "
        case "another's key":
            (tmp_path / "other").mkdir()
            other = certificate(tmp_path / "other", "other")
            key.write_bytes(other.http_tls_key.read_bytes())
            expected = (
                f"http_tls_certificate: {pem}: is no certificate in PEM of the key {key}: "
                "key values mismatch"
            )
        case "password":
            secret = serialization.load_pem_private_key(key.read_bytes(), None)
            key.write_bytes(
                secret.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            )
            expected = f"http_tls_certificate: {pem}: is no certificate in PEM of the key {key}: "
    with pytest.raises(ConfigError) as error:
        load_tls(settings)
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_half_a_pair_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="are given together or not at all"):
        Settings(http_tls_key=tmp_path / "key.pem")
