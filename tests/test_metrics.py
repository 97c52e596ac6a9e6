from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from strep.control.calls import CallCounts
from strep.control.figures import MemoryFigures, PlaneFigures
from strep.control.webhooks import WebhookReceiver
from strep.figures import Figures, Overview, WorkerView
from strep.metrics import exposition

PLANE = PlaneFigures(
    webhooks={"call.answered": 2, "other": 1},
    fork_changes={("stopped", "hangup"): 3},
    commands={("fork_start", "unknown"): 4},
    refused={"no_ports": 5},
    foreign_forks=6,
    calls=CallCounts(expired=7, legs_joined=8),
    forks={"flowing": 9},
    forks_in_doubt=10,
    calls_known=11,
    legs_pending=12,
    port_pairs=20,
    port_pairs_held=13,
    port_pairs_resting=4,
)
WITH_CONTROL = {
    "strep_events_total{call.answered}": 2,
    "strep_events_total{other}": 1,
    "strep_fork_changes_total{stopped,hangup}": 3,
    "strep_commands_total{fork_start,unknown}": 4,
    "strep_forks_refused_total{no_ports}": 5,
    "strep_foreign_forks_total": 6,
    "strep_calls_expired_total": 7,
    "strep_calls_evicted_total": 0,
    "strep_calls_conflicts_total": 0,
    "strep_legs_joined_total": 8,
    "strep_legs_expired_total": 0,
    "strep_legs_refused_total": 0,
    "strep_forks{requested}": 0,
    "strep_forks{started}": 0,
    "strep_forks{flowing}": 9,
    "strep_forks_in_doubt": 10,
    "strep_calls_known": 11,
    "strep_legs_untold": 12,
    "strep_port_pairs{free}": 3,
    "strep_port_pairs{held}": 13,
    "strep_port_pairs{resting}": 4,
    "strep_database_errors_total": 14,
    "strep_database_dropped_tracks_total": 15,
    "strep_database_waiting": 16,
    "strep_webhooks_total{malformed}": 1,
    "strep_webhooks_total{accepted}": 0,
    "strep_webhook_errors_total": 0,
    "strep_webhooks_waiting": 0,
    "strep_webhook_ids_evicted_total": 0,
}


def samples(**of):
    figures = Figures(
        tracks_distributed={"mos": {"4.0": 1, "4.4": 2, "+Inf": 3, "sum": 25.5}},
        rtcp={"matched": 22},
        datagrams={"unknown_leg": 17},
        waiting={"pending": 18},
        legs_pending=19,
        news_dropped=20,
        manifests_failed=24,
    )
    text = exposition(Overview([WorkerView(0, 1, "up", figures)]), 21, **of).decode()
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}" if sample.labels else sample.name:
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_control_plane_database_and_webhooks_are_measured():
    webhooks = WebhookReceiver(print, public_key=None, allow_unsigned=True)
    webhooks.receive(b"no JSON", None, None, 0)
    measured = samples(memory=MemoryFigures(14, 15, 16), plane=PLANE, webhooks=webhooks)
    assert {name: measured[name] for name in WITH_CONTROL} == WITH_CONTROL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strep_datagrams_total{unknown_leg}", 17),
        ("strep_packets_pending", 18),
        ("strep_legs_pending", 19),
        ("strep_track_news_dropped_total", 20),
        ("strep_manifests_failed_total", 24),
        ("strep_kernel_drops_total", 21),
        ("strep_rtcp_total{matched}", 22),
        # buckets are cumulative
        ("strep_track_mos_bucket{4.0}", 1),
        ("strep_track_mos_bucket{4.4}", 3),
        ("strep_track_mos_bucket{+Inf}", 6),
        ("strep_track_mos_count", 6),
        ("strep_track_mos_sum", 25.5),
    ],
)
def test_what_there_is_of_each_daemon(name, value):
    measured = samples()
    assert measured[name] == value
    assert not WITH_CONTROL.keys() & measured.keys()
