"""SIGHUP: what of the settings changes while the daemon runs."""

from __future__ import annotations

import json
import signal
from ipaddress import ip_network

import pytest
from loopback import Serve

from strep.config import ConfigError, Settings
from strep.control.settings import ControlSettings
from strep.receive.gate import GateSettings
from strep.reload import LIVE, LIVE_OF_CONTROL, reloaded
from strep.worker import Live

CONTROL = {"allow_unsigned_webhooks": True, "media_target": "udp:192.0.2.1:9000"}


def of(control=None, **settings):
    return Settings(control=None if control is None else CONTROL | control, **settings)


RESTART = {
    "media", "http", "http_token_file", "http_tls_certificate", "http_tls_key", "recordings",
    "database", "sinks", "workers", "max_tracks", "reorder_ms", "max_gap_s", "max_ahead_s",
    "concealment", "comfort_noise", "telephone_event_payload_types", "learn_telephone_events",
    "payload_types", "tick_ms", "receive_buffer_bytes", "slot_bytes", "merge_datagrams",
}  # fmt: skip
RESTART_OF_CONTROL = {
    "api_key_file", "base_url", "command_timeout_s", "max_commands", "webhook_public_key",
    "allow_unsigned_webhooks", "port_range", "port_host", "advertised_host", "port_cooldown_s",
    "stop_grace_s", "pending_leg_s",
}  # fmt: skip


def test_it_is_said_of_each_setting_whether_it_can_change():
    assert set(Settings.model_fields) - {"control"} == LIVE | RESTART
    assert set(ControlSettings.model_fields) == LIVE_OF_CONTROL | RESTART_OF_CONTROL
    assert not LIVE & RESTART | LIVE_OF_CONTROL & RESTART_OF_CONTROL


def test_what_can_change_is_said_to_another_process_as_json():
    live = Live.of(of(allowed_sources=["192.0.2.0/24", "2001:db8::/32"], new_tracks_burst=3))
    told = Live(*json.loads(json.dumps(live)))
    assert told == live
    assert told.gate() == GateSettings(
        allowed_sources=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")), burst_tracks=3
    )


def test_same_settings_change_nothing():
    old = of({}, max_tracks=5)
    assert reloaded(old, of({}, max_tracks=5)) == (old, [], [])


def test_what_can_change_is_taken_and_the_rest_is_named():
    old = of({"max_forks": 5, "stop_grace_s": 1}, max_tracks=5)
    new = of(
        {"max_forks": 6, "stop_grace_s": 2, "auto_fork": ["7267"], "admission": "known"},
        max_tracks=6,
        log_level="debug",
        drain_timeout_s=30,
    )
    settings, taken, restart = reloaded(old, new)
    assert taken == [
        "drain_timeout_s", "log_level", "control.auto_fork", "control.max_forks",
        "control.admission",
    ]  # fmt: skip
    assert restart == ["max_tracks", "control.stop_grace_s"]
    assert (settings.max_tracks, settings.log_level, settings.drain_timeout_s) == (5, "debug", 30)
    assert (settings.control.max_forks, settings.control.stop_grace_s) == (6, 1)
    assert [rule.connection_id for rule in settings.control.auto_fork] == ["7267"]


@pytest.mark.parametrize(("old", "new"), [(None, {}), ({}, None)])
def test_control_plane_comes_and_goes_with_a_restart_only(old, new):
    settings, taken, restart = reloaded(of(old), of(new))
    assert (settings, taken, restart) == (of(old), [], ["control"])


def test_what_fits_only_with_a_restart_is_refused_whole():
    new = of(
        {
            "fork_way": "ports", "auto_fork": ["7267"], "port_range": "20000-20999",
            "advertised_host": "192.0.2.1",
        }
    )  # fmt: skip
    with pytest.raises(ConfigError) as error:
        reloaded(of({}), new)
    assert str(error.value) == (
        "auto_fork with fork_way ports needs port_range and advertised_host, and"
        " control.port_range, control.advertised_host cannot change before a restart"
    )


BEFORE = 'log_level = "info"\nmax_tracks = 100\n'
AFTER = 'log_level = "debug"\nmax_tracks = 200\n'


def test_sighup_reads_the_file_again(tmp_path):
    file = tmp_path / "strep.toml"
    file.write_text(BEFORE)
    with Serve(tmp_path, "--config", str(file), "--workers", "2") as serve:

        def hang_up(text):
            """Return what is said of a file with this text."""
            said = len(lines())
            file.write_text(text)
            serve.process.send_signal(signal.SIGHUP)
            serve.wait_until(lambda: any("reloaded" in x["event"] for x in lines()[said:]), "read")
            return [x for x in lines()[said:] if x["logger"] == "strep"]

        def lines():
            return [json.loads(line) for line in serve.log.read_text().splitlines()]

        key, done = hang_up(AFTER)
        assert (key["event"], key["key"]) == ("a changed setting needs a restart", "max_tracks")
        assert done["event"] == "settings reloaded"
        assert (done["changed"], done["need_restart"]) == (["log_level"], ["max_tracks"])
        (broken,) = hang_up("log_level = 3\n")
        assert broken["event"] == "settings not reloaded: nothing has changed"
        assert broken["error"].startswith(f"{file}: log_level: 3 is not debug, info")
        # what was not taken from a broken file still stands
        assert hang_up(AFTER)[-1]["changed"] == []
        assert serve.stop() == 0
