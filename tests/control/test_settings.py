from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from strep.control.calls import Call
from strep.control.forks import ForkParameterError
from strep.control.ports import PortPair
from strep.control.settings import AutoFork, ControlSettings, PortRange

KEY = "zr0fOJ3kCqv1FJrnJ2nWTIqqJjSaMHaHvrxGL+7zNpQ="
PORTS = {"port_range": "20000-20999", "advertised_host": "192.0.2.1"}


def make(**what):
    return ControlSettings(**{"webhook_public_key": KEY} | what)


def sentence(**what):
    with pytest.raises(ValidationError) as raised:
        make(**what)
    (error,) = raised.value.errors()
    return error["msg"].removeprefix("Value error, ")


def test_defaults():
    settings = make()
    assert settings.model_dump() == {
        "api_key_file": None,
        "base_url": "https://api.telnyx.com/v2",
        "command_timeout_s": 30.0,
        "max_commands": 20,
        "webhook_public_key": KEY,
        "allow_unsigned_webhooks": False,
        "fork_way": "target",
        "stream_type": "raw",
        "media_target": None,
        "port_range": None,
        "port_host": "0.0.0.0",  # noqa: S104 -- the default
        "advertised_host": None,
        "port_cooldown_s": 30.0,
        "first_media_timeout_s": 10.0,
        "retry_forks": 0,
        "stop_grace_s": 1.0,
        "auto_fork": (),
        "max_forks": 16_384,
        "admission": "any",
        "pending_leg_s": 10.0,
    }


def test_texts_are_converted():
    settings = make(
        api_key_file="/etc/strep/key",
        max_commands="5",
        fork_way="PORTS",
        stream_type="decrypted",
        media_target="udp:192.0.2.1:09000",
        port_range="20000-20001",
        advertised_host="192.0.2.2",
        auto_fork="7267; *,direction=incoming,from=+49*,to=sip:*",
        admission="Known",
    )
    assert settings.api_key_file == Path("/etc/strep/key")
    assert settings.max_commands == 5
    assert (settings.fork_way, settings.admission) == ("ports", "known")
    assert settings.media_target == "udp:192.0.2.1:9000"
    assert settings.port_range == PortRange(20_000, 20_001)
    assert str(settings.port_range) == "20000-20001"
    assert settings.auto_fork == (
        AutoFork(connection_id="7267"),
        AutoFork(connection_id="*", direction="incoming", from_="+49*", to="sip:*"),
    )


def test_settings_are_read_back_from_their_values():
    settings = make(media_target="udp:192.0.2.1:9000", auto_fork=["1,from=+49*"], **PORTS)
    assert ControlSettings(**dict(settings)) == settings


def test_rule_may_be_a_table():
    settings = make(
        media_target="udp:192.0.2.1:9000", auto_fork=[{"connection_id": "1", "from": "+4930*"}]
    )
    assert settings.auto_fork == (AutoFork(connection_id="1", from_="+4930*"),)


