from __future__ import annotations

import tomllib
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.formats import Format
from strep.config import (
    Address,
    ConfigError,
    Listener,
    Settings,
    SinkSpec,
    load,
    parse_address,
)
from strep.control.settings import AutoFork, ControlSettings

OPUS = Format("opus", 48_000)
LEG = "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
NOT_AN_ADDRESS = "is not HOST:PORT (such as 0.0.0.0:9000 or [::1]:9000, ports 0 to 65535)"

KEYS = {"sink" if key == "sinks" else key for key in Settings.model_fields}
DEFAULTS = """\
http = "127.0.0.1:8080"
http_token_file = "none"
http_tls_certificate = "none"
http_tls_key = "none"
recordings = "recordings"
database = "auto"
keep_calls_days = "none"
workers = 1
max_tracks = 16384
idle_timeout_s = 120.0
drain_timeout_s = 0.0
reorder_ms = 60
max_gap_s = 120.0
max_ahead_s = 2.0
concealment = "silence"
comfort_noise = "silence"
mouth_to_ear_ms = 0.0
allowed_sources = []
new_tracks_per_s = 1000.0
new_tracks_burst = 8192
source_timeout_s = 1.0
telephone_event_payload_types = ["101"]
learn_telephone_events = false
payload_types = ""
tick_ms = 10
receive_buffer_bytes = 33554432
slot_bytes = 576
merge_datagrams = false
log_format = "auto"
log_level = "info"

[[media]]
listen = "0.0.0.0:9000"

[[sink]]
name = "wav"

[[sink]]
name = "vad"

[[sink]]
name = "dtmf"

[[sink]]
name = "conversation"
"""

FULL = f"""\
http = "none"
http_token_file = "/etc/strep/token"
http_tls_certificate = "/etc/strep/certificate.pem"
http_tls_key = "/etc/strep/key.pem"
recordings = "/var/calls"
database = "/var/lib/strep.db"
keep_calls_days = 90
workers = "auto"
max_tracks = 100
idle_timeout_s = 12.5
drain_timeout_s = 300.0
reorder_ms = 0
max_gap_s = 10.0
max_ahead_s = 5.0
concealment = "g711"
comfort_noise = "noise"
mouth_to_ear_ms = 150.0
allowed_sources = ["192.0.2.0/24", "2001:db8::/32"]
new_tracks_per_s = 50.0
new_tracks_burst = 100
source_timeout_s = 0.5
telephone_event_payload_types = ["96", "110/48000"]
learn_telephone_events = true
payload_types = "96=opus,97=L16/16000"
tick_ms = 5
receive_buffer_bytes = 65536
slot_bytes = 1600
merge_datagrams = false
log_format = "json"
log_level = "debug"

[control]
api_key_file = "/etc/strep/key"
base_url = "https://api.example.com/v2"
command_timeout_s = 12.5
max_commands = 3
webhook_public_key = "YKJ3TjuMRTE0+NXBO7bP/N9RbwOf/1tQnBThgedORiE="
allow_unsigned_webhooks = false
fork_way = "ports"
stream_type = "decrypted"
media_target = "udp:192.0.2.1:9000"
port_range = "20000-20999"
port_host = "192.0.2.2"
advertised_host = "192.0.2.1"
port_cooldown_s = 5.0
first_media_timeout_s = 3.0
retry_forks = 1
stop_grace_s = 0.5
auto_fork = [{{connection_id = "7267", direction = "any", from = "*", to = "ab", codecs = ";\\"d"}}]
max_forks = 100
admission = "known"
pending_leg_s = 2.0

[[media]]
listen = "[::1]:9000"

[[media]]
listen = "127.0.0.1:9002"
call_leg_id = "{LEG}"
leg = "B"
direction = "outbound"

[[sink]]
name = "wav"
layout = "mono"
flush_s = 0.5

[[sink]]
name = "my.levels:Meter"
bands = [300, 3400.5, "rest", true]
"an odd key" = "tab\\tquote\\"back\\\\ \\u007f é"
"""


