"""The command line, as people use and misuse it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import encoders
import numpy as np
import pytest
import soundfile
from capturefile import datagram, ethernet, pcap
from keytones import mu_law, silence, tone
from loopback import Serve, free_port
from wirecases import rtp

from strep import __version__, cli
from strep.media import packetize
from strep.voices import load_voice

CODES = load_voice("caller")[: 8000 * 2]


def strep(capsys, *arguments):
    """Run the command in this process; return (exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def one_line(error):
    assert "Traceback" not in error
    assert error.count("\n") == 1, error
    return error.rstrip("\n")


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "call.pcap"
    packets = packetize(CODES, payload_type=0, ssrc=0xABCD, first_sequence=1, first_timestamp=0)
    frames = [(i * 20_000_000, ethernet(datagram(bytes(p)))) for i, p in enumerate(packets)]
    path.write_bytes(pcap(frames))
    return path


def test_version(capsys):
    assert strep(capsys, "--version") == (0, f"strep {__version__}\n", "")


@pytest.mark.parametrize("command", ["serve", "analyze", "replay", "demo"])
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = strep(capsys, command, "--help")
    assert code == 0
    assert f"example:\n  strep {command}" in out


def test_no_command_is_help_and_wrong_input(capsys):
    code, out, _ = strep(capsys)
    assert code == 2
    assert "analyze" in out


def test_analyze_prints_a_table(capsys, capture):
    code, out, err = strep(capsys, "analyze", capture)
    assert (code, err) == (0, "")
    assert "PCMU" in out
    assert "100 accepted" in out


def test_analyze_prints_json(capsys, capture, tmp_path):
    code, out, _ = strep(capsys, "analyze", capture, "--json", "--out", tmp_path / "out")
    assert code == 0
    report = json.loads(out)
    assert report["datagrams"] == {"accepted": 100}
    (track,) = report["tracks"]
    assert track["ssrc"] == "0x0000abcd"
    assert track["codec"] == "PCMU"
    assert track["payload_types"] == {"0": 100}
    assert track["duration_s"] == 2.0
    assert (track["packets"], track["bytes"], track["lost"]) == (100, 16_000, 0)
    assert Path(track["recording"]).stat().st_size > 32_000
    for key in (
        "call_leg_id", "leg", "direction", "source", "destination", "late", "duplicate",
        "reordered", "resets", "jitter_mean_ms", "jitter_max_ms", "speech",
    ):  # fmt: skip
        assert key in track
    assert len(list((tmp_path / "out").glob("*.json"))) == 1


def test_analyze_names_all_files_of_a_recording_that_is_split(capsys, capture, tmp_path):
    options = ("--out", tmp_path / "out", "--sink", "wav:split_s=1")
    code, out, _ = strep(capsys, "analyze", capture, *options)
    assert code == 0
    named = [line for line in out.splitlines() if line.startswith("recording: ")]
    files = sorted((tmp_path / "out").glob("*.wav"))
    assert len(files) == 2
    assert named == [f"recording: {path}" for path in files]


def test_analyze_tells_what_it_cannot_decode_for_want_of_a_payload_type(capsys, tmp_path):
    packets = [rtp(bytes(60), sequence=n, timestamp=960 * n, payload_type=96) for n in range(10)]
    path = tmp_path / "opus.pcap"
    path.write_bytes(pcap([(i * 20_000_000, ethernet(datagram(p))) for i, p in enumerate(packets)]))
    code, out, _ = strep(capsys, "analyze", path)
    assert code == 0
    assert "inbound: 10 packets of no known codec, payload types 96; see --payload-types" in out


@pytest.fixture
def keyed(tmp_path):
    """Return a capture of 0.4 s of silence, the key 5 as an event, and the key 7 in the audio."""
    packets = [rtp(b"\xff" * 160, sequence=n, timestamp=160 * n) for n in range(20)]
    packets += [
        rtp(struct.pack("!BBH", 5, end << 7, min(800, 160 * n)), payload_type=96,
            sequence=19 + n, timestamp=3200)
        for n, end in ((1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 1))
    ]  # fmt: skip
    audio = mu_law(np.concatenate([silence(100), tone("7", 60), silence(100)])).tobytes()
    packets += [
        rtp(audio[160 * n : 160 * n + 160], sequence=27 + n, timestamp=4000 + 160 * n)
        for n in range(13)
    ]
    path = tmp_path / "keyed.pcap"
    frames = [(i * 20_000_000, ethernet(datagram(p))) for i, p in enumerate(packets)]
    path.write_bytes(pcap(frames))
    return path


@pytest.mark.parametrize(
    "flags", [("--telephone-event-payload-types", "96"), ("--learn-telephone-events",)]
)
def test_analyze_tells_which_keys_were_pressed(capsys, keyed, flags):
    _, out, _ = strep(capsys, "analyze", keyed, "--json", *flags)
    (track,) = json.loads(out)["tracks"]
    assert track["dtmf"] == [
        {"digit": "5", "start_s": 0.4, "duration_ms": 100.0, "kind": "telephone-event"},
        {"digit": "7", "start_s": 0.6, "duration_ms": 60.0, "kind": "in-band"},
    ]
    assert (track["dtmf_dropped"], track["unknown_payload"]) == (0, 0)
    _, out, _ = strep(capsys, "analyze", keyed, *flags)
    assert f"keys pressed: {track['call_leg_id'][:8]} A inbound: 57\n" in out


def test_keys_are_events_in_the_log(capsys, keyed, tmp_path):
    path = tmp_path / "events.jsonl"
    flags = ("--learn-telephone-events", "--sink", "dtmf", "--sink", f"log:path={path}")
    strep(capsys, "analyze", keyed, *flags)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["event"], e["position_s"]) for e in events] == [
        ("track_opened", 0.0),
        ("dtmf", 0.4),
        ("dtmf", 0.6),
        ("track_closed", 0.76),
    ]
    assert [e["data"]["kind"] for e in events[1:3]] == ["telephone-event", "in-band"]


