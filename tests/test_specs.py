from __future__ import annotations

from uuid import UUID

import pytest

from strep.specs import (
    Address,
    ConfigError,
    Listener,
    SinkSpec,
    parse_address,
    parse_listener,
    parse_sink,
    parse_sinks,
)

LEG = "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
NOT_AN_ADDRESS = "is not HOST:PORT (such as 0.0.0.0:9000 or [::1]:9000, ports 0 to 65535)"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:9000", Address("192.0.2.1", 9000)),
        ("[::1]:9000", Address("::1", 9000)),
        ("[fe80::1%eth0]:9000", Address("fe80::1%eth0", 9000)),
        ("localhost:0", Address("localhost", 0)),
        ("media-1.example.org:65535", Address("media-1.example.org", 65535)),
    ],
)
def test_address_reads_and_writes(text, address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9000",
        ":9000",
        "192.0.2.1",
        "0.0.0.0:",
        "0.0.0.0:-1",
        "0.0.0.0:65536",
        "0.0.0.0:٩",
        "0.0.0:9000",
        "0.0.0.256:9000",
        "::1:9000",
        "[::1]",
        "[]:9000",
        "[127.0.0.1]:9000",
        "[::g]:9000",
        "udp:0.0.0.0:9000",
        "a b:9000",
        "0.0.0.0:9000\n",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError) as raised:
        parse_address(text)
    assert str(raised.value) == f"{text!r} {NOT_AN_ADDRESS}"


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("wav", "wav", {}),
        ("wav:", "wav", {}),
        ("wav:layout=mono,encoding=source", "wav", {"layout": "mono", "encoding": "source"}),
        ("wav:directory=/a:b=c", "wav", {"directory": "/a:b=c"}),
        ("log:note=", "log", {"note": ""}),
        ("my.levels:Meter", "my.levels:Meter", {}),
        ("my.levels:Meter:window_ms=30", "my.levels:Meter", {"window_ms": "30"}),
    ],
)
def test_sink_reads(text, name, options):
    assert parse_sink(text) == SinkSpec(name=name, options=options)


def test_sinks_read():
    assert parse_sinks(["wav", "vad"]) == (SinkSpec(name="wav"), SinkSpec(name="vad"))
    assert parse_sinks(["none"]) == ()
    assert parse_sinks([]) == ()


def test_listener_reads():
    assert parse_listener("[::1]:9000") == Listener(listen=Address("::1", 9000))
    assert parse_listener(f"192.0.2.1:9002,leg=b,direction=INBOUND,call_leg_id={LEG}") == Listener(
        listen=Address("192.0.2.1", 9002), call_leg_id=UUID(LEG), leg="B", direction="inbound"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' {NOT_AN_ADDRESS}"),
        ("192.0.2.1:1,", "'' in '192.0.2.1:1,' is not key=value"),
        ("192.0.2.1:1,call_leg_id=7", f"call_leg_id: '7' is not a UUID, such as {LEG}"),
        ("192.0.2.1:1,leg=B", "leg B is given together with call_leg_id and direction"),
        ("192.0.2.1:1,listen=192.0.2.1:2", "'192.0.2.1:1,listen=192.0.2.1:2' gives listen twice"),
    ],
)
def test_what_is_no_listener_is_refused(text, message):
    with pytest.raises(ConfigError) as raised:
        parse_listener(text)
    assert str(raised.value) == message