PORT_RANGE = "is not LOW-HIGH, ports from 1024 to 65535 such as 20000-20999"
MISSING_KEY = (
    "webhook_public_key is missing: give the carrier's, or run without one by"
    " allow_unsigned_webhooks"
)
TARGET = "is not udp:IP:PORT (such as udp:192.0.2.1:9000, ports 1 to 65535)"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"api_key_file": ""}, "'' is not a file"),
        (
            {"base_url": "api.example.com"},
            "'api.example.com' is not a URL that begins with http:// or https://",
        ),
        ({"command_timeout_s": 0}, "0 is not a number from 0.1 to 600"),
        ({"max_commands": 0}, "0 is not a whole number from 1 to 1000"),
        ({"webhook_public_key": "c2hvcnQ="}, "the key is not 32 bytes in base64 (44 characters)"),
        ({"webhook_public_key": 7}, "the key is not 32 bytes in base64 (44 characters)"),
        ({"fork_way": "tcp"}, "'tcp' is not target or ports"),
        ({"stream_type": "mixed"}, "'mixed' is not raw or decrypted"),
        ({"media_target": "192.0.2.1:9000"}, f"'192.0.2.1:9000' {TARGET}"),
        (
            {"media_target": "udp:0.0.0.0:9000"},
            "0.0.0.0 is no address that a carrier can send to",
        ),
        ({"port_range": "20000"}, f"'20000' {PORT_RANGE}"),
        ({"port_range": "1000-2000"}, f"'1000-2000' {PORT_RANGE}"),
        ({"port_range": "2000-1999"}, f"'2000-1999' {PORT_RANGE}"),
        ({"port_range": "20000-65536"}, f"'20000-65536' {PORT_RANGE}"),
        (
            {"port_range": "20001-20002"},
            "'20001-20002' holds no pair of an even port and the next one",
        ),
        ({"advertised_host": "example.com"}, "'example.com' is not an IP address"),
        ({"advertised_host": "::"}, ":: is no address that a carrier can send to"),
        ({"port_host": ""}, "'' is not an IP address"),
        ({"first_media_timeout_s": "soon"}, "'soon' is not a number from 0.1 to 600"),
        ({"retry_forks": 11}, "11 is not a whole number from 0 to 10"),
        ({"auto_fork": [""]}, "'' is not a pattern such as +4930* or *"),
        ({"auto_fork": ["1,from"]}, "'from' in '1,from' is not key=value"),
        ({"auto_fork": ["1,to=2,to=3"]}, "'1,to=2,to=3' gives to twice"),
        ({"auto_fork": ["1,direction=up"]}, "'up' is not any, incoming or outgoing"),
        ({"auto_fork": [7]}, "7 is not CONNECTION_ID[,key=value,...] or a table"),
        ({"admission": "none"}, "'none' is not any or known"),
        (
            {"webhook_public_key": None},
            MISSING_KEY,
        ),
        (
            {"allow_unsigned_webhooks": True},
            "webhook_public_key and allow_unsigned_webhooks exclude each other",
        ),
        (
            {"port_range": "20000-20001"},
            "port_range and advertised_host are given together or not at all",
        ),
        (
            PORTS | {"port_host": "::"},
            "port_host and advertised_host are of different IP versions",
        ),
        ({"stream_type": "decrypted"}, "stream_type decrypted needs fork_way ports"),
        ({"auto_fork": ["*"]}, "auto_fork with fork_way target needs media_target"),
        (
            {"auto_fork": ["*"], "fork_way": "ports"},
            "auto_fork with fork_way ports needs port_range and advertised_host",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(what, expected):
    assert sentence(**what) == expected


def test_key_that_is_none_is_not_quoted():
    with pytest.raises(ValidationError) as raised:
        make(webhook_public_key="KEY0123456789_secret")
    assert "KEY0123456789_secret" not in raised.value.errors()[0]["msg"]


def test_shared_port_and_port_pairs_are_told_to_the_carrier():
    settings = make(media_target="udp:192.0.2.1:9000", **PORTS)
    assert settings.targets(None) == {"target": "udp:192.0.2.1:9000"}
    assert settings.targets(PortPair(20_000, 20_001)) == {
        "rx": "udp:192.0.2.1:20000",
        "tx": "udp:192.0.2.1:20001",
    }
    six = make(port_range="20000-20001", advertised_host="2001:db8::1", port_host="::")
    assert six.targets(PortPair(20_000, 20_001))["rx"] == "udp:[2001:db8::1]:20000"


@pytest.mark.parametrize(
    ("defaults", "asked", "chosen"),
    [
        ({}, (None, None), ("target", "raw")),
        ({}, (None, "decrypted"), ("ports", "decrypted")),
        ({}, ("ports", None), ("ports", "raw")),
        ({"fork_way": "ports", "stream_type": "decrypted"}, (None, None), ("ports", "decrypted")),
        ({"fork_way": "ports", "stream_type": "decrypted"}, ("target", None), ("target", "raw")),
        ({"fork_way": "ports", "stream_type": "decrypted"}, (None, "raw"), ("ports", "raw")),
    ],
)
def test_what_a_fork_is_like_where_it_was_not_said(defaults, asked, chosen):
    assert make(media_target="udp:192.0.2.1:9000", **PORTS, **defaults).choose(*asked) == chosen


def test_way_without_its_place_in_the_settings_cannot_be_chosen():
    with pytest.raises(ForkParameterError, match=r"^a fork by target needs media_target in the"):
        make().choose(None, None)


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (AutoFork(connection_id="7267"), True),
        (AutoFork(connection_id="72"), False),
        (AutoFork(connection_id="*", direction="any"), True),
        (AutoFork(connection_id="*", direction="outgoing"), False),
        (AutoFork(connection_id="*", from_="+49*"), True),
        (AutoFork(connection_id="*", to="+*"), False),
        (AutoFork(connection_id="*", to="*"), True),
    ],
)
def test_rule_fits_a_call_that_has_all_it_names(rule, fits):
    call = Call(
        started_ns=0, heard_ns=0, connection_id="7267", from_="+4930123", direction="incoming"
    )
    assert rule.fits(call) is fits


def test_call_of_unknown_direction_fits_no_rule_for_one():
    call = Call(started_ns=0, heard_ns=0, connection_id="7267")
    assert not AutoFork(connection_id="*", direction="incoming").fits(call)
    assert AutoFork(connection_id="*").fits(call)