def test_wrong_payload_type_is_said_in_one_line(capsys, capture):
    code, _, err = strep(capsys, "analyze", capture, "--telephone-event-payload-types", "3")
    assert code == 2
    assert "'3' is not a payload type of telephone-events" in one_line(err)


def test_analyze_shows_the_rate_of_a_codec_and_makes_a_recording_of_it(capsys, tmp_path):
    frames = [
        (i * 20_000_000, ethernet(datagram(rtp(payload, payload_type=97, sequence=i, timestamp=t))))
        for i, payload in enumerate(encoders.l16(encoders.tone(16_000, 16_000), 320))
        for t in [320 * i]
    ]
    path = tmp_path / "wide.pcap"
    path.write_bytes(pcap(frames))
    arguments = ("analyze", path, "--payload-types", "97=L16/16000", "--out", tmp_path)
    code, out, err = strep(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "L16 16k" in out
    (recording,) = tmp_path.glob("*.wav")
    pcm, rate_hz = soundfile.read(recording, dtype="int16")
    heard = pcm[:, 0] if pcm.ndim == 2 else pcm
    assert (rate_hz, heard.tolist()) == (16_000, encoders.tone(16_000, 16_000).tolist())
    (manifest,) = tmp_path.glob("*.json")
    (track,) = json.loads(manifest.read_text())["tracks"]
    assert (track["codec"], track["sample_rate_hz"], track["duration_s"]) == ("L16", 16_000, 1.0)


def test_wrong_payload_types_are_told_in_one_line(capsys, capture):
    code, _, err = strep(capsys, "analyze", capture, "--payload-types", "96=speex")
    assert code == 2
    assert "'speex' is no codec that can be decoded" in one_line(err)


def test_analyze_of_a_cut_capture_keeps_what_came_before_and_says_so(capsys, capture):
    capture.write_bytes(capture.read_bytes()[:-10])
    code, out, err = strep(capsys, "analyze", capture, "--json")
    assert code == 0
    assert json.loads(out)["tracks"][0]["packets"] == 99
    assert "after 99 frames" in json.loads(out)["cut"]
    assert "after 99 frames" in one_line(err)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "cannot read capture"),
        (b"GIF89a and so on, no capture at all", "cannot read capture"),
    ],
)
def test_what_is_no_capture_is_said_in_one_line(capsys, tmp_path, content, message):
    path = tmp_path / "x.pcap"
    if content is not None:
        path.write_bytes(content)
    for arguments in (("analyze", path), ("replay", path, "--to", "127.0.0.1:9")):
        code, out, err = strep(capsys, *arguments)
        assert (code, out) == (2, "")
        assert message in one_line(err)
        assert str(path) in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sink", "wavv"], ["wavv", "wav"]),
        (["--sink", "wav:layuot=mono"], ["layuot", "layout"]),
        (["--sink", "wav:layout=quadro"], ["layout", "quadro", "stereo", "mono"]),
        (["--sink", "no.such:Thing"], ["no.such:Thing"]),
    ],
)
def test_a_wrong_sink_is_said_in_one_line(capsys, capture, arguments, words):
    code, out, err = strep(capsys, "analyze", capture, *arguments)
    assert (code, out) == (2, "")
    for word in words:
        assert word in one_line(err)


