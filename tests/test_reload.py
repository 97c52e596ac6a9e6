"""SIGHUP: what of the settings changes while the daemon runs."""

from __future__ import annotations

import json
import signal

import pytest
from loopback import Serve

from strep.config import ConfigError, Settings
from strep.control.settings import ControlSettings
from strep.reload import LIVE, LIVE_OF_CONTROL, reloaded

CONTROL = {"allow_unsigned_webhooks": True, "media_target": "udp:192.0.2.1:9000"}


def of(control=None, **settings):
    return Settings(control=None if control is None else CONTROL | control, **settings)


def test_what_can_change_is_there():
    assert set(Settings.model_fields) >= LIVE
    assert set(ControlSettings.model_fields) >= LIVE_OF_CONTROL


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
