from __future__ import annotations

import dataclasses

import pytest

from pipeline.block import TrackSummary
from pipeline.distributions import BUCKETS, Distributions
from pipeline.verdict import call_quality, track_quality

CLEAN = TrackSummary(
    **{field.name: 0 for field in dataclasses.fields(TrackSummary) if field.name != "reason"}
    | {
        "reason": "closed",
        "packets": 1000,
        "released": 1000,
        "payload_types": {0: 990, 101: 10},
        "codec": "PCMU",
        "jitter_mean_ms": 1.5,
        "mouth_to_ear_ms": 0.0,
        "drift_ppm": None,
        "timeline": None,
        "rtcp": None,
    }
)
LOSSY = dataclasses.replace(
    CLEAN,
    packets=972,
    released=970,
    lost=30,
    late=2,
    reordered=5,
    loss_runs=10,
    longest_loss=8,
    bursts=2,
    burst_packets=50,
    burst_lost=20,
    jitter_mean_ms=4.5,
    drift_ppm=-40.0,
)


def test_a_clean_track_is_as_good_as_g711_can_be():
    quality = track_quality(CLEAN)
    assert (quality["mos"], quality["mos_concealed"], quality["r_factor"]) == (4.41, 4.41, 93.2)
    assert (quality["loss_ratio"], quality["discard_ratio"]) == (0, 0)
    assert quality["burst"] == {
        "runs": 0,
        "mean_packets": 0,
        "longest_packets": 0,
        "ratio": 1.0,
        "bursts": 0,
        "burst_packets": 0,
        "burst_loss_ratio": 0,
        "gap_loss_ratio": 0,
    }


def test_loss_is_told_with_its_bursts():
    # BurstR = 3 * 0.97 = 2.91; Ie,eff = 95 * 3 / (3 / 2.91 + Bpl): 53.46 and 10.91
    assert track_quality(LOSSY) == {
        "mos": 2.05,
        "mos_concealed": 4.11,
        "r_factor": 39.7,
        "r_factor_concealed": 82.3,
        "mouth_to_ear_ms": 0.0,
        "loss_ratio": 0.03,
        "discard_ratio": 0.002,
        "reorder_ratio": 0.005,
        "burst": {
            "runs": 10,
            "mean_packets": 3.0,
            "longest_packets": 8,
            "ratio": 2.91,
            "bursts": 2,
            "burst_packets": 50,
            "burst_loss_ratio": 0.4,
            "gap_loss_ratio": 0.010526,
        },
    }


def test_delay_is_told_and_counts():
    quality = track_quality(dataclasses.replace(CLEAN, mouth_to_ear_ms=150.0))
    assert (quality["mouth_to_ear_ms"], quality["r_factor"]) == (150.0, 89.5)


def test_g729_conceals_by_itself():
    quality = track_quality(dataclasses.replace(CLEAN, codec="G729"))
    assert (quality["r_factor"], quality["r_factor_concealed"]) == (82.2, 82.2)
    assert quality["mos"] == quality["mos_concealed"] == 4.1
    assert track_quality(dataclasses.replace(LOSSY, codec="G729"))["r_factor"] < 75


@pytest.mark.parametrize("codec", ["unknown", "telephone-event", "opus", "GSM"])
def test_what_is_not_g711_has_no_score(codec):
    quality = track_quality(dataclasses.replace(LOSSY, codec=codec))
    assert {quality[name] for name in ("mos", "mos_concealed", "r_factor")} == {None}
    assert quality["loss_ratio"] == 0.03


def entry(summary):
    names = ("packets", "released", "lost", "late", "reordered", "jitter_mean_ms", "drift_ppm")
    return {name: getattr(summary, name) for name in names} | {"quality": track_quality(summary)}


def test_a_call_is_as_good_as_its_worst_track():
    quality = call_quality([entry(CLEAN), entry(LOSSY)])
    assert quality == {
        "mos": 2.05,
        "mos_concealed": 4.11,
        "loss_ratio": 0.015,
        "discard_ratio": 0.001,
        "reorder_ratio": 0.0025,
        "burst_mean_packets": 3.0,
        "burst_longest_packets": 8,
        "jitter_mean_ms": pytest.approx((1000 * 1.5 + 972 * 4.5) / 1972, abs=0.001),
        "drift_ppm": -40.0,
    }


def test_distributions_count_each_track_once_in_each_figure_that_it_has():
    distributions = Distributions()
    distributions.add(CLEAN)
    distributions.add(LOSSY)
    counts = distributions.as_dict()
    assert counts.keys() == BUCKETS.keys()
    found = {
        name: {bound: n for bound, n in each.items() if n and bound != "sum"}
        for name, each in counts.items()
    }
    assert found == {
        "mos": {"2.5": 1, "+Inf": 1},
        "mos_concealed": {"4.2": 1, "+Inf": 1},
        "loss_ratio": {"0.0": 1, "0.03": 1},
        "discard_ratio": {"0.0": 1, "0.0025": 1},
        "loss_burst_packets": {"3.0": 1},
        "jitter_seconds": {"0.002": 1, "0.005": 1},
        "drift_ppm": {"50.0": 1},
    }
    assert counts["jitter_seconds"]["sum"] == pytest.approx(0.006)
    assert counts["drift_ppm"]["sum"] == 40.0