def test_events_go_to_a_file(capsys, capture, tmp_path):
    path = tmp_path / "events.jsonl"
    code, _, _ = strep(capsys, "analyze", capture, "--sink", "vad", "--sink", f"log:path={path}")
    assert code == 0
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events[0] == "track_opened"
    assert events[-1] == "track_closed"


def test_a_folder_that_cannot_be_written_is_said_in_one_line(capsys, capture, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = strep(capsys, "analyze", capture, "--out", blocked / "out")
    assert code == 2
    assert str(blocked / "out") in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--media", "nonsense"], ["--media", "nonsense", "HOST:PORT"]),
        (["--media", "127.0.0.1:70000"], ["70000"]),
        (["--tick-ms", "0"], ["--tick-ms", "0"]),
        (["--workers", "0"], ["--workers", "0", "auto"]),
        (["--sink", "wavv"], ["wavv"]),
        (["--config", "no-such.toml"], ["no-such.toml"]),
    ],
)
def test_serve_refuses_wrong_settings_in_one_line(capsys, arguments, words):
    code, out, err = strep(capsys, "serve", "--check", *arguments)
    assert (code, out) == (2, "")
    for word in words:
        assert word in one_line(err)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_trakcs = 5", ["max_trakcs", "max_tracks"]),
        ("max_tracks = 'many'", ["max_tracks", "many"]),
        ("max_tracks = ", ["not valid TOML"]),
        ("[[sink]]\nname = 'wav'\nlayuot = 'mono'", ["layuot", "layout"]),
    ],
)
def test_serve_refuses_a_wrong_file_in_one_line(capsys, tmp_path, text, words):
    path = tmp_path / "strep.toml"
    path.write_text(text)
    code, _, err = strep(capsys, "serve", "--check", "--config", path)
    assert code == 2
    for word in words:
        assert word in one_line(err)


def test_check_prints_settings_that_load_again(capsys, tmp_path):
    code, out, _ = strep(capsys, "serve", "--check", "--media", "127.0.0.1:9100", "--sink", "vad")
    assert code == 0
    path = tmp_path / "strep.toml"
    path.write_text(out)
    assert strep(capsys, "serve", "--check", "--config", path) == (0, out, "")


