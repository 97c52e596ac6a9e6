"""The daemon between a carrier and its recordings: real processes, sockets, commands, webhooks."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import soundfile
from controlled import (
    CHANNELS,
    answer,
    controlled,
    get,
    leg_of,
    logs_of,
    manifests,
    post,
    recorded,
    stored,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from loopback import needs_steering
from wirecases import rtp, strep

from strep.control.webhooks import sign
from strep.simulator import LocalCarrier, difference, expected_audio

FLUSHED = "wav:flush_s=0.1"
KEY = bytes(range(32))
AT_ONCE = {"inbound": "agent", "outbound": "agent"}
"""Both sides speak within the first second."""


def hang_up(carrier, serve, call):
    """End the call, let its recordings be finished; return what the carrier sent of it."""
    carrier.hang_up(call)
    carrier.drain()
    serve.wait_until(lambda: serve.metrics()["strep_tracks_open"] == 0, "all tracks are closed")
    return logs_of(carrier, call)


def assert_all_is_recorded(folder, leg, logs):
    """One recording of the call leg holds what the carrier sent of it, sample for sample."""
    (manifest,) = manifests(folder, leg)
    samples = recorded(folder, manifest)
    assert set(samples) == {"inbound", "outbound"}
    for direction, log in logs.items():
        assert difference(expected_audio(log), samples[direction]) is None
    return manifest


def assert_end_is_recorded(folder, manifest, logs):
    """The recording holds what the carrier sent last, sample for sample."""
    for direction, samples in recorded(folder, manifest).items():
        expected = expected_audio(logs[direction]).pcm
        assert 800 < len(samples) < len(expected)
        assert np.array_equal(samples, expected[-len(samples) :])


def assert_beginning_is_recorded(path, logs):
    """The unfinished file holds what the carrier sent first, from the first sound on."""
    pcm, _ = soundfile.read(io.BytesIO(path.read_bytes()), dtype="int16")
    for channel, direction in enumerate(CHANNELS):
        written = np.trim_zeros(pcm[:, channel])
        expected = np.trim_zeros(expected_audio(logs[direction]).pcm)
        assert len(written) > 800
        assert np.array_equal(written, expected[: len(written)])


@pytest.mark.parametrize("way", ["target", "ports"])
@pytest.mark.parametrize("workers", [1, 2])
def test_answered_call_is_forked_recorded_and_remembered(tmp_path, way, workers):
    if workers > 1:
        needs_steering(workers)
    with (
        LocalCarrier(speed=4) as carrier,
        controlled(
            tmp_path, carrier, "--workers", str(workers), "--reorder-ms", "200",
            auto_fork="*", fork_way=way, admission="known",
        ) as serve,
        serve,
    ):  # fmt: skip
        call = answer(carrier)
        leg = leg_of(carrier, call)
        serve.wait_for("strep_packets_total", 400)
        (listed,) = get(serve, "/v1/calls")["calls"]
        (fork,) = get(serve, "/v1/forks")["forks"]
        assert get(serve, "/readyz") == {"ready": True, "reasons": []}
        logs = hang_up(carrier, serve, call)
        serve.wait_until(
            lambda: serve.metrics()["strep_port_pairs{held}"] == 0, "the ports are back"
        )
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert (listed["call_leg_id"], listed["from"], listed["direction"], listed["state"]) == (
        leg, "+15550100000", "incoming", "answered",
    )  # fmt: skip
    assert len(listed["tracks"]) == 2
    assert (fork["state"], fork["why"], fork["way"]) == ("flowing", "packet", way)
    manifest = assert_all_is_recorded(tmp_path, leg, logs)
    facts = manifest["call"]
    assert (facts["from"], facts["to"], facts["direction"]) == (
        "+15550100000", "+15550199999", "incoming",
    )  # fmt: skip
    assert (facts["call_control_id"], facts["fork_id"]) == (call, fork["id"])
    # told after the track was opened
    assert (facts["state"], facts["hangup_cause"]) == ("hangup", "normal_clearing")
    assert "earlier" not in manifest
    details = stored(tmp_path, leg)
    assert details.overview.call.from_number == "+15550100000"
    assert [each.state for each in details.forks] == ["stopped"]
    assert [track.reason for track in details.tracks] == ["closed", "closed"]
    (name,) = manifest["recordings"]
    assert {track.recording for track in details.tracks} == {str(tmp_path / name)}
    assert metrics["strep_webhooks_total{accepted}"] == 5
    assert metrics["strep_commands_total{fork_start,done}"] == 1
    assert metrics["strep_fork_changes_total{flowing,packet}"] == 1
    assert metrics["strep_datagrams_total{unknown_leg}"] == 0


@pytest.mark.parametrize("way", ["target", "ports"])
def test_call_of_a_killed_daemon_goes_on_in_a_second_segment(tmp_path, way):
    with (
        LocalCarrier(audio=AT_ONCE) as carrier,
        controlled(
            tmp_path, carrier, "--sink", FLUSHED, auto_fork="*", fork_way=way, admission="known"
        ) as serve,
    ):
        with serve:
            call = answer(carrier)
            leg = leg_of(carrier, call)
            serve.wait_for("strep_packets_total", 120)
            (fork,) = get(serve, "/v1/forks")["forks"]
        with serve:
            serve.wait_for("strep_packets_total", 20)
            serve.wait_until(
                lambda: "recordings that a killed process had left" in serve.log.read_text(),
                "what the first one left is finished",
            )
            (again,) = get(serve, "/v1/forks")["forks"]
            logs = hang_up(carrier, serve, call)
            assert serve.stop() == 0
    assert (again["id"], again["state"]) == (fork["id"], "flowing")
    left, manifest = manifests(tmp_path, leg)
    assert_end_is_recorded(tmp_path, manifest, logs)
    assert manifest["call"]["from"] == "+15550100000"
    assert not list(tmp_path.glob("*.part"))
    part = tmp_path / left["recordings"][0]
    assert_beginning_is_recorded(part, logs)
    assert left["reason"] == "interrupted"
    whose = {key: left["call"][key] for key in ("call_control_id", "from", "to", "fork_id")}
    assert whose == {
        "call_control_id": call,
        "from": "+15550100000",
        "to": "+15550199999",
        "fork_id": fork["id"],
    }
    assert manifest["earlier"] == [
        {
            "recording": part.name,
            "started_at": left["started_at"],
            "ended_at": left["ended_at"],
        }
    ]
    assert left["started_at"] < manifest["started_at"]
    tracks = stored(tmp_path, leg).tracks
    assert [(Path(t.recording).name, t.reason) for t in tracks] == [
        (part.name, "interrupted"),
        (part.name, "interrupted"),
        (manifest["recordings"][0], "closed"),
        (manifest["recordings"][0], "closed"),
    ]


def test_call_of_a_stopped_daemon_goes_on_in_a_second_segment(tmp_path):
    with (
        LocalCarrier(audio=AT_ONCE) as carrier,
        controlled(tmp_path, carrier, auto_fork="*") as serve,
    ):
        with serve:
            call = answer(carrier)
            leg = leg_of(carrier, call)
            serve.wait_for("strep_packets_total", 40)
            assert serve.stop() == 0
        with serve:
            serve.wait_for("strep_packets_total", 20)
            logs = hang_up(carrier, serve, call)
            assert serve.stop() == 0
    first, second = manifests(tmp_path, leg)
    assert "earlier" not in first
    assert second["earlier"] == [
        {
            "recording": first["recordings"][0],
            "started_at": first["started_at"],
            "ended_at": first["ended_at"],
        }
    ]
    assert [track.reason for track in stored(tmp_path, leg).tracks] == [
        "end", "end", "closed", "closed",
    ]  # fmt: skip
    assert_end_is_recorded(tmp_path, second, logs)


@pytest.mark.parametrize("way", ["target", "ports"])
def test_call_of_a_killed_worker_goes_on_in_a_second_segment(tmp_path, way):
    needs_steering(2)
    with (
        LocalCarrier(audio=AT_ONCE) as carrier,
        controlled(
            tmp_path, carrier, "--workers", "2", "--sink", FLUSHED,
            auto_fork="*", fork_way=way, admission="known",
        ) as serve,
        serve,
    ):  # fmt: skip
        call = answer(carrier)
        leg = leg_of(carrier, call)
        serve.wait_for("strep_packets_total", 120)
        number = get(serve, "/v1/calls")["calls"][0]["worker"]
        os.kill(get(serve, "/healthz")["workers"][number]["pid"], signal.SIGKILL)
        serve.wait_for("strep_worker_restarts_total", 1)
        serve.wait_for("strep_tracks_opened_total", 4)
        packets = serve.metrics()["strep_packets_total"]
        serve.wait_for("strep_packets_total", packets + 20)
        logs = hang_up(carrier, serve, call)
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_datagrams_total{unknown_leg}"] == 0
    first, second = manifests(tmp_path, leg)
    assert not list(tmp_path.glob("*.part"))
    assert first["reason"] == "interrupted"
    assert_beginning_is_recorded(tmp_path / first["recordings"][0], logs)
    assert_end_is_recorded(tmp_path, second, logs)
    assert [each["call"]["from"] for each in (first, second)] == ["+15550100000"] * 2
    assert [each["recording"] for each in second["earlier"]] == first["recordings"]
    details = stored(tmp_path, leg)
    assert [track.reason for track in details.tracks] == [
        "interrupted", "interrupted", "closed", "closed",
    ]  # fmt: skip
    assert [(each.state, each.why) for each in details.forks] == [("stopped", "webhook")]


def test_workers_of_a_killed_daemon_finish_recordings_that_the_next_one_finds(tmp_path):
    needs_steering(2)
    with (
        LocalCarrier(audio=AT_ONCE) as carrier,
        controlled(tmp_path, carrier, "--workers", "2", auto_fork="*") as serve,
    ):
        with serve:
            call = answer(carrier)
            leg = leg_of(carrier, call)
            serve.wait_for("strep_packets_total", 40)
            serve.process.kill()
            serve.process.wait()
        deadline = time.monotonic() + 10
        while not list(tmp_path.glob("*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with serve:
            serve.wait_for("strep_packets_total", 20)
            hang_up(carrier, serve, call)
            assert serve.stop() == 0
    first, second = manifests(tmp_path, leg)
    assert [each["recording"] for each in second["earlier"]] == first["recordings"]
    tracks = stored(tmp_path, leg).tracks
    assert [track.reason for track in tracks] == ["end", "end", "closed", "closed"]
    assert {track.packets for track in tracks[:2]} == {t["packets"] for t in first["tracks"]}


def test_packets_before_the_webhook_are_recorded_and_strangers_are_not(tmp_path):
    """The carrier's webhooks are lost; one comes late, from our own hand."""
    key = Ed25519PrivateKey.from_private_bytes(KEY)
    stranger = uuid4()
    with (
        LocalCarrier(signing_key=KEY) as carrier,
        controlled(
            tmp_path, carrier, "--reorder-ms", "200", admission="known", pending_leg_s=1
        ) as serve,
        serve,
    ):
        carrier.webhook_url = None
        call = answer(carrier)
        leg = leg_of(carrier, call)
        carrier.command("fork_start", call, target=f"udp:{serve.media}")
        serve.wait_for("strep_packets_pending", 20)
        assert serve.metrics()["strep_legs_pending"] == 1
        assert get(serve, "/v1/calls")["calls"] == []
        body = json.dumps(
            {
                "data": {
                    "record_type": "event",
                    "event_type": "call.answered",
                    "id": str(uuid4()),
                    "occurred_at": "2026-01-31T12:00:00.000000Z",
                    "payload": {
                        "call_control_id": call,
                        "call_leg_id": leg,
                        "call_session_id": str(uuid4()),
                        "connection_id": "7267",
                        "from": "+15550100000",
                        "to": "+15550199999",
                    },
                }
            }
        ).encode()
        altered = body.replace(b"+15550100000", b"+15550166666")
        headers = sign(body, key, time.time())
        assert post(serve, "/webhooks", altered, headers) == 401
        stale = sign(body, key, time.time() - 600)
        assert post(serve, "/webhooks", body, stale) == 401
        assert get(serve, "/v1/calls")["calls"] == []
        assert post(serve, "/webhooks", body, headers) == 200
        assert post(serve, "/webhooks", body, headers) == 200
        serve.wait_for("strep_tracks_opened_total", 2)
        packet = strep(rtp(bytes(160), sequence=1, timestamp=0, ssrc=7), stranger)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(packet, serve.to)
        serve.wait_for("strep_datagrams_total{unknown_leg}", 3)
        carrier.hang_up(call)
        carrier.drain()
        logs = logs_of(carrier, call)
        sent = sum(log.counts()["datagrams"] for log in logs.values())
        serve.wait_for("strep_datagrams_read_total", sent + 3)
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_datagrams_total{unknown_leg}"] == 3
    assert metrics["strep_webhooks_total{bad_signature}"] == 1
    assert metrics["strep_webhooks_total{stale}"] == 1
    assert metrics["strep_webhooks_total{accepted}"] == 1
    assert metrics["strep_webhooks_total{replayed}"] == 1
    # from the first packet on, with the times at which they came
    manifest = assert_all_is_recorded(tmp_path, leg, logs)
    assert manifest["call"]["from"] == "+15550100000"
    assert not list(tmp_path.glob(f"*{stranger}*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_port_that_another_program_has_is_passed_over(tmp_path, workers):
    if workers > 1:
        needs_steering(workers)
    with (
        LocalCarrier() as carrier,
        controlled(
            tmp_path, carrier, "--workers", str(workers), auto_fork="*", fork_way="ports"
        ) as serve,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
    ):
        low = int(serve._env["STREP_CONTROL_PORT_RANGE"].partition("-")[0])
        taken.bind(("127.0.0.1", low + 1))
        with serve:
            answer(carrier)
            serve.wait_for("strep_packets_total", 10)
            (fork,) = get(serve, "/v1/forks")["forks"]
            assert serve.stop() == 0
    assert (fork["state"], fork["rx_port"], fork["tx_port"]) == ("flowing", low + 2, low + 3)
    warned = [json.loads(line) for line in serve.log.read_text().splitlines()]
    assert [(line["rx"], line["error"]) for line in warned if line["level"] == "warning"] == [
        (low, f"cannot listen on 127.0.0.1:{low + 1}: Address already in use")
    ]
