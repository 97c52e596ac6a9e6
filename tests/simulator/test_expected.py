from __future__ import annotations

import numpy as np
import pytest

from strep.simulator.audio import PCMA, PCMU
from strep.simulator.expected import ExpectedAudio, Piece, difference, expected_audio
from strep.simulator.ledger import _ROW, Fate, TrackLog

MU = {0x80: 32124, 0x90: 15996, 0xA0: 7932, 0xFF: 0}
"""Samples of some mu-law codes (ITU-T G.711)."""
A_LAW_80 = 5504


def log_of(*packets, forgotten=0):
    """Make a log of (made_s, ssrc, timestamp, payload_type, payload, fate)."""
    rows = np.zeros(len(packets), _ROW)
    for row, (made_s, ssrc, timestamp, payload_type, _, fate) in zip(rows, packets, strict=True):
        row["made_s"], row["ssrc"], row["timestamp"] = made_s, ssrc, timestamp % 2**32
        row["payload_type"], row["fate"] = payload_type, fate
    return TrackLog(
        track=1, call_control_id="", call_leg_id="", leg="A", direction="inbound",
        wrapping="strep", to="", packet_ms=1, running=False, forgotten=forgotten, columns=rows,
        payloads=tuple(packet[4] for packet in packets),
    )  # fmt: skip


def packet(number, code=0x80, *, ssrc=1, payload_type=PCMU, fate=Fate.SENT, base=2**32 - 8):
    payload = bytes([code]) * 8
    return number / 1000, ssrc, base + 8 * number, payload_type, payload, fate


def pieces(*packets):
    return [piece.pcm.tolist() for piece in expected_audio(log_of(*packets)).pieces]


def test_packets_stand_where_their_timestamps_say_across_the_wrap():
    assert pieces(packet(0), packet(1, 0x90), packet(3, 0xA0)) == [
        [32124] * 8 + [15996] * 8 + [0] * 8 + [7932] * 8
    ]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.FAILED, Fate.PENDING])
def test_what_was_not_sent_is_silence(fate):
    assert pieces(packet(0), packet(1, fate=fate), packet(2)) == [
        [32124] * 8 + [0] * 8 + [32124] * 8
    ]


def test_it_begins_and_ends_with_what_was_sent():
    lost = Fate.LOST
    assert pieces(packet(0, fate=lost), packet(1), packet(2, fate=lost)) == [[32124] * 8]


def test_telephone_events_are_silence():
    event = (0.001, 1, 0, 101, bytes(4), Fate.SENT)
    assert pieces(packet(0), event, packet(2)) == [[32124] * 8 + [0] * 8 + [32124] * 8]


def test_each_payload_type_has_its_law():
    assert pieces(packet(0), packet(1, 0x80 ^ 0x55 ^ 0x55, payload_type=PCMA)) == [
        [32124] * 8 + [A_LAW_80] * 8
    ]


def test_each_source_is_a_piece():
    expected = expected_audio(log_of(packet(0), packet(1), packet(7, 0x90, ssrc=2, base=77)))
    assert [piece.ssrc for piece in expected.pieces] == [1, 2]
    assert [len(piece.pcm) for piece in expected.pieces] == [16, 8]
    assert expected.pieces[1].begins_s == pytest.approx(0.007)
    assert expected.pcm.tolist() == [32124] * 16 + [0] * 40 + [15996] * 8


def test_nothing_sent_is_nothing_expected():
    assert expected_audio(log_of()).pcm.tolist() == []
    assert expected_audio(log_of(packet(0, fate=Fate.LOST))).pieces == ()


def test_log_that_has_forgotten_is_refused():
    with pytest.raises(ValueError, match="track 1 has forgotten its first 5 packets"):
        expected_audio(log_of(packet(0), forgotten=5))


def expected(*lengths):
    parts = [np.arange(1, n + 1, dtype=np.int16) + 100 * i for i, n in enumerate(lengths)]
    return ExpectedAudio(tuple(Piece(i + 1, pcm, 0.0) for i, pcm in enumerate(parts)))


def recorded(*parts):
    return np.concatenate([np.array(part, np.int16) for part in parts])


def test_right_recording_has_no_difference():
    assert difference(expected(3), recorded([1, 2, 3])) is None
    assert difference(expected(3), recorded([1, 2, 3], [0, 0])) is None
    assert difference(expected(3, 2), recorded([1, 2, 3], [101, 102])) is None
    assert difference(ExpectedAudio(()), recorded([])) is None


def test_piece_may_stand_behind_the_one_before_with_silence_between():
    assert difference(expected(3, 2), recorded([1, 2, 3], [0] * 400, [101, 102])) is None


NOT_THERE = "piece {} is not there: sample {} is {}, expected {}"
ONE, OTHER = "0 (SSRC 0x00000001, 3 samples)", "1 (SSRC 0x00000002, 2 samples)"


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (([1, 9, 3],), NOT_THERE.format(ONE, 1, 9, 2)),
        (([0, 1, 2, 3],), NOT_THERE.format(ONE, 0, 0, 1)),
        (([1, 2],), f"piece {ONE} is cut short: from sample 0 on only 2 are left"),
        (([1, 2, 3], [101, 7]), NOT_THERE.format(OTHER, 4, 7, 102)),
        (([1, 2, 3], [5], [101, 102]), "there is sound between samples 3 and 4, expected silence"),
        (([1, 2, 3], [101, 102], [0, 4]), "there is sound behind sample 5, expected the end"),
        (([1, 2, 3], [0] * 90, [101, 102]), NOT_THERE.format(OTHER, 3, 0, 101)),
    ],
)
def test_first_difference_is_named(recording, message):
    wanted = expected(3) if ONE in message else expected(3, 2)
    assert difference(wanted, recorded(*recording), most_gap_s=0.01) == message
