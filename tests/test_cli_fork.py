"""`strep fork`, as people use and misuse it, against the HTTP interface of a daemon."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest
import structlog
from aiohttp import web
from apibench import ApiBench
from loopback import free_port
from planebench import OK, refusal

from strep import cli
from strep.cli import output

CALL = "v3:call-1"
LEG = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
UNKNOWN_ID = "5f7d7b0e-8a57-4bd0-b8a3-7d3a0c7a4a01"
PORTS = {"port_range": "20000-20003", "advertised_host": "192.0.2.1"}
TOKEN = "s3cret"  # noqa: S105 -- the test's own


@pytest.fixture(autouse=True)
def _no_log():
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def api(tmp_path):
    with ApiBench(tmp_path, plane=PORTS) as bench:
        yield bench


@pytest.fixture
def fork(capsys, monkeypatch):
    """Run `strep fork` in this process; return (exit code, stdout, stderr)."""
    monkeypatch.setattr(output.err, "_width", 1000)

    def run(api, *arguments, columns=80):
        monkeypatch.setattr(output.out, "width", columns)
        monkeypatch.setenv("STREP_DAEMON", api if isinstance(api, str) else api.url)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["fork", *arguments])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


def started(api, **wanted):
    return api.post("/v1/forks", {"call_control_id": CALL} | wanted).document["id"]


def only(api):
    (document,) = api.get("/v1/forks").document["forks"]
    return document


# -- start


def test_start_prints_the_fork(fork, api):
    code, out, err = fork(api, "start", CALL)
    assert (code, err) == (0, "")
    assert out == f"{only(api)['id']} requested\n"


def test_start_asks_for_what_was_said(fork, api):
    code, out, err = fork(
        api, "start", CALL, "--leg", LEG, "--way", "ports", "--stream-type", "decrypted",
        "--client-state", "ticket 17", "--codecs", "OPUS,PCMU", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document == only(api)
    assert (document["way"], document["stream_type"]) == ("ports", "decrypted")
    assert (document["call_leg_id"], document["rx_port"]) == (LEG, 20_000)
    ((_, _, sent),) = api.one.carrier.commands
    assert sent["client_state"] == "dGlja2V0IDE3"
    assert "codecs" not in sent
    assert api.one.plane.calls.facts(UUID(LEG))["codecs"] == "OPUS,PCMU"


def test_doubt_is_said_on_standard_error(fork, api):
    api.one.carrier.replies.append(refusal(500, "10007", "Trouble"))
    code, out, err = fork(api, "start", CALL)
    assert (code, out) == (0, f"{only(api)['id']} requested\n")
    assert err == (
        "strep: in doubt, and the daemon will ask again: fork_start: the carrier answered 500,"
        " code 10007: Trouble\n"
    )


# -- stop


@pytest.mark.parametrize("length", [36, 8])
def test_stop_takes_an_id_or_the_beginning_of_one(fork, api, length):
    fork_id = started(api)
    assert fork(api, "stop", fork_id[:length]) == (0, f"{fork_id} stopped\n", "")
    assert only(api)["state"] == "stopped"


def test_stop_prints_json(fork, api):
    fork_id = started(api)
    code, out, _ = fork(api, "stop", fork_id, "--json")
    assert (code, json.loads(out)) == (0, only(api))


def test_stop_refuses_a_beginning_of_several(fork, api):
    ids = [started(api), started(api, call_control_id="v3:call-2")]
    assert fork(api, "stop", "") == (
        2, "", f"strep: several forks begin with : {', '.join(ids)}\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fork_id", "message"),
    [
        (UNKNOWN_ID, f"there is no fork {UNKNOWN_ID}, or it was closed long ago"),
        ("xyz", "there is no fork xyz"),
    ],
)
def test_stop_of_an_unknown_fork_is_one_line(fork, api, fork_id, message):
    assert fork(api, "stop", fork_id) == (2, "", f"strep: {message}\n")


# -- list


def test_the_list_fits_80_columns(fork, api):
    ids = [
        started(api, call_leg_id=LEG, way="ports"),
        started(api, call_control_id="v3:call-2"),
    ]
    code, out, err = fork(api, "list")
    assert (code, err) == (0, "")
    assert [line.rstrip() for line in out.splitlines()] == [
        "fork     began (UTC) call leg call      way                state     why",
        f"{ids[0][:8]} 22:13:20    428c31b6 v3:call-1 ports 20000, 20001 requested asked",
        f"{ids[1][:8]} 22:13:20    -        v3:call-2 target             requested asked",
    ]


def test_a_wide_terminal_is_shown_more(fork, api):
    api.one.carrier.replies += [OK, refusal(500, "10007", "Trouble")]
    fork_id = started(api)
    api.delete(f"/v1/forks/{fork_id}")
    head, line = fork(api, "list", columns=200)[1].splitlines()
    assert head.split()[-4:] == ["stream", "state", "why", "error"]
    assert line.startswith(f"{fork_id}  ")
    assert "stopping" in line
    assert line.rstrip().endswith("fork_stop: the carrier answered 500, code 10007: Trouble")


def test_closed_forks_are_listed_where_all_are_wanted(fork, api):
    fork_id = started(api)
    api.delete(f"/v1/forks/{fork_id}")
    assert fork(api, "list") == (0, "no forks\n", "")
    assert "stopped" in fork(api, "list", "--all")[1]
    assert json.loads(fork(api, "list", "--json")[1]) == {"forks": []}
    assert json.loads(fork(api, "list", "--all", "--json")[1]) == {"forks": [only(api)]}


# -- the token


def test_the_token_comes_from_a_file_or_the_environment(fork, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with ApiBench(tmp_path, plane={}, token=TOKEN) as api:
        code, out, err = fork(api, "list")
        assert (code, out) == (2, "")
        assert err == (
            f"strep: {api.url} asks for another token: set STREP_HTTP_TOKEN to it, or give"
            " --token-file\n"
        )
        assert fork(api, "list", "--token-file", str(file)) == (0, "no forks\n", "")
        monkeypatch.setenv("STREP_HTTP_TOKEN", TOKEN)
        assert fork(api, "list") == (0, "no forks\n", "")


# -- what is wrong


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (refusal(401, "10009", "No"), 1, "fork_start: the carrier answered 401, code 10009: No"),
        (refusal(404, "10005", "No"), 2, "fork_start: the carrier answered 404, code 10005: No"),
        (refusal(422, "10015", "No"), 2, "fork_start: the carrier answered 422, code 10015: No"),
    ],
)
def test_what_the_carrier_refuses_is_one_line(fork, api, reply, code, message):
    api.one.carrier.replies.append(reply)
    assert fork(api, "start", CALL) == (code, "", f"strep: {message}\n")


def test_second_fork_of_a_call_is_one_line(fork, api):
    fork_id = started(api)
    message = f"strep: the call has a fork already, {fork_id}, which is requested\n"
    assert fork(api, "start", CALL) == (2, "", message)


def test_wrong_leg_is_one_line(fork, api):
    message = f"strep: 'x' is not a UUID, such as {LEG}\n"
    assert fork(api, "start", CALL, "--leg", "x") == (2, "", message)


def test_daemon_without_a_control_plane_is_one_line(fork, tmp_path):
    with ApiBench(tmp_path) as api:
        message = "strep: the daemon's settings have no section [control]\n"
        assert fork(api, "list") == (1, "", message)


def test_no_daemon_is_one_line(fork):
    url = f"http://127.0.0.1:{free_port(1)}"
    message = f"strep: no daemon answers at {url}: Connection refused\n"
    assert fork(url, "list") == (1, "", message)


def test_what_is_no_url_is_one_line(fork):
    message = (
        "strep: --daemon: 'localhost:8080' is not the URL of a daemon, such as"
        " http://127.0.0.1:8080\n"
    )
    assert fork("localhost:8080", "list") == (2, "", message)


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (302, ""), (404, "{}"), (500, "[]")])
def test_something_else_at_the_address_is_one_line(fork, tmp_path, status, body):
    async def other(_):
        headers = {"Location": "http://192.0.2.1/"} if status == 302 else {}
        return web.Response(status=status, text=body, headers=headers)

    with ApiBench(tmp_path) as api:
        server = api.do(serve, other)
        url = f"http://127.0.0.1:{server.addresses[0][1]}"
        message = f"strep: {url} answers {status}, but not as a strep daemon does\n"
        assert fork(url, "list") == (1, "", message)
        api.do(server.cleanup)


async def serve(handler):
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


@pytest.mark.parametrize("command", ["start", "stop", "list"])
def test_every_command_has_help_with_an_example(fork, command):
    code, out, _ = fork("", command, "--help")
    assert code == 0
    assert re.search(f"example:\n  strep fork {command}", out)


def test_without_a_command_there_is_help(fork):
    code, _, err = fork("", columns=80)
    assert code == 2
    assert "strep fork: error: the following arguments are required: COMMAND" in err
