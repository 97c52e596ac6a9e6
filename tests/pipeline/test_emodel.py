"""The E-model against figures that G.107 and G.113 print, or that follow from them by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import emodel

RATIOS = st.floats(0, 1)


def test_default_values_are_those_of_the_recommendation():
    # G.107 clause 7.7: R = 93.2; Annex B: MOS 4.41
    assert round(emodel.rating(), 1) == 93.2
    assert round(emodel.mos(emodel.rating()), 2) == 4.41


@pytest.mark.parametrize(
    ("r", "mos"),
    # G.107 table B.1, and the two ends
    [(90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58), (0, 1), (-20, 1), (100, 4.5)],
)
def test_mos_is_that_of_annex_b(r, mos):
    assert emodel.mos(r) == pytest.approx(mos, abs=0.01)


@pytest.mark.parametrize(
    ("loss_percent", "without", "concealed"),
    # 95 Ppl / (Ppl + Bpl), with 4.3 and 25.1
    [(0, 0, 0), (1, 17.925, 3.640), (2, 30.159, 7.011), (3, 39.041, 10.142), (5, 51.075, 15.781)],
)
def test_impairment_by_random_loss(loss_percent, without, concealed):
    loss = loss_percent / 100
    of = emodel.equipment_impairment
    assert of(loss) == pytest.approx(without, abs=0.001)
    assert of(loss, bpl=emodel.BPL_WITH_CONCEALMENT) == pytest.approx(concealed, abs=0.001)


def test_loss_in_bursts_is_worse():
    # 2 % in runs of 3: BurstR = 3 * 0.98 = 2.94; 95 * 2 / (2 / 2.94 + 4.3) = 38.151
    ratio = emodel.burst_ratio_of(0.02, 3)
    assert ratio == pytest.approx(2.94)
    assert emodel.equipment_impairment(0.02, burst_ratio=ratio) == pytest.approx(38.151, abs=0.001)


def test_loss_that_is_spread_more_evenly_than_by_chance_counts_as_random():
    assert emodel.burst_ratio_of(0.2, 1.0) == 1.0


@pytest.mark.parametrize(
    ("delay_ms", "r"), [(0, 93.2), (50, 91.8), (100, 90.7), (150, 89.5), (200, 85.8), (400, 62.2)]
)
def test_delay_impairs_little_up_to_150_ms_and_much_beyond(delay_ms, r):
    assert emodel.rating(mouth_to_ear_ms=delay_ms) == pytest.approx(r, abs=0.05)


def test_another_codec_has_an_impairment_of_its_own():
    # Ie + (95 - Ie) Ppl / (Ppl + Bpl): 11 + 84 * 1 / 20
    assert emodel.equipment_impairment(0.01, ie=11, bpl=19) == pytest.approx(15.2)


@given(RATIOS, RATIOS, st.floats(1, 5000), st.floats(0, 10_000))
def test_more_loss_never_sounds_better(one, other, mean_burst, delay_ms):
    less, more = sorted((one, other))
    ratio = emodel.burst_ratio_of(less, mean_burst)
    better = emodel.rating(less, burst_ratio=ratio, mouth_to_ear_ms=delay_ms)
    worse = emodel.rating(more, burst_ratio=ratio, mouth_to_ear_ms=delay_ms)
    assert worse <= better <= 93.3
    assert 1 <= emodel.mos(worse) <= 4.5
    concealed = emodel.rating(
        more, burst_ratio=ratio, mouth_to_ear_ms=delay_ms, bpl=emodel.BPL_WITH_CONCEALMENT
    )
    assert concealed >= worse
