from __future__ import annotations

import shutil

import pytest

from bench import accounting, comparison, measure, receivers, series
from bench.accounting import CpuTime
from bench.measure import Load, Run, notes_on
from bench.report import Context, Report
from bench.traffic import Traffic


def run(*, us=1.0, sent=1000, drops=0, **changes):
    values = {
        "rate_pps": 50_000.0, "wanted_pps": 50_000.0, "errors": {}, "sent": sent, "cpu_s": 0.1,
    }  # fmt: skip
    values |= {k: changes.pop(k) for k in list(changes) if k in values}
    settings = {"backlog_drops": 0, "foreign": (0.0, 0.0), "stolen": (0.0, 0.0)} | changes
    seconds = us * 1e-6 * (sent - drops)
    return Run(
        Load(values), CpuTime(seconds / 4, seconds * 3 / 4, seconds), 0.02, drops, **settings
    )


def test_cost_is_per_packet_that_arrived():
    one = run(us=2.0, sent=1000, drops=200)
    assert one.arrived == 800
    assert one.us_per_packet == pytest.approx(2.0)
    assert one.core_share == pytest.approx(0.08)
    facts = one.as_dict()
    assert (facts["user_us"], facts["system_us"]) == (0.5, 1.5)


def test_clean_runs_need_no_words():
    assert notes_on({"floor": [run(), run()]}) == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"rate_pps": 30_000.0}, "floor: the sender reached only 60% of the rate"),
        ({"errors": {"ENOBUFS": 1200}}, "floor: the sender had errors: 1,200 ENOBUFS"),
        ({"backlog_drops": 5}, "floor: 5 packets were lost between sender and socket"),
        ({"missing": 7}, "floor: up to 7 packets of a run did not come out"),
        (
            {"foreign": (0.5, 0.0)},
            (
                "other processes took up to 50% of the receivers' core: the figures are worse "
                "than on an idle machine"
            ),
        ),
        ({"stolen": (0.0, 0.25)}, "the hypervisor took up to 25% of the sender's core"),
    ],
)
def test_what_disturbed_is_said(changes, note):
    assert notes_on({"floor": [run(), run(**changes)]}) == [note]


def test_ratios_are_taken_round_by_round():
    ours = {0: run(us=2.0), 1: run(us=4.0), 2: run(us=3.0)}
    theirs = {0: run(us=8.0), 1: run(us=8.0), 2: run(us=9.0)}
    assert series.ratio(theirs, ours) == 3.0
    assert series.ratio(theirs, {}) is None
    assert series.ratio(theirs, {0: run(sent=10, drops=10)}) is None


def test_ratios_are_of_rounds_that_both_have_run():
    assert series.ratio({0: run(us=2.0), 2: run(us=6.0)}, {1: run(us=1.0), 2: run(us=2.0)}) == 3.0


def test_cases_are_measured_in_turn(tmp_path):
    told, measured = [], []
    report = Report("workers", [])
    context = Context(tmp_path, progress=lambda what, share: told.append((what, share)))

    def measure_one(case):
        measured.append(case)
        if measured == ["a", "b", "a"]:
            raise receivers.ReceiverError("it did not start")
        return run(us=len(measured), missing=2 * (case == "b"))

    runs = series.in_turn(context, report, 2, {"a": "case A", "b": "case B"}, measure_one)
    assert measured == ["a", "b", "a", "b"]
    assert told == [
        ("round 1 of 2, case A", 0.0),
        ("round 1 of 2, case B", 0.25),
        ("round 2 of 2, case A", 0.5),
        ("round 2 of 2, case B", 0.75),
    ]
    assert report.notes == [
        "round 2 of 2, case A: it did not start",
        "case B: up to 2 packets of a run did not come out",
    ]
    assert {case: list(found) for case, found in runs.items()} == {"a": [0], "b": [0, 1]}
    row = series.costs(runs["b"], runs["a"], "of_a")
    assert len(row.pop("runs")) == 2
    assert row == {"us_per_packet": 3.0, "of_a": 2.0, "lost": 4}


def test_a_case_that_never_ran_is_told_once_a_round(tmp_path):
    def fail(_):
        raise measure.LoadError("the load generator failed")

    report = Report("workers", [])
    assert series.in_turn(Context(tmp_path), report, 2, {1: "1 worker"}, fail) == {1: {}}
    assert report.notes == [
        "round 1 of 2, 1 worker: the load generator failed",
        "round 2 of 2, 1 worker: the load generator failed",
    ]


def test_contestants_say_what_they_do_and_how_to_get_them(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(comparison, "find_spec", lambda _name: None)
    every = {c.name: c for match in comparison.MATCHES for c in match.contestants}
    for contestant in every.values():
        assert contestant.does
    missing = {name: why for name, c in every.items() if (why := c.missing())}
    assert missing["floor"] == "needs a C compiler: apt-get install gcc"
    assert missing["aiortc on uvloop"] == "needs aiortc: pip install 'strep[bench]'"
    assert "apt-get install gstreamer1.0-tools" in missing["GStreamer"]
    assert missing["ffmpeg"] == "needs ffmpeg: apt-get install ffmpeg"
    assert "strep, VAD" not in missing


@pytest.mark.skipif(not accounting.AVAILABLE, reason="reads Linux's /proc")
def test_peer_is_measured_from_outside(monkeypatch):
    monkeypatch.setattr(measure, "SETTLE_S", 0.1)
    with receivers.python_peer("asyncio_peer", 1, core=None) as peer:
        source = measure.Source(Traffic(tracks=10, rate_pps=200), core=None)
        measure.warm_up(peer, source)
        done = measure.measure(peer, source, 600)
        totals = peer.totals()
    assert done.load.sent == 600
    assert done.drops == 0
    assert 1 < done.us_per_packet < 1000
    assert totals["packets"] == source.sent == 600 + 400


@pytest.mark.skipif(not accounting.AVAILABLE, reason="reads Linux's /proc")
def test_daemon_accounts_for_all_that_was_sent(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "SETTLE_S", 0.1)
    with receivers.Daemon(["vad"], tmp_path, core=None) as daemon:
        source = measure.Source(Traffic(tracks=10, rate_pps=200), core=None)
        done = measure.measure(daemon, source, 400)
        totals = daemon.totals()
    assert done.us_per_packet > 0
    assert totals == {
        "packets": 400, "refused": 0, "kernel_drops": 0, "lost": 0, "late": 0,
        "missed_by_sinks": 0,
    }  # fmt: skip


def test_failed_sender_is_told_with_what_it_said():
    class Nowhere:
        ports = (70_000,)

    with pytest.raises(measure.LoadError, match=r"the load generator failed and said: .*70000"):
        measure.Source(Traffic(tracks=1), core=None).send(Nowhere(), 10)
