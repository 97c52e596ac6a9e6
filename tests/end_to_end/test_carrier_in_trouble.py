"""A carrier that is down, slow or answers rubbish: said in time, no media lost, all resolved."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from carrierprocess import CarrierProcess
from controlled import answer, controlled, get, leg_of, logs_of, manifests, recorded
from loopback import DEADLINE_S, free_port

from strep.simulator import difference, expected_audio

TIMEOUT_S = 1.0
ANSWERED_WITHIN_S = TIMEOUT_S + 10
"""On a busy machine, too; a carrier that is slow takes a minute."""
DOWN = {"kind": "disconnect"}
SLOW = {"kind": "error", "delay_s": 60}
RUBBISH = {"kind": "rubbish"}
CARRIED_OUT = {"kind": "disconnect", "executed": True}
ERROR = {"kind": "error", "status": 503}
REFUSED = "the carrier answered 503, code 10007: Unexpected error: A fault that was asked for."


def start_fork(serve, call):
    """Ask for a fork; return (status, answer), which is to come in time."""
    began_s = time.monotonic()
    with closing(http.client.HTTPConnection(serve.http, timeout=DEADLINE_S)) as connection:
        body = json.dumps({"call_control_id": call})
        connection.request("POST", "/v1/forks", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        document = json.load(response)
    assert time.monotonic() - began_s < ANSWERED_WITHIN_S
    return response.status, document


def test_forks_in_doubt_are_resolved_and_media_is_received_meanwhile(tmp_path):
    with (
        CarrierProcess(
            tmp_path, "--loss", "0.02", "--reorder", "0.01", "--reorder-ms", "40"
        ) as carrier,
        controlled(
            tmp_path, carrier, "--reorder-ms", "400",
            auto_fork="*,from=+15550100000", command_timeout_s=TIMEOUT_S,
        ) as serve,
        serve,
    ):  # fmt: skip
        calls = [answer(carrier, number) for number in range(6)]
        serve.wait_for("strep_events_total{call.answered}", 6)
        serve.wait_for("strep_forks{flowing}", 1)
        # carried out, and the answer is lost: the first packet resolves it
        carrier.fail(command="fork_start", times=0, **CARRIED_OUT)
        _, executed = start_fork(serve, calls[5])
        serve.wait_for("strep_forks{flowing}", 2)
        for call, fault, error in (
            (calls[1], DOWN, "fork_start: no answer from 127.0.0.1: Server disconnected"),
            (calls[2], SLOW, "fork_start: no answer from 127.0.0.1 within 1 s"),
            (calls[3], RUBBISH,
             "fork_start: the answer is not JSON but 24 bytes of 'text/html; charset=utf-8'"),
            (calls[4], ERROR, f"fork_start: {REFUSED}"),
        ):  # fmt: skip
            carrier.heal()
            carrier.fail(command="fork_start", times=0, **fault)
            packets = serve.metrics()["strep_packets_total"]
            status, fork = start_fork(serve, call)
            assert (status, fork["state"], fork["in_doubt"]) == (202, "requested", True)
            assert fork["error"] == error
            # two tracks, 50 packets each second
            serve.wait_for("strep_packets_total", packets + 10)
        metrics = serve.metrics()
        # one may have been asked for again while one fault gave way to the next
        assert metrics["strep_forks_in_doubt"] == metrics["strep_forks{requested}"] >= 3
        assert get(serve, "/readyz")["ready"]
        carrier.heal()
        serve.wait_for("strep_forks{flowing}", 6)
        assert serve.metrics()["strep_forks_in_doubt"] == 0
        forks = {fork["call_control_id"]: fork for fork in get(serve, "/v1/forks")["forks"]}
        for call in calls:
            carrier.hang_up(call)
        carrier.drain()
        serve.wait_until(lambda: serve.metrics()["strep_tracks_open"] == 0, "all is closed")
        legs = [leg_of(carrier, call) for call in calls]
        logs = [logs_of(carrier, call) for call in calls]
        tracks = carrier.logs()
        assert serve.stop() == 0
    assert forks[calls[5]]["id"] == executed["id"]
    # nothing was carried out twice, and nothing that was under way was lost
    assert len(tracks) == 2 * len(calls)
    assert sum(log.counts()["lost"] for log in logs[0].values()) > 0
    for leg, each in zip(legs, logs, strict=True):
        (manifest,) = manifests(tmp_path, leg)
        samples = recorded(tmp_path, manifest)
        for direction, log in each.items():
            assert difference(expected_audio(log), samples[direction]) is None


@contextmanager
def forwarding(port, to):
    """Let connections to a port of loopback go on to another address."""

    async def pump(reader, writer):
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    async def connect(*client):
        server = await asyncio.open_connection(*to)
        with suppress(OSError):
            await asyncio.gather(pump(client[0], server[1]), pump(server[0], client[1]))

    async def forward():
        server = await asyncio.start_server(connect, "127.0.0.1", port)
        told = asyncio.Event()
        started.put((asyncio.get_running_loop(), told))
        await told.wait()
        server.close()

    started = queue.SimpleQueue()
    thread = threading.Thread(target=asyncio.run, args=[forward()], daemon=True)
    thread.start()
    loop, told = started.get(timeout=DEADLINE_S)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(told.set)
        thread.join()


def test_carrier_that_refuses_connections_is_asked_again_until_it_is_back(tmp_path):
    port = free_port(socket.SOCK_STREAM)
    with (
        CarrierProcess(tmp_path) as carrier,
        controlled(
            tmp_path, carrier, "--reorder-ms", "400",
            base_url=f"http://127.0.0.1:{port}/v2", command_timeout_s=TIMEOUT_S,
        ) as serve,
        serve,
    ):  # fmt: skip
        calls = [answer(carrier, number) for number in range(3)]
        serve.wait_for("strep_events_total{call.answered}", 3)
        carrier.command("fork_start", calls[0], target=f"udp:{serve.media}")
        ours = len(carrier.commands())
        serve.wait_for("strep_tracks_opened_total", 2)
        for call in calls[1:]:
            packets = serve.metrics()["strep_packets_total"]
            status, fork = start_fork(serve, call)
            assert (status, fork["state"], fork["in_doubt"]) == (202, "requested", True)
            assert fork["error"] == "fork_start: no answer from 127.0.0.1: Connection refused"
            serve.wait_for("strep_packets_total", packets + 10)
        # one is not wanted any more before the carrier has heard of it
        with closing(http.client.HTTPConnection(serve.http, timeout=DEADLINE_S)) as connection:
            connection.request("DELETE", f"/v1/forks/{fork['id']}")
            response = connection.getresponse()
            document = json.load(response)
        assert (response.status, document["is_stopping"], document["in_doubt"]) == (202, True, True)
        base = urlsplit(carrier.base_url)
        with forwarding(port, (base.hostname, base.port)):
            serve.wait_for("strep_forks{flowing}", 1)
            serve.wait_until(
                lambda: not get(serve, f"/v1/forks/{fork['id']}")["in_doubt"], "it is stopped"
            )
            stopped = get(serve, f"/v1/forks/{fork['id']}")
            assert serve.metrics()["strep_forks_in_doubt"] == 0
            asked = [each["command"] for each in carrier.commands()[ours:]]
            for call in calls:
                carrier.hang_up(call)
            carrier.drain()
            serve.wait_until(lambda: serve.metrics()["strep_tracks_open"] == 0, "all is closed")
            legs = [leg_of(carrier, call) for call in calls[:2]]
            logs = [logs_of(carrier, call) for call in calls[:2]]
            assert serve.stop() == 0
    assert sorted(asked) == ["fork_start", "fork_stop"]
    assert (stopped["state"], stopped["why"]) == ("stopped", "asked")
    for leg, each in zip(legs, logs, strict=True):
        (manifest,) = manifests(tmp_path, leg)
        samples = recorded(tmp_path, manifest)
        for direction, log in each.items():
            assert difference(expected_audio(log), samples[direction]) is None


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (DOWN, "no answer from 127.0.0.1: Server disconnected"),
        (SLOW, "no answer from 127.0.0.1 within 1 s"),
        (RUBBISH, "the answer is not JSON but 24 bytes of 'text/html; charset=utf-8'"),
        (ERROR, REFUSED),
    ],
)
def test_command_line_says_in_time_what_is_wrong_with_the_carrier(tmp_path, fault, sentence):
    with CarrierProcess(tmp_path) as carrier:
        carrier.fail(command="hangup", times=0, **fault)
        began_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "strep", "call", "hangup", answer(carrier),
             "--base-url", carrier.base_url, "--timeout", str(TIMEOUT_S)],
            env=os.environ | {"STREP_API_KEY": carrier.api_key},
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert time.monotonic() - began_s < ANSWERED_WITHIN_S
        assert [call["state"] for call in carrier.calls()] == ["answered"]
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"strep: hangup: {sentence}\n"