@pytest.fixture
def toml(tmp_path, monkeypatch):
    """Write `strep.toml` into the current directory, so that errors name it without a folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> Path:
        file = Path("strep.toml")
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def test_defaults():
    settings = load(None, {}, {})
    assert settings == Settings()
    assert settings.media == (Listener(listen=parse_address("0.0.0.0:9000")),)
    assert settings.http == Address("127.0.0.1", 8080)
    assert settings.recordings == Path("recordings")
    assert [sink.name for sink in settings.sinks] == ["wav", "vad", "dtmf", "conversation"]
    assert settings.as_toml() == DEFAULTS


def test_file_sets_everything(toml):
    settings = load(toml(FULL), {}, {})
    assert settings.http is None
    assert settings.http_token_file == Path("/etc/strep/token")
    assert settings.database_file == Path("/var/lib/strep.db")
    assert settings.control.port_range == (20_000, 20_999)
    assert settings.control.auto_fork == (AutoFork(connection_id="7267", to="ab", codecs=';"d'),)
    assert settings.media[1] == Listener(
        listen=Address("127.0.0.1", 9002), call_leg_id=UUID(LEG), leg="B", direction="outbound"
    )
    assert settings.sinks == (
        SinkSpec(name="wav", options={"layout": "mono", "flush_s": 0.5}),
        SinkSpec(
            name="my.levels:Meter",
            options={
                "bands": (300, 3400.5, "rest", True),
                "an odd key": 'tab\tquote"back\\ \x7f é',
            },
        ),
    )
    assert settings.as_toml() == FULL


def test_payload_types_may_be_a_table(toml):
    settings = load(toml('payload_types = {96 = "opus", 97 = "l16/16000"}'), {}, {})
    assert str(settings.payload_types) == "96=opus,97=L16/16000"
    assert load(None, {}, {"payload_types": "96=opus"}).payload_types == {96: OPUS}


def test_environment_sets_everything():
    environment = {
        "STREP_MEDIA": f"[::1]:9000; 127.0.0.1:9002,call_leg_id={LEG},direction=outbound,leg=b",
        "STREP_HTTP": "none",
        "STREP_RECORDINGS": "/var/calls",
        "STREP_SINK": "wav:layout=mono;my.levels:Meter:window_ms=30",
        "STREP_WORKERS": "4",
        "STREP_MAX_TRACKS": "100",
        "STREP_IDLE_TIMEOUT_S": "12.5",
        "STREP_REORDER_MS": "0",
        "STREP_MAX_GAP_S": "10",
        "STREP_ALLOWED_SOURCES": "192.0.2.0/24; 2001:db8::/32",
        "STREP_NEW_TRACKS_PER_S": "50",
        "STREP_NEW_TRACKS_BURST": "100",
        "STREP_SOURCE_TIMEOUT_S": "0.5",
        "STREP_LEARN_TELEPHONE_EVENTS": "true",
        "STREP_MOUTH_TO_EAR_MS": "150",
        "STREP_MAX_AHEAD_S": "5",
        "STREP_CONCEALMENT": "G711",
        "STREP_COMFORT_NOISE": "noise",
        "STREP_PAYLOAD_TYPES": "96=OPUS/48000/2",
        "STREP_TICK_MS": "5",
        "STREP_SLOT_BYTES": "1600",
        "STREP_RECEIVE_BUFFER_BYTES": "65536",
        "STREP_LOG_FORMAT": "json",
        "STREP_LOG_LEVEL": "DEBUG",
    }
    assert load(None, environment, {}) == Settings(
        media=(
            Listener(listen=Address("::1", 9000)),
            Listener(
                listen=Address("127.0.0.1", 9002),
                call_leg_id=UUID(LEG),
                leg="B",
                direction="outbound",
            ),
        ),
        http=None,
        recordings=Path("/var/calls"),
        sinks=(
            SinkSpec(name="wav", options={"layout": "mono"}),
            SinkSpec(name="my.levels:Meter", options={"window_ms": "30"}),
        ),
        workers=4,
        max_tracks=100,
        idle_timeout_s=12.5,
        reorder_ms=0,
        max_gap_s=10.0,
        allowed_sources=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
        new_tracks_per_s=50.0,
        new_tracks_burst=100,
        source_timeout_s=0.5,
        learn_telephone_events=True,
        mouth_to_ear_ms=150.0,
        max_ahead_s=5.0,
        payload_types="96=opus",
        concealment="g711",
        comfort_noise="noise",
        tick_ms=5,
        slot_bytes=1600,
        receive_buffer_bytes=65536,
        log_format="json",
        log_level="debug",
    )


def test_flags_go_before_environment_before_file_before_defaults(toml):
    file = toml("reorder_ms = 1\ntick_ms = 1\nmax_gap_s = 1\n")
    environment = {"STREP_REORDER_MS": "2", "STREP_TICK_MS": "2"}
    settings = load(file, environment, {"reorder_ms": "3", "tick_ms": None})
    assert settings.reorder_ms == 3
    assert settings.tick_ms == 2
    assert settings.max_gap_s == 1.0
    assert settings.idle_timeout_s == 120.0


def test_list_is_replaced_whole_by_the_stronger_source(toml):
    file = toml('[[sink]]\nname = "wav"\nlayout = "mono"\n[[sink]]\nname = "log"\n')
    assert load(file, {}, {"sink": ["wav"]}).sinks == (SinkSpec(name="wav"),)


def test_weaker_source_is_not_heard_where_a_stronger_one_speaks(toml):
    assert load(toml("tick_ms = 0"), {}, {"tick_ms": 20}).tick_ms == 20


@pytest.mark.parametrize(
    ("environment", "flags"),
    [({"STREP_SINK": "none"}, {}), ({}, {"sink": ["none"]}), ({}, {"sink": []})],
)
def test_no_sink(environment, flags):
    settings = load(None, environment, flags)
    assert settings.sinks == ()
    assert "\nsink = []\n" in settings.as_toml()


@pytest.mark.parametrize(
    ("environment", "flags", "expected"),
    [
        ({}, {}, ((101, 8000),)),
        ({"STREP_TELEPHONE_EVENT_PAYLOAD_TYPES": "96;110/48000"}, {}, ((96, 8000), (110, 48_000))),
        ({"STREP_TELEPHONE_EVENT_PAYLOAD_TYPES": "none"}, {}, ()),
        ({}, {"telephone_event_payload_types": ["96"]}, ((96, 8000),)),
        ({}, {"telephone_event_payload_types": ["none"]}, ()),
    ],
)
def test_payload_types_of_telephone_events(environment, flags, expected):
    settings = load(None, environment, flags)
    assert settings.telephone_event_payload_types == expected


def test_file_may_be_named_by_the_environment(toml):
    file = toml("tick_ms = 20")
    assert load(None, {"STREP_CONFIG": str(file)}, {}).tick_ms == 20
    assert load(file, {"STREP_CONFIG": "elsewhere.toml"}, {}).tick_ms == 20


def test_empty_variable_counts_as_unset():
    assert load(None, {"STREP_HTTP": "", "STREP_CONFIG": ""}, {}) == Settings()


def test_variables_that_others_set_under_our_prefix_are_left_alone():
    kubernetes = {
        "STREP_SERVICE_HOST": "10.0.0.1",
        "STREP_SERVICE_PORT": "8080",
        "STREP_PORT": "tcp://10.0.0.1:8080",
        "STREP_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert load(None, kubernetes, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_track = 3", "unknown key 'max_track'; did you mean max_tracks?"),
        (
            "zzz = 3",
            ("unknown key 'zzz'; known are " + ", ".join(sorted(KEYS))),
        ),
        ("sinks = []", "unknown key 'sinks'; did you mean sink?"),
        (
            'allowed_sources = ["192.0.2.1/24"]',
            "allowed_sources[0]: '192.0.2.1/24' is not a network such as 192.0.2.0/24",
        ),
        ("workers = 0", "workers: 0 is not a whole number from 1 to 256 nor auto"),
        ("workers = true", "workers: True is not a whole number from 1 to 256 nor auto"),
        ('workers = "all"', "workers: 'all' is not a whole number from 1 to 256 nor auto"),
        ("max_tracks = 0", "max_tracks: 0 is not a whole number from 1 to 262144"),
        ("max_tracks = true", "max_tracks: True is not a whole number from 1 to 262144"),
        ("max_tracks = 1.5", "max_tracks: 1.5 is not a whole number from 1 to 262144"),
        ("idle_timeout_s = nan", "idle_timeout_s: nan is not a number from 0.1 to 86400"),
        ("idle_timeout_s = inf", "idle_timeout_s: inf is not a number from 0.1 to 86400"),
        (
            f"max_gap_s = 1{'0' * 400}",
            f"max_gap_s: 1{'0' * 76}... is not a number from 1 to 86400",
        ),
        ("drain_timeout_s = -1", "drain_timeout_s: -1 is not a number from 0 to 86400"),
        (
            "keep_calls_days = 0",
            "keep_calls_days: 0 is not a whole number from 1 to 36500 nor none",
        ),
        ("reorder_ms = 5000", "reorder_ms: 5000 is not a whole number from 0 to 2000"),
        (
            "payload_types = 96",
            "payload_types: 96 is not NUMBER=CODEC[,...], such as 96=opus,97=L16/16000",
        ),
        ('payload_types = "0=opus"', "payload_types: '0=opus': payload type 0 has a fixed meaning"),
        (
            "payload_types = {96 = 3}",
            (
                "payload_types: '3' is no codec that can be decoded: "
                "PCMU, PCMA, G722, G729, GSM, opus, L16"
            ),
        ),
        ("http = 8080", "http: 8080 is not HOST:PORT nor none"),
        ('http = "localhost"', f"http: 'localhost' {NOT_AN_ADDRESS} nor none"),
        ('recordings = ""', "recordings: '' is not a folder"),
        ('recordings = "a\\u0000b"', "recordings: 'a\\x00b' is not a folder"),
        ("recordings = 3", "recordings: 3 is not a folder"),
        ('log_format = "xml"', "log_format: 'xml' is not auto, console or json"),
        ("learn_telephone_events = 3", "learn_telephone_events: 3 is not true or false"),
        (
            "telephone_event_payload_types = [101, 3]",
            (
                "telephone_event_payload_types[1]: 3 is not a payload type of telephone-events: "
                "35 to 127, with /CLOCK where that is not 8000 (110/48000)"
            ),
        ),
        (
            'telephone_event_payload_types = [101, "101/16000"]',
            "telephone_event_payload_types: 101 is listed twice",
        ),
        ("log_level = 10", "log_level: 10 is not debug, info, warning or error"),
        ("media = 9000", "media: 9000 is not a list of tables or texts"),
        ("media = []", "media: the list is empty, but at least one listener is needed"),
        ("media = [9000]", "media[0]: 9000 is not a listener: HOST:PORT or a table"),
        (
            '[media]\nlisten = "0.0.0.0:9000"',
            "media: a single table stands where a list is expected: write [[...]], not [...]",
        ),
        (
            '[[media]]\nlissen = "0.0.0.0:9000"',
            "media[0]: unknown key 'lissen'; did you mean listen?",
        ),
        ("[[media]]\n", "media[0]: listen is missing"),
        ('[[media]]\nlisten = "0.0.0.0"', f"media[0].listen: '0.0.0.0' {NOT_AN_ADDRESS}"),
        ("[[media]]\nlisten = 9000", "media[0].listen: 9000 is not HOST:PORT"),
        (
            'media = ["0.0.0.0:9000", "0.0.0.0:9000"]',
            "media: 0.0.0.0:9000 is listed twice",
        ),
        (
            '[[media]]\nlisten = ":::9000"\ncall_leg_id = "7"\ndirection = "inbound"',
            f"media[0].listen: ':::9000' {NOT_AN_ADDRESS}",
        ),
        (
            'media = ["0.0.0.0:1", {listen = "0.0.0.0:2", call_leg_id = 7, direction = "inbound"}]',
            f"media[1].call_leg_id: 7 is not a UUID, such as {LEG}",
        ),
        (
            f'[[media]]\nlisten = "0.0.0.0:9000"\ncall_leg_id = "{LEG}"',
            "media[0]: call_leg_id and direction are given together or not at all",
        ),
        (
            '[[media]]\nlisten = "0.0.0.0:9000"\ndirection = "inbound"',
            "media[0]: call_leg_id and direction are given together or not at all",
        ),
        (
            '[[media]]\nlisten = "0.0.0.0:9000"\nleg = "B"',
            "media[0]: leg B is given together with call_leg_id and direction",
        ),
        (
            f'[[media]]\nlisten = "0.0.0.0:9000"\ncall_leg_id = "{LEG}"\ndirection = "up"',
            "media[0].direction: 'up' is not inbound or outbound",
        ),
        ("sink = 3", "sink: 3 is not a list of tables or texts"),
        ("sink = [3]", "sink[0]: 3 is not a sink: NAME[:key=value,...] or a table"),
        ('[[sink]]\nlayout = "mono"', "sink[0]: name is missing"),
        ("[[sink]]\nname = 3", "sink[0].name: 3 is not the name of a sink"),
        ('[[sink]]\nname = ""', "sink[0].name: '' is not the name of a sink"),
        (
            '[[sink]]\nname = "vad"\n[[sink]]\nname = "wav"\nlayout = {a = 1}',
            ("sink[1].layout: {'a': 1} is not a text, a number, true, false or a list of these"),
        ),
        (
            '[[sink]]\nname = "wav"\nlayout = [[1]]',
            "sink[0].layout: [[1]] is not a text, a number, true, false or a list of these",
        ),
        (
            'sink = ["none", "wav"]',
            "sink: 'none' stands for no sink and cannot be given beside others",
        ),
        (
            "tick_ms 5",
            "not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 9)",
        ),
        (b"# \xff", "byte 2 is not UTF-8, as TOML has to be"),
    ],
)
def test_wrong_file_is_told_in_one_line(toml, text, message):
    with pytest.raises(ConfigError) as raised:
        load(toml(text), {}, {})
    assert str(raised.value) == f"strep.toml: {message}"


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "max_tracks = 1" + "0" * 5000])
def test_monstrous_file_is_told_in_one_line(toml, text):
    with pytest.raises(ConfigError, match=r"^strep\.toml: not valid TOML: .*$"):
        load(toml(text), {}, {})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.toml", "gone.toml: cannot be read as a settings file: No such file or directory"),
        (".", ".: cannot be read as a settings file: Is a directory"),
    ],
)
def test_file_that_cannot_be_read_is_told_in_one_line(tmp_path, monkeypatch, file, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load(Path(file), {}, {})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"STREP_MAX_TRACK": "3"},
            "environment: unknown variable 'STREP_MAX_TRACK'; did you mean STREP_MAX_TRACKS?",
        ),
        (
            {"STREP_SINKS": "wav"},
            "environment: unknown variable 'STREP_SINKS'; did you mean STREP_SINK?",
        ),
        (
            {"STREP_MAX_TRACKS": "3x"},
            "STREP_MAX_TRACKS: '3x' is not a whole number from 1 to 262144",
        ),
        ({"STREP_MEDIA": "0.0.0.0:1;9000"}, f"STREP_MEDIA: '9000' {NOT_AN_ADDRESS}"),
        ({"STREP_SINK": "wav;"}, "STREP_SINK: '' is not NAME[:key=value,...]"),
        ({"STREP_RECORDINGS": "\udcff"}, "STREP_RECORDINGS: '\\udcff' is not UTF-8 text"),
        (
            {"STREP_CONFIG": "gone.toml"},
            "gone.toml: cannot be read as a settings file: No such file or directory",
        ),
    ],
)
def test_wrong_environment_is_told_in_one_line(tmp_path, monkeypatch, environment, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load(None, environment, {})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"slot_bytes": "577"}, "--slot-bytes: 577 is not a multiple of 8"),
        (
            {"merge_datagrams": "true", "workers": "2"},
            "merge_datagrams: goes with one worker, and workers is 2",
        ),
        ({"tick_ms": "0"}, "--tick-ms: '0' is not a whole number from 1 to 100"),
        ({"http": "8080"}, f"--http: '8080' {NOT_AN_ADDRESS} nor none"),
        ({"media": ["0.0.0.0:70000"]}, f"--media: '0.0.0.0:70000' {NOT_AN_ADDRESS}"),
        ({"media": ["0.0.0.0:1,lag=A"]}, "--media: unknown key 'lag'; did you mean leg?"),
        ({"media": ["0.0.0.0:1,leg"]}, "--media: 'leg' in '0.0.0.0:1,leg' is not key=value"),
        (
            {"media": [f"0.0.0.0:1,call_leg_id={LEG},leg=C,direction=inbound"]},
            "--media: leg: 'C' is not A or B",
        ),
        (
            {"media": ["0.0.0.0:1,direction=inbound"]},
            "--media: call_leg_id and direction are given together or not at all",
        ),
        ({"media": ["0.0.0.0:1,leg=A,leg=B"]}, "--media: '0.0.0.0:1,leg=A,leg=B' gives leg twice"),
        ({"sink": ["wav:a=1,layout"]}, "--sink: 'layout' in 'wav:a=1,layout' is not key=value"),
        ({"sink": ["wav:=3"]}, "--sink: '=3' in 'wav:=3' is not key=value"),
        ({"sink": ["wav:a=1,a=2"]}, "--sink: 'wav:a=1,a=2' gives a twice"),
        ({"sink": [":a=b"]}, "--sink: ':a=b' is not NAME[:key=value,...]"),
        (
            {"sink": ["wav:name=x"]},
            "--sink: 'wav:name=x' has an option 'name', which no sink can have",
        ),
        (
            {"sink": ["vad", "none"]},
            "--sink: 'none' stands for no sink and cannot be given beside others",
        ),
        ({"recordings": Path("\udcff")}, "--recordings: '\\udcff' is not UTF-8 text"),
        ({"sink": ["wav:x=\udcff"]}, "--sink: 'wav:x=\\udcff' is not UTF-8 text"),
        (
            {"recrdings": "x"},
            "command line: unknown flag '--recrdings'; did you mean --recordings?",
        ),
    ],
)
def test_wrong_flag_is_told_in_one_line(flags, message):
    with pytest.raises(ConfigError) as raised:
        load(None, {}, flags)
    assert str(raised.value) == message


UNSIGNED = {"STREP_CONTROL_ALLOW_UNSIGNED_WEBHOOKS": "true"}


@pytest.mark.parametrize(
    ("database", "file"),
    [
        (None, Path("/var/calls/strep.db")),
        ("auto", Path("/var/calls/strep.db")),
        ("none", None),
        ("here.db", Path("here.db")),
    ],
)
def test_database_is_beside_the_recordings_unless_it_is_said_where(database, file):
    flags = {"recordings": "/var/calls", "database": database}
    assert load(None, {}, flags).database_file == file


def test_calls_are_controlled_where_anything_of_it_is_set(toml):
    assert load(None, {}, {}).control is None
    assert load(None, UNSIGNED, {}).control == ControlSettings(allow_unsigned_webhooks=True)
    flags = {"control_webhook_public_key": "YKJ3TjuMRTE0+NXBO7bP/N9RbwOf/1tQnBThgedORiE="}
    assert load(None, {}, flags).control.allow_unsigned_webhooks is False
    file = toml("[control]\nallow_unsigned_webhooks = true\n")
    assert load(file, {}, {}).control == ControlSettings(allow_unsigned_webhooks=True)


def test_settings_of_control_are_replaced_one_by_one(toml):
    file = toml(
        "[control]\nallow_unsigned_webhooks = true\nretry_forks = 1\nmax_forks = 5\n"
        'auto_fork = ["1"]\nmedia_target = "udp:192.0.2.1:9000"\n'
    )
    environment = {"STREP_CONTROL_RETRY_FORKS": "2", "STREP_CONTROL_AUTO_FORK": "2;3,to=+1*"}
    control = load(file, environment, {"control_media_target": "udp:192.0.2.2:9"}).control
    assert control == ControlSettings(
        allow_unsigned_webhooks=True,
        retry_forks=2,
        max_forks=5,
        auto_fork=["2", {"connection_id": "3", "to": "+1*"}],
        media_target="udp:192.0.2.2:9",
    )
    repeated = load(file, {}, {"control_auto_fork": ["4", "5"]}).control.auto_fork
    assert [rule.connection_id for rule in repeated] == ["4", "5"]


NO_KEY = (
    "control: webhook_public_key is missing: give the carrier's, or run without one by "
    "allow_unsigned_webhooks"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[control]", NO_KEY),
        ("control = 3", "control: 3 is not a table: [control]"),
        ("[[control]]", "control: [{}] is not a table: [control]"),
        (
            "[control]\nmedia_targt = 'x'",
            "control: unknown key 'media_targt'; did you mean media_target?",
        ),
        (
            "[control]\nretry_forks = -1",
            "control.retry_forks: -1 is not a whole number from 0 to 10",
        ),
        (
            "[control]\nauto_fork = [{ connection = '1' }]",
            "control.auto_fork[0]: unknown key 'connection'; did you mean connection_id?",
        ),
        ("[control]\nauto_fork = [{}]", "control.auto_fork[0]: connection_id is missing"),
        (
            "[control]\nauto_fork = ['1', '2,x']",
            "control.auto_fork[1]: 'x' in '2,x' is not key=value",
        ),
        ("database = ''", "database: '' is not a file"),
        ("http_token_file = 3", "http_token_file: 3 is not a file"),
    ],
)
def test_wrong_file_of_a_controlling_daemon_is_told_in_one_line(toml, text, message):
    with pytest.raises(ConfigError) as raised:
        load(toml(text), {}, {})
    assert str(raised.value) == f"strep.toml: {message}"


def test_control_plane_needs_a_database():
    with pytest.raises(ConfigError) as raised:
        load(None, UNSIGNED, {"database": "none"})
    assert str(raised.value) == (
        "database: none, but the control plane needs one: it remembers forks"
    )


@pytest.mark.parametrize(
    ("environment", "flags", "message"),
    [
        ({"STREP_CONTROL_ADMISSION": "known"}, {}, NO_KEY),
        (
            UNSIGNED | {"STREP_CONTROL_ADMISSION": "some"},
            {},
            "STREP_CONTROL_ADMISSION: 'some' is not any or known",
        ),
        (
            UNSIGNED | {"STREP_CONTROL_RETRY_FORK": "1"},
            {},
            (
                "environment: unknown variable 'STREP_CONTROL_RETRY_FORK'; did you mean "
                "STREP_CONTROL_RETRY_FORKS?"
            ),
        ),
        (
            UNSIGNED,
            {"control_media_target": "udp:x"},
            (
                "--control-media-target: 'udp:x' is not udp:IP:PORT (such as udp:192.0.2.1:9000, "
                "ports 1 to 65535)"
            ),
        ),
    ],
)
def test_wrong_control_outside_the_file_is_told_in_one_line(environment, flags, message):
    with pytest.raises(ConfigError) as raised:
        load(None, environment, flags)
    assert str(raised.value) == message


def test_credentials_in_the_environment_are_no_misspelt_settings():
    environment = {"STREP_API_KEY": "1", "STREP_API_KEY_FILE": "2", "STREP_HTTP_TOKEN": "3"}
    assert load(None, environment, {}) == Settings()


def test_settings_cannot_be_changed():
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.tick_ms = 20


def test_two_listeners_may_ask_for_any_free_port():
    assert len(load(None, {}, {"media": ["127.0.0.1:0", "127.0.0.1:0"]}).media) == 2


texts = st.text(st.characters(exclude_categories=["Cs"]))
patterns = texts.filter(bool)
scalars = texts | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()


@given(
    folder=texts.filter(lambda text: text and "\0" not in text),
    options=st.dictionaries(
        texts.filter(lambda key: key != "name"),
        scalars | st.lists(scalars).map(tuple),
    ),
    idle_timeout_s=st.floats(0.1, 86_400),
    workers=st.integers(1, 256) | st.just("auto"),
    rule=st.none() | st.tuples(patterns, patterns, patterns),
)
def test_every_configuration_loads_back_equal_from_its_toml(
    tmp_path_factory, folder, options, idle_timeout_s, workers, rule
):
    control = None
    if rule is not None:
        names = dict(zip(("connection_id", "from", "to"), rule, strict=True))
        control = ControlSettings(
            allow_unsigned_webhooks=True, media_target="udp:192.0.2.1:9000", auto_fork=[names]
        )
    settings = Settings(
        recordings=Path(folder),
        sinks=(SinkSpec(name="wav", options=options),),
        idle_timeout_s=idle_timeout_s,
        workers=workers,
        control=control,
    )
    text = settings.as_toml()
    tomllib.loads(text)
    file = tmp_path_factory.getbasetemp() / "strep.toml"
    file.write_text(text, encoding="utf-8", newline="")
    assert load(file, {}, {}) == settings