def test_check_prints_settings_of_control_but_no_key(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("STREP_API_KEY", "s3cret")
    monkeypatch.setenv("STREP_HTTP_TOKEN", "t0ken")
    arguments = [
        "--control-webhook-public-key", "YKJ3TjuMRTE0+NXBO7bP/N9RbwOf/1tQnBThgedORiE=",
        "--control-media-target", "udp:192.0.2.1:9000",
        "--control-auto-fork", "7267", "--control-auto-fork", "7268,from=+1*",
        "--http", "0.0.0.0:8080", "--database", "calls.db",
    ]  # fmt: skip
    code, out, err = strep(capsys, "serve", "--check", *arguments)
    assert (code, err) == (0, "")
    assert 'media_target = "udp:192.0.2.1:9000"' in out
    assert "s3cret" not in out
    assert "t0ken" not in out
    path = tmp_path / "strep.toml"
    path.write_text(out)
    assert strep(capsys, "serve", "--check", "--config", path) == (0, out, "")


@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        (
            {"STREP_CONTROL_ALLOW_UNSIGNED_WEBHOOKS": "true"},
            [],
            ["there is no API key", "STREP_API_KEY"],
        ),
        (
            {"STREP_CONTROL_ALLOW_UNSIGNED_WEBHOOKS": "true", "STREP_API_KEY": "a b"},
            [],
            ["STREP_API_KEY", "is not an API key"],
        ),
        ({}, ["--control-media-target", "udp:192.0.2.1:9000"], ["webhook_public_key is missing"]),
        ({}, ["--http", "0.0.0.0:8080"], ["0.0.0.0:8080", "token"]),
        ({}, ["--http-token-file", "no-such"], ["no-such", "cannot be read as a token"]),
    ],
)
@pytest.mark.parametrize("check", [["--check"], []], ids=["check", "serve"])
def test_keys_that_are_missing_or_wrong_are_said_in_one_line(
    capsys, monkeypatch, environment, arguments, words, check
):
    monkeypatch.setattr(cli.serve.os, "environ", environment)
    code, out, err = strep(capsys, "serve", *check, "--log-format", "json", *arguments)
    assert (code, out) == (2, "")
    for word in words:
        assert word in one_line(err)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_database_that_is_none_is_said_in_one_line(tmp_path, workers):
    file = tmp_path / "calls.db"
    file.write_text("this is no database, but a text that is long enough" * 10)
    done = subprocess.run(
        [sys.executable, "-m", "strep", "serve", "--media", "127.0.0.1:0", "--http", "none",
         "--recordings", str(tmp_path), "--database", str(file), "--workers", workers],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"strep: {file}: is not a database"
    assert file.read_text().startswith("this is no database")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("which", ["media", "http"])
def test_a_port_in_use_is_said_in_one_line(tmp_path, which, workers):
    kind = socket.SOCK_DGRAM if which == "media" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        ports = {
            "media": f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
            "http": f"127.0.0.1:{free_port(socket.SOCK_STREAM)}",
        } | {which: f"127.0.0.1:{taken.getsockname()[1]}"}
        done = subprocess.run(
            [sys.executable, "-m", "strep", "serve", "--media", ports["media"], "--http",
             ports["http"], "--recordings", tmp_path, "--workers", workers],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert done.returncode == 2
    assert ports[which] in one_line(done.stderr)
    assert "ddress already in use" in done.stderr


def test_serve_receives_records_and_stops_with_0(tmp_path, capsys, capture):
    with Serve(tmp_path) as serve:
        code, out, _ = strep(
            capsys, "replay", capture, "--to", serve.media, "--strep", "--speed", "inf", "--json"
        )
        assert code == 0
        assert json.loads(out)["sent"] == 100
        serve.wait_for("strep_packets_total", 100)
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_datagrams_total{accepted}"] == 100
    assert metrics["strep_tracks_open"] == 1
    assert metrics["strep_packets_lost_total"] == 0
    (manifest,) = (json.loads(p.read_text()) for p in tmp_path.glob("*.json"))
    assert manifest["tracks"][0]["packets"] == 100


def test_plain_rtp_is_of_the_track_that_its_port_stands_for(tmp_path, capsys, capture):
    call = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
    port = free_port(socket.SOCK_DGRAM)
    bound = f"127.0.0.1:{port},call_leg_id={call},direction=outbound,leg=B"
    with Serve(tmp_path, "--media", bound) as serve:
        strep(capsys, "replay", capture, "--to", f"127.0.0.1:{port}", "--speed", "inf")
        serve.wait_for("strep_packets_total", 100)
        assert serve.stop() == 0
    (manifest,) = (json.loads(p.read_text()) for p in tmp_path.glob("*.json"))
    (track,) = manifest["tracks"]
    assert manifest["call_leg_id"] == call
    assert (track["leg"], track["direction"], track["channel"]) == ("B", "outbound", "right")


def test_replay_says_when_nobody_listens(capsys, capture):
    port = free_port(socket.SOCK_DGRAM)
    code, out, _ = strep(
        capsys, "replay", capture, "--to", f"127.0.0.1:{port}", "--speed", "1000", "--json"
    )
    assert code == 0
    assert json.loads(out)["refused"] > 0


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "fast"])
def test_replay_refuses_a_wrong_speed(capsys, capture, speed):
    code, _, err = strep(capsys, "replay", capture, "--to", "127.0.0.1:9", "--speed", speed)
    assert code == 2
    assert "--speed" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bogus",), "strep: error: unrecognized arguments: --bogus"),
        (("calls", "show", "1", "-x"), "strep calls show: error: unrecognized arguments: -x"),
        (("analyze",), "strep analyze: error: the following arguments are required: CAPTURE"),
        (("call", "dial", "--bogus"), "strep call dial: error: unrecognized arguments: --bogus"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, arguments, message):
    code, out, err = strep(capsys, *arguments)
    command = message.partition(":")[0]
    assert (code, out, one_line(err)) == (2, "", f"{message} (see {command} --help)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_output_that_is_full_is_one_line(capture):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "strep", "analyze", capture],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert one_line(done.stderr) == (
        "strep: standard output cannot be written: No space left on device"
    )


def test_an_output_that_is_closed_early_is_no_traceback(capture):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "strep", "analyze", capture, "--json"],
        stdout=write_end, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write_end)
    assert "Traceback" not in done.stderr
