from __future__ import annotations

import json
from dataclasses import asdict

from strep.figures import Figures, Overview, WorkerView

ONE = Figures(
    datagrams_read=10,
    datagrams={"accepted": 8, "short": 1},
    packets={"packets": 8, "lost": 2},
    tracks_opened=3,
    tracks_closed={"idle": 1},
    sink_frames={"wav": 7},
    sink_dropped_frames={"wav": 1},
    sink_errors={"wav": 0},
    tracks_distributed={"mos": {"4.0": 1, "+Inf": 2, "sum": 12.5}},
    rtcp={"matched": 3},
    cpu_s=0.5,
    tracks_open=2,
    waiting={"held": 1, "on_probation": 1},
    sink_queue_bytes={"wav": 160},
    sink_off={"wav": 1},
)


def test_sum_adds_every_count_under_its_name():
    other = Figures(
        datagrams_read=5,
        datagrams={"accepted": 4, "stray": 1},
        packets={"packets": 4, "lost": 0},
        tracks_distributed={"mos": {"4.0": 2, "+Inf": 0, "sum": 7.5}, "loss_ratio": {"0.0": 1}},
        rtcp={"matched": 1, "unknown": 1},
        cpu_s=0.25,
        sink_off={"wav": 0, "vad": 0},
    )
    total = ONE + other
    assert total.datagrams_read == 15
    assert total.datagrams == {"accepted": 12, "short": 1, "stray": 1}
    assert total.packets == {"packets": 12, "lost": 2}
    assert total.tracks_distributed == {
        "mos": {"4.0": 3, "+Inf": 2, "sum": 20.0},
        "loss_ratio": {"0.0": 1},
    }
    assert total.rtcp == {"matched": 4, "unknown": 1}
    assert total.cpu_s == 0.75
    assert total.sink_off == {"wav": 1, "vad": 0}
    assert (total.tracks_open, total.sink_queue_bytes) == (2, {"wav": 160})


def test_nothing_added_changes_nothing():
    assert ONE + Figures() == Figures() + ONE == ONE


def test_figures_come_back_from_json():
    assert Figures(**json.loads(json.dumps(asdict(ONE)))) == ONE


def test_of_the_dead_counters_stay_and_gauges_go():
    dead = ONE.of_the_dead()
    assert (dead.datagrams_read, dead.packets, dead.cpu_s) == (10, {"packets": 8, "lost": 2}, 0.5)
    assert (dead.tracks_open, dead.waiting, dead.sink_queue_bytes, dead.sink_off) == (0, {}, {}, {})
    assert dead.tracks_opened == 3
    assert dead.tracks_distributed == ONE.tracks_distributed
    assert dead.tracks_closed == {"idle": 1, "worker_died": 2}
    assert sum(dead.of_the_dead().tracks_closed.values()) == 3


def test_overview_totals_its_workers():
    views = [WorkerView(0, 71, "up", ONE), WorkerView(1, None, "down", ONE.of_the_dead())]
    assert Overview(views).total.datagrams_read == 20
    assert Overview(views).total.tracks_open == 2
    assert Overview([]).total == Figures()
