"""The E-model of ITU-T G.107 (06/2015): from loss, its burstiness and delay to R and MOS.

    R = Ro - Is - Id - Ie,eff + A                                                  (clause 7.1)

Everything but packet loss and delay has the default value of table 2 of the Recommendation, which
gives R = 93.2 and MOS = 4.41: the best that G.711 can be. The equipment impairment is that of
G.711 by ITU-T G.113 (11/2007) Appendix I. Pure: plain numbers in, plain numbers out.
"""

from __future__ import annotations

import math
from functools import lru_cache
from math import exp, log2, log10, sqrt

DEFAULT_MOUTH_TO_EAR_MS = 0.0
"""The default of G.107, so that what is measured decides alone: a copy of the media does not know
how long it takes to the listener's ear. Up to 100 ms matter little, 300 ms cost half a point."""

G711_IE = 0.0
"""Equipment impairment factor of G.711 without loss (G.113 Appendix I)."""
BPL_WITHOUT_CONCEALMENT = 4.3
"""Packet-loss robustness factor of G.711 where lost packets are silent (G.113 Appendix I)."""
BPL_WITH_CONCEALMENT = 25.1
"""The same with the concealment of G.711 Appendix I."""
G729_IE, G729_BPL = 11.0, 19.0
"""Of G.729 Annex A with VAD (G.113 Appendix I); its decoder conceals by itself."""

# G.107 table 2. Levels in dBm0 or dBm0p, loudness ratings and losses in dB.
_SLR, _RLR, _STMR, _LSTR = 8.0, 2.0, 15.0, 18.0
_DS, _TELR, _WEPL = 3.0, 65.0, 110.0
_NC, _NFOR, _PS, _PR = -70.0, -64.0, 35.0, 35.0
_QDU = 1.0
_OLR = _SLR + _RLR


def rating(
    loss_ratio: float = 0.0,
    *,
    burst_ratio: float = 1.0,
    bpl: float = BPL_WITHOUT_CONCEALMENT,
    ie: float = G711_IE,
    mouth_to_ear_ms: float = DEFAULT_MOUTH_TO_EAR_MS,
    advantage: float = 0.0,
) -> float:
    """Return the transmission rating factor R.

    `loss_ratio` is the fraction of packets that the listener misses, 0 to 1; `burst_ratio` is
    `burst_ratio_of` or 1 for random loss; `bpl` and `ie` belong to the codec; `mouth_to_ear_ms` is
    the absolute one-way delay Ta, half of the round trip; `advantage` is A. R may be negative.
    """
    impairment = equipment_impairment(loss_ratio, burst_ratio=burst_ratio, bpl=bpl, ie=ie)
    return _without_loss(mouth_to_ear_ms) - impairment + advantage


def mos(r: float) -> float:
    """Return the estimated mean opinion score of a conversation, 1 to 4.5 (G.107 Annex B).

    Between R = 0 and 6.5 the Annex' cubic dips below the worst score there is; 1 stands there.
    """
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def equipment_impairment(
    loss_ratio: float,
    *,
    burst_ratio: float = 1.0,
    bpl: float = BPL_WITHOUT_CONCEALMENT,
    ie: float = G711_IE,
) -> float:
    """Return Ie,eff, the impairment by codec and loss (G.107 clause 7.5)."""
    loss_percent = 100 * min(max(loss_ratio, 0.0), 1.0)
    return ie + (95 - ie) * loss_percent / (loss_percent / max(burst_ratio, 1.0) + bpl)


def burst_ratio_of(loss_ratio: float, mean_burst_packets: float) -> float:
    """Return BurstR: the mean run of lost packets over that of random loss, at least 1.

    G.107 clause 7.5: random loss of probability p has runs of 1 / (1 - p) packets. The model was
    verified for values up to 2, and up to 8 where no more than 2 % are lost.
    """
    return max(1.0, mean_burst_packets * (1 - min(max(loss_ratio, 0.0), 1.0)))


@lru_cache(maxsize=64)
def _without_loss(delay_ms: float) -> float:
    """Return Ro - Is - Id: all that loss does not change."""
    noise = _noise_dbm0p()
    ro = 15 - 1.5 * (_SLR + noise)
    return ro - _simultaneous_impairment(ro, noise, delay_ms) - _delay_impairment(ro, delay_ms)


def _noise_dbm0p() -> float:
    """Return No, the sum of all noise at the 0 dBr point (clause 7.2)."""
    room_at_sender = _PS - _SLR - _DS - 100 + 0.004 * (_PS - _OLR - _DS - 14) ** 2
    effective_pr = _PR + 10 * log10(1 + 10 ** ((10 - _LSTR) / 10))
    room_at_receiver = _RLR - 121 + effective_pr + 0.008 * (effective_pr - 35) ** 2
    floor = _NFOR + _RLR
    powers = (10.0 ** (each / 10) for each in (_NC, room_at_sender, room_at_receiver, floor))
    return 10 * log10(sum(powers))


def _simultaneous_impairment(ro: float, noise: float, delay_ms: float) -> float:
    """Return Is: what impairs the voice while it speaks (clause 7.3)."""
    loud = (_OLR + 0.2 * (64 + noise - _RLR)) / 8
    too_loud = 20 * (_bend(loud, 8) - loud)
    sidetone = -10 * log10(10 ** (-_STMR / 10) + exp(-delay_ms / 4) * 10 ** (-_TELR / 10))
    of_sidetone = (
        12 * _bend((sidetone - 13) / 6, 8)
        - 28 * _bend((sidetone + 1) / 19.4, 35)
        - 13 * _bend((sidetone - 3) / 33, 13)
        + 29
    )
    quantising_db = 37 - 15 * log10(_QDU)
    g = 1.07 + 0.258 * quantising_db + 0.0602 * quantising_db**2
    y = (ro - 100) / 15 + 46 / 8.4 - g / 9
    z = 46 / 30 - g / 40
    of_quantising = 15 * log10(1 + 10**y + 10**z)
    return too_loud + of_sidetone + of_quantising


def _delay_impairment(ro: float, delay_ms: float) -> float:
    """Return Id: echo at the talker and the listener, and too long a way (clause 7.4).

    Without a four-wire loop of another length T = Ta and Tr = 2 Ta.
    """
    round_trip_ms = 2 * delay_ms
    listener = 10.5 * (_WEPL + 7) * math.pow(round_trip_ms + 1, -0.25)
    of_listener_echo = (ro - listener) / 2 + sqrt((ro - listener) ** 2 / 4 + 169)
    return _talker_echo(delay_ms) + of_listener_echo + _long_way(delay_ms)


def _talker_echo(delay_ms: float) -> float:
    if delay_ms < 1:
        return 0.0
    heard = _TELR - 40 * log10((1 + delay_ms / 10) / (1 + delay_ms / 150))
    heard += 6 * exp(-0.3 * delay_ms**2)
    re = 80 + 2.5 * (heard - 14)
    roe = -1.5 * (_noise_dbm0p() - _RLR)
    return ((roe - re) / 2 + sqrt((roe - re) ** 2 / 4 + 100) - 1) * (1 - exp(-delay_ms))


def _long_way(delay_ms: float) -> float:
    if delay_ms <= 100:
        return 0.0
    x = log2(delay_ms / 100)
    return 25 * (_bend(x, 6) - 3 * _bend(x / 3, 6) + 2)


def _bend(x: float, power: int) -> float:
    """Return 1 for a small x and x for a large one, the sharper in between the higher `power`."""
    return math.pow(1 + math.pow(x, power), 1 / power)
