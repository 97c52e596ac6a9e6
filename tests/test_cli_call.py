"""`strep call`, as people use and misuse it, against a carrier that answers as it is told."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from commandmaker import NEEDED

from strep import cli
from strep.cli.call import NAMES
from strep.control.commands import COMMANDS

CALL = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg"
KEY = "KEY0123_secret"
A_TARGET = "udp:IP:PORT (such as udp:192.0.2.1:9000, ports 1 to 65535)"
OK = (200, {"data": {"result": "ok"}})
DIALLED = {
    "call_control_id": CALL,
    "call_leg_id": "2dc6fc34-f9e0-11ea-b68e-02420a0f7768",
    "call_session_id": "2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
    "is_alive": False,
    "record_type": "call",
}
DIAL = ("dial", "--connection-id", "7267", "--from", "+18005550101", "--to", "+18005550100")


class Carrier(ThreadingHTTPServer):
    """Answers all alike, and notes what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = OK
        self.requests = []
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v2"

    @property
    def body(self):
        """Of the only request, without the random command_id."""
        ((_, _, _, body),) = self.requests
        return {name: value for name, value in body.items() if name != "command_id"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Authorization"]
        self.server.requests.append((self.command, self.path, key, body))
        status, document = self.server.answer
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST  # noqa: N815 -- the name that BaseHTTPRequestHandler calls

    def log_message(self, *_):
        pass


@pytest.fixture
def carrier(monkeypatch):
    server = Carrier()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("STREP_CONTROL_BASE_URL", server.base_url)
    monkeypatch.setenv("STREP_API_KEY", KEY)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def call(capsys):
    """Run `strep call` in this process; return (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["call", *arguments])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


def flags(parameters):
    """Return parameters as flags."""
    return [
        part
        for name, value in parameters.items()
        for part in (f"--{name.removesuffix('_').replace('_', '-')}", value)
    ]


def refusal(status, code, title):
    return status, {"errors": [{"code": code, "title": title}]}


# -- what is sent


def test_the_names_are_those_of_the_commands():
    assert tuple(COMMANDS) == NAMES


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_sent_to_its_path(call, carrier, name):
    carrier.answer = (200, {"data": DIALLED}) if name == "dial" else OK
    on = [] if name == "dial" else [CALL]
    needed = NEEDED.get(name, {})
    code, _, err = call(name, *on, *flags(needed))
    assert (code, err) == (0, "")
    ((method, path, key, _),) = carrier.requests
    assert method == ("PUT" if name == "client_state_update" else "POST")
    assert path == ("/v2/calls" if name == "dial" else f"/v2/calls/{CALL}/actions/{name}")
    assert key == f"Bearer {KEY}"
    sent = COMMANDS[name](**needed).body()
    assert carrier.body == sent | ({"stream_type": "raw"} if name == "fork_stop" else {})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_flag_with_help_for_each_parameter(call, name):
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    for parameter, field in COMMANDS[name].model_fields.items():
        flag = f"--{(field.alias or parameter).replace('_', '-')}"
        assert f"\n  {flag} " in out or f"\n  {flag}, " in out
    assert f"example:\n  strep call {name} " in out


def test_help_says_the_range_of_a_number(call):
    _, out, _ = call("dial", "--help")
    words = " ".join(out.split())
    assert "how long it may ring, 5 to 120 (default 30)" in words
    assert "silence that ends the recording; 0 is none (default 0)" in words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_right(call, carrier, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.mp3").write_bytes(b"ID3")
    carrier.answer = (200, {"data": DIALLED}) if name == "dial" else OK
    _, out, _ = call(name, "--help")
    example = out.rstrip().rsplit("\n", 1)[-1].strip()
    code, _, err = call(*shlex.split(example.removeprefix("strep call ")))
    assert (code, err) == (0, "")
    assert len(carrier.requests) == 1


def test_values_have_the_types_of_their_parameters(call, carrier, tmp_path):
    carrier.answer = (200, {"data": DIALLED})
    headers = tmp_path / "headers.json"
    headers.write_text('[{"name": "X-Ticket", "value": "17"}]')
    code, _, err = call(
        *DIAL, "--to", "sip:bob@example.org", "--timeout-secs", "60", "--enable-dialogflow",
        "--no-send-silence-when-idle", "--custom-headers", f"@{headers}",
        "--dialogflow-config", '{"analyze_sentiment": true}', "--client-state", "ticket 17",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert carrier.body == {
        "client_state": "dGlja2V0IDE3",
        "connection_id": "7267",
        "custom_headers": [{"name": "X-Ticket", "value": "17"}],
        "dialogflow_config": {"analyze_sentiment": True},
        "enable_dialogflow": True,
        "from": "+18005550101",
        "send_silence_when_idle": False,
        "timeout_secs": 60,
        "to": ["+18005550100", "sip:bob@example.org"],
    }


def test_a_file_is_sent_as_base64(call, carrier, tmp_path):
    audio = tmp_path / "hello.mp3"
    audio.write_bytes(b"\x00\xffID3")
    assert call("playback_start", CALL, "--playback-content", f"@{audio}")[0] == 0
    assert base64.b64decode(carrier.body["playback_content"]) == b"\x00\xffID3"


def test_a_password_can_be_in_a_file(call, carrier, tmp_path):
    carrier.answer = (200, {"data": DIALLED})
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    assert call(*DIAL, "--sip-auth-password", f"@{file}")[0] == 0
    assert carrier.body["sip_auth_password"] == "hunter2"  # noqa: S105 -- not one
    assert call(*DIAL, "--sip-auth-password", f"@{tmp_path / 'nowhere'}")[0] == 2
    assert len(carrier.requests) == 1


def test_parameters_without_a_flag_are_json_or_else_text(call, carrier):
    code, _, err = call(
        "hangup", CALL, "--set", "custom=[1, true]", "--set", "reason=busy", "--set", "code=007"
    )
    assert (code, err) == (0, "")
    assert carrier.body == {"custom": [1, True], "reason": "busy", "code": "007"}


def test_flags_come_before_the_environment(call, carrier, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_text("KEY-of-the-file\n")
    monkeypatch.setenv("STREP_CONTROL_BASE_URL", "http://192.0.2.1/v2")
    code, _, err = call("hangup", CALL, "--base-url", carrier.base_url, "--api-key-file", str(key))
    assert (code, err) == (0, "")
    assert carrier.requests[0][2] == "Bearer KEY-of-the-file"


# -- what is printed


def test_dial_prints_the_ids_of_the_call(call, carrier):
    carrier.answer = (200, {"data": DIALLED})
    code, out, err = call(*DIAL)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"call_control_id  {CALL}",
        "call_leg_id      2dc6fc34-f9e0-11ea-b68e-02420a0f7768",
        "call_session_id  2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
    ]


def test_the_result_is_printed(call, carrier):
    assert call("answer", CALL) == (0, "ok\n", "")
    carrier.answer = refusal(422, "90018", "Call has already ended")
    assert call("hangup", CALL) == (0, "the call has ended already\n", "")


def test_json_is_the_answer_of_the_carrier(call, carrier):
    code, out, err = call("hangup", CALL, "--json")
    assert (code, json.loads(out), err) == (0, {"result": "ok", "already_ended": False}, "")
    carrier.answer = (200, {"data": DIALLED | {"new": [1]}})
    code, out, err = call(*DIAL, "--json")
    assert (code, json.loads(out), err) == (0, DIALLED | {"new": [1]}, "")


# -- what is wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dial", "--from", "+18005550101"), "dial: connection_id is missing"),
        (
            (*DIAL, "--timeout-secs", "4"),
            "dial: timeout_secs: '4' is not a whole number from 5 to 120",
        ),
        (
            (*DIAL, "--audio-url", "http://x/a.wav", "--media-name", "a"),
            "dial: media_name cannot be given together with audio_url",
        ),
        (
            ("fork_start", CALL, "--target", "192.0.2.1:9000"),
            f"fork_start: target: '192.0.2.1:9000' is not {A_TARGET}",
        ),
        (
            ("bridge", CALL),
            "bridge: call_control_id or queue is missing",
        ),
        (("hangup", "v3 call"), "hangup: call_control_id: 'v3 call' does not name a call"),
        (("hangup", CALL, "--set", "x"), "--set: 'x' is not NAME=VALUE"),
        (
            ("hangup", CALL, "--command-id", "1", "--set", "command_id=2"),
            "--set: command_id is given twice",
        ),
        (
            ("hangup", CALL, "--base-url", "ftp://x"),
            "'ftp://x' is not the URL of an API, such as https://api.telnyx.com/v2",
        ),
        (
            ("hangup", CALL, "--api-key-file", "/nothing"),
            "/nothing: cannot be read as an API key: No such file or directory",
        ),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_sent(call, carrier, arguments, message):
    assert call(*arguments) == (2, "", f"strep: {message}\n")
    assert carrier.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dial", "--custom-headers", "{"), "'{' is not JSON"),
        (("dial", "--custom-headers", "@/nothing"), "/nothing cannot be read"),
        (("hangup", CALL, "--timeout", "0"), "0 is not a number of seconds"),
        (("hang_up", CALL), "invalid choice: 'hang_up'"),
        (("hangup", CALL, "--nothing", "1"), "unrecognized arguments: --nothing 1"),
    ],
)
def test_what_the_parser_refuses_is_told(call, carrier, arguments, message):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert carrier.requests == []


def test_without_a_key_nothing_is_sent(call, carrier, monkeypatch):
    for name in ("STREP_API_KEY", "STREP_API_KEY_FILE", "TELNYX_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = call("hangup", CALL)
    assert (code, out) == (2, "")
    assert err == (
        "strep: there is no API key: set STREP_API_KEY to it or STREP_API_KEY_FILE to a file that"
        " holds it\n"
    )
    assert carrier.requests == []


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (
            refusal(401, "10009", "Authentication failed"),
            2,
            "401, code 10009: Authentication failed",
        ),
        (refusal(404, "10005", "Not found"), 2, "404, code 10005: Not found"),
        (refusal(422, "10015", "Bad Request"), 2, "422, code 10015: Bad Request"),
        (refusal(422, "10015", "\x1b[31mBad\n"), 2, "422, code 10015: \ufffd[31mBad"),
        (refusal(500, "10007", "Trouble"), 1, "500, code 10007: Trouble"),
        (refusal(429, "10011", "Too many"), 1, "429, code 10011: Too many"),
    ],
)
def test_what_the_carrier_refuses_is_one_line(call, carrier, answer, code, message):
    carrier.answer = answer
    expected = f"strep: answer: the carrier answered {message}\n"
    assert call("answer", CALL, "--timeout", "0.1") == (code, "", expected)


def test_carrier_that_does_not_answer_is_one_line(call, carrier):
    carrier.server_close()
    code, out, err = call("answer", CALL, "--timeout", "0.1")
    assert (code, out) == (1, "")
    assert err.startswith("strep: answer: no answer from 127.0.0.1: ")
    assert err.count("\n") == 1


def test_retries_are_not_told_on_the_way(carrier):
    carrier.answer = (500, {})
    ran = subprocess.run(
        [sys.executable, "-m", "strep", "call", "answer", CALL, "--timeout", "0.5", "--json"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"STREP_CONTROL_BASE_URL": carrier.base_url, "STREP_API_KEY": KEY},
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "strep: answer: the carrier answered 500\n"
    assert len(carrier.requests) > 1
