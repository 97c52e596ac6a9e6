"""Metrics of the control plane, of webhooks and of the database, for Prometheus."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from strep.control.figures import MemoryFigures, PlaneFigures
    from strep.control.forks import State
    from strep.control.webhooks import WebhookReceiver

_CALLS = {
    "expired": "Calls forgotten without their end having been told",
    "evicted": "Calls forgotten early, to make room",
    "conflicts": "Told pairs of ids that contradicted what was told before",
    "legs_joined": "Call legs heard first and told of in time",
    "legs_expired": "Call legs heard that nobody told of in time",
    "legs_refused": "Call legs heard for which there was no room to wait",
}
_OPEN_STATES: tuple[State, ...] = ("requested", "started", "flowing")


def labelled(
    name: str, text: str, counts: Mapping[str, int], label: str = "reason"
) -> CounterMetricFamily:
    """Return a counter with a sample for each value of a label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def of_webhooks(webhooks: WebhookReceiver) -> Iterator[Metric]:
    """Return what became of webhooks."""
    counts = {outcome.value: count for outcome, count in webhooks.counts.items()}
    yield labelled("strep_webhooks", "Webhooks by what became of them", counts, "outcome")
    yield CounterMetricFamily(
        "strep_webhook_ids_evicted",
        "Ids of events forgotten early, to make room: a replay would not be told apart",
        webhooks.seen.evicted,
    )
    yield CounterMetricFamily(
        "strep_webhook_errors", "Events that could not be processed", webhooks.handler_errors
    )
    yield GaugeMetricFamily(
        "strep_webhooks_waiting", "Events that wait to be processed", webhooks.waiting
    )


def of_memory(memory: MemoryFigures) -> Iterator[Metric]:
    """Return how the database keeps up."""
    yield CounterMetricFamily(
        "strep_database_errors", "How often the database could not be written", memory.errors
    )
    yield CounterMetricFamily(
        "strep_database_dropped_tracks",
        "Openings and closings of tracks that are not in the database: too many waited for it",
        memory.dropped_tracks,
    )
    yield GaugeMetricFamily(
        "strep_database_waiting", "Records that wait to be written", memory.waiting
    )


def of_plane(plane: PlaneFigures) -> Iterator[Metric]:
    """Return what the control plane counts."""
    yield labelled("strep_events", "Verified events by type", plane.webhooks, "type")
    yield from _forks(plane)
    for field in fields(plane.calls):
        name = field.name if field.name.startswith("legs") else f"calls_{field.name}"
        count = getattr(plane.calls, field.name)
        yield CounterMetricFamily(f"strep_{name}", _CALLS[field.name], count)
    yield GaugeMetricFamily("strep_calls_known", "Calls that were told of", plane.calls_known)
    yield GaugeMetricFamily(
        "strep_legs_untold", "Call legs that are received and not told of yet", plane.legs_pending
    )
    pairs = GaugeMetricFamily("strep_port_pairs", "Pairs of ports by their use", labels=["state"])
    free = plane.port_pairs - plane.port_pairs_held - plane.port_pairs_resting
    pairs.add_metric(["free"], max(0, free))
    pairs.add_metric(["held"], plane.port_pairs_held)
    pairs.add_metric(["resting"], plane.port_pairs_resting)
    yield pairs


def _forks(plane: PlaneFigures) -> Iterator[Metric]:
    is_open = GaugeMetricFamily("strep_forks", "Open forks by state", labels=["state"])
    for state in _OPEN_STATES:
        is_open.add_metric([state], plane.forks.get(state, 0))
    changes = CounterMetricFamily(
        "strep_fork_changes", "How often forks came into a state, and why", labels=["state", "why"]
    )
    for (state, why), count in plane.fork_changes.items():
        changes.add_metric([state, why], count)
    commands = CounterMetricFamily(
        "strep_commands", "What became of commands", labels=["command", "outcome"]
    )
    for (command, outcome), count in plane.commands.items():
        commands.add_metric([command, outcome], count)
    yield from (is_open, changes, commands)
    yield labelled("strep_forks_refused", "Forks that could not be had", plane.refused)
    yield CounterMetricFamily(
        "strep_foreign_forks", "Webhooks of forks that were not started here", plane.foreign_forks
    )
    yield GaugeMetricFamily(
        "strep_forks_in_doubt",
        "Forks with a command whose outcome is unknown",
        plane.forks_in_doubt,
    )
