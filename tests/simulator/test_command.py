"""`strep simulate`, as a process of its own."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request

import pytest

from strep.cli import simulate
from strep.specs import ConfigError

DEADLINE_S = 20.0
RUN = """
import argparse, sys
from strep.cli import simulate
parser = argparse.ArgumentParser()
simulate.add(parser.add_subparsers())
arguments = parser.parse_args(["simulate", *sys.argv[1:]])
arguments.command(arguments)
"""


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    simulate.add(parser.add_subparsers())
    return parser.parse_args(["simulate", *arguments])


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUN, "--http", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_calls_come_in_are_forked_and_end():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        process = started(
            "--calls", "2", "--rate", "50", "--talk-s", "1", "--speed", "10", "--json",
            "--fork", f"127.0.0.1:{udp.getsockname()[1]}", "--exit-when-done",
        )  # fmt: skip
        out, err = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, err) == (0, "")
        came = 0
        try:
            while udp.recv(2048):
                came += 1
        except BlockingIOError:
            pass
    ready, *_, stopped = map(json.loads, out.splitlines())
    assert ready["event"] == "ready"
    assert ready["base_url"].endswith("/v2")
    assert stopped["event"] == "stopped"
    assert (stopped["calls"], stopped["calls_up"], stopped["tracks"]) == (2, 0, 0)
    assert came == stopped["datagrams"]
    assert 100 <= came <= 200  # the forks begin as soon as they can


def test_ready_file_has_all_that_a_script_needs(tmp_path):
    file = tmp_path / "ready.json"
    process = started("--ready-file", str(file), "--api-key", "k", "--signing-key", "A" * 43 + "=")
    deadline_s = time.monotonic() + DEADLINE_S
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    ready = json.loads(file.read_text())
    assert ready["api_key"] == "k"
    assert ready["public_key"] == "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="
    assert ready["pid"] == process.pid
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with urllib.request.urlopen(ready["control_url"], timeout=5) as answer:  # noqa: S310 -- http
        assert json.load(answer)["calls"] == 0
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert out.splitlines()[0] == f"base_url     {ready['base_url']}"
    assert err == "0 of 0 calls up, 0 webhooks, 0 tracks, 0 datagrams, at most 0.0 ms late\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "2"], "--loss: '2' is not a number from 0 to 0.99"),
        (["--hold", "5"], "--hold 5: for_s: '' is not a number from 0 to 14400"),
        (["--reinvite", "x"], "--reinvite x: at_s: 'x' is not a number from 0 to 14400"),
        (["--change-codec", "1:GSM"], "--change-codec 1:GSM: codec: 'GSM' is not PCMU or PCMA"),
        (["--fault", "dial:9"],
         "--fault dial:9: status: '9' is not a whole number from 400 to 599"),
        (["--webhook-fault", "*:y"], ("--webhook-fault *:y: kind: 'y' is not late, twice, swapped, "
                                     "bad_signature, stale or lost")),
        (["--http", "x"],
         "--http: 'x' is not HOST:PORT (such as 0.0.0.0:9000 or [::1]:9000, ports 0 to 65535)"),
        (["--exit-when-done"],
         "--exit-when-done needs calls that come in by themselves: --calls"),
        (["--ready-file", "/nowhere/x", "--http", "127.0.0.1:0"],
         "--ready-file: cannot write /nowhere/x: No such file or directory"),
        (["--scenario", "nowhere.toml"], "nowhere.toml: cannot be read: No such file or directory"),
    ],
)  # fmt: skip
def test_wrong_flag_is_one_line(arguments, message):
    given = parsed(*arguments)
    with pytest.raises(ConfigError) as error:
        given.command(given)
    assert str(error.value) == message


def test_signing_key_of_another_length_is_refused(capsys):
    with pytest.raises(SystemExit):
        parsed("--signing-key", "AAAA")
    assert "argument --signing-key: not 32 bytes in Base64" in capsys.readouterr().err


def test_flags_become_settings():
    flags = simulate._flags(
        parsed(
            "--rate", "10", "--packet-ms", "30", "--silence-suppression", "--digits", "3:1#",
            "--fault", "dial:429:2", "--webhook-fault", "*:twice:0",
        )
    )  # fmt: skip
    assert [(flag.path, flag.value) for flag in flags] == [
        (("audio", "packet_ms"), "30"),
        (("traffic", "rate_per_s"), "10"),
        (("audio", "silence_suppression"), True),
        (("event",), {"kind": "digits", "at_s": "3", "digits": "1#"}),
        (("fault",), {"command": "dial", "status": "429", "times": "2"}),
        (("webhook_fault",), {"event": "*", "kind": "twice", "times": "0"}),
    ]
