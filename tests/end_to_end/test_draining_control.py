"""A daemon that controls calls drains: those that run are recorded whole, no other is forked."""

from __future__ import annotations

import json
import signal

from controlled import answer, controlled, leg_of, logs_of, manifests, post, recorded

from strep.simulator import LocalCarrier, difference, expected_audio


def test_running_call_is_recorded_to_its_end_and_no_other_is_forked(tmp_path):
    with (
        LocalCarrier(speed=4) as carrier,
        controlled(
            tmp_path, carrier, "--drain-timeout-s", "60", "--reorder-ms", "200", auto_fork="*"
        ) as serve,
        serve,
    ):
        call = answer(carrier)
        serve.wait_for("strep_packets_total", 100)
        serve.process.send_signal(signal.SIGTERM)
        request = json.dumps({"call_control_id": call}).encode()
        serve.wait_until(lambda: post(serve, "/v1/forks", request) == 503, "it drains")
        other = answer(carrier, 1)
        serve.wait_for("strep_events_total{call.answered}", 2)
        serve.wait_until(
            lambda: serve.metrics().get("strep_forks_refused_total{draining}", 0) >= 2, "refused"
        )
        carrier.hang_up(call)
        # the end of its last call is the end of the daemon
        assert serve.process.wait(20) == 0
        (manifest,) = manifests(tmp_path, leg_of(carrier, call))
        samples = recorded(tmp_path, manifest)
        for direction, log in logs_of(carrier, call).items():
            assert difference(expected_audio(log), samples[direction]) is None
        assert logs_of(carrier, other) == {}
    assert not list(tmp_path.glob("*.part"))
