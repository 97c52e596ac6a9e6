from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strep.simulator.audio import PCMA, PCMU, Audio, load_audio
from strep.simulator.scenario import Scenario
from strep.simulator.stream import NO_FRAME, TELEPHONE_EVENT, Packets, Stream

VOICE = load_audio("caller", Path())


def stream(*, source=VOICE, types=True, begin_s=0.0, seed=(1, 0, 0), **tables):
    scenario = Scenario.model_validate(tables)
    return Stream(source, scenario, seed=seed, types=types, begin_s=begin_s)


def together(parts):
    return Packets(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def steps(column, modulus):
    return set((np.diff(column) % modulus).tolist())


def offsets(packets):
    """Timestamps in packets of 20 ms since the first one."""
    return ((packets.timestamp - packets.timestamp[0]) % 2**32 // 160).tolist()


def test_plain_stream_is_a_packet_of_its_source_every_20_ms():
    packets = stream().until(10.0)
    assert len(packets.sequence) == 500
    assert set(np.diff(packets.made_s).round(9).tolist()) == {0.02}
    assert 0 <= packets.made_s[0] < 0.02
    assert steps(packets.sequence, 2**16) == {1}
    assert steps(packets.timestamp, 2**32) == {160}
    assert len(set(packets.ssrc.tolist())) == 1
    assert set(packets.payload_type.tolist()) == {PCMU}
    assert not packets.marker.any()
    assert np.array_equal(packets.payload, VOICE.frames(PCMU, 160)[:500])


def test_directions_have_sources_and_moments_of_their_own():
    one, other = stream(seed=(1, 0, 0)).until(1.0), stream(seed=(1, 0, 1)).until(1.0)
    assert one.ssrc[0] != other.ssrc[0]
    assert one.made_s[0] != other.made_s[0]


def test_source_begins_again_at_its_end():
    short = Audio(PCMU, np.arange(240, dtype=np.uint8))  # one frame and a half
    payload = stream(source=short).until(0.1).payload
    assert payload[:, 0].tolist() == [0, 160, 0, 160, 0]
    assert set(payload[1, 80:].tolist()) == {0xFF}


def test_source_is_followed_by_silence_where_it_does_not_loop():
    short = Audio(PCMU, np.arange(240, dtype=np.uint8))
    payload = stream(source=short, audio={"loop": False}).until(0.1).payload
    assert payload[:, 0].tolist() == [0, 160, 0xFF, 0xFF, 0xFF]


def test_packet_time_and_law_are_the_scenario_s():
    packets = stream(audio={"packet_ms": 30, "codec": "PCMA"}).until(0.3)
    assert packets.payload.shape == (10, 240)
    assert steps(packets.timestamp, 2**32) == {240}
    assert set(packets.payload_type.tolist()) == {PCMA}
    assert np.array_equal(packets.payload, VOICE.frames(PCMA, 240)[:10])


def test_sender_1000_ppm_fast_makes_1001_packets_in_the_time_of_1000():
    packets = stream(audio={"clock_ppm": 1000}).until(21.0)
    assert packets.made_s[1001] - packets.made_s[0] == 20.0


def test_reinvite_changes_source_sequence_and_timestamp_at_its_time():
    packets = stream(event=[{"kind": "reinvite", "at_s": 1.0}]).until(2.0)
    change = np.flatnonzero(np.diff(packets.ssrc))
    assert change.tolist() == [49]
    assert (packets.sequence[50] - packets.sequence[49]) % 2**16 != 1
    assert (packets.timestamp[50] - packets.timestamp[49]) % 2**32 != 160
    assert steps(packets.sequence[50:], 2**16) == {1}
    assert steps(packets.timestamp[50:], 2**32) == {160}
    assert set(np.diff(packets.made_s).round(9).tolist()) == {0.02}


def test_hold_leaves_out_packets_and_lets_timestamps_pass():
    packets = stream(event=[{"kind": "hold", "at_s": 0.1, "for_s": 0.2}]).until(0.4)
    assert offsets(packets) == [0, 1, 2, 3, 4, 15, 16, 17, 18, 19]
    assert steps(packets.sequence, 2**16) == {1}
    assert packets.marker.tolist() == [False] * 5 + [True] + [False] * 4


def test_codec_changes_in_mid_stream():
    packets = stream(event=[{"kind": "codec", "at_s": 0.1, "codec": "PCMA"}]).until(0.2)
    assert packets.payload_type.tolist() == [PCMU] * 5 + [PCMA] * 5
    assert np.array_equal(packets.payload[5:], VOICE.frames(PCMA, 160)[5:10])
    assert steps(packets.sequence, 2**16) == {1}
    assert steps(packets.timestamp, 2**32) == {160}


def test_suppressed_silence_leaves_a_gap_and_marks_the_packet_behind_it():
    pcm_codes = np.full(5 * 160, 0xFF, np.uint8)
    pcm_codes[:160] = pcm_codes[480:640] = 0x90  # loud
    packets = stream(
        source=Audio(PCMU, pcm_codes), audio={"silence_suppression": True}
    ).until(0.2)  # fmt: skip
    assert offsets(packets) == [0, 3, 5, 8]
    assert packets.marker.tolist() == [False, True, True, True]
    assert steps(packets.sequence, 2**16) == {1}


def test_digit_is_a_telephone_event_with_three_ends():
    packets = stream(
        event=[{"kind": "digits", "at_s": 0.1, "digits": "#", "tone_ms": 60}]
    ).until(0.2)  # fmt: skip
    is_event = packets.payload_type == TELEPHONE_EVENT
    assert np.flatnonzero(is_event).tolist() == [5, 6, 7, 8, 9]
    assert offsets(packets) == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 8, 9]
    assert [row.tobytes().hex() for row in packets.payload[is_event, :4]] == [
        "0b0a00a0",
        "0b0a0140",
        "0b8a01e0",
        "0b8a01e0",
        "0b8a01e0",
    ]
    assert packets.marker.tolist() == [i == 5 for i in range(12)]
    assert steps(packets.sequence, 2**16) == {1}
    assert packets.frame[is_event].tolist() == [NO_FRAME] * 5
    assert packets.frame[~is_event].tolist() == [0, 1, 2, 3, 4, 8, 9]


def test_digits_follow_each_other_at_their_pause():
    packets = stream(event=[{"kind": "digits", "at_s": 0.0, "digits": "19"}]).until(0.5)
    events = packets.payload[packets.payload_type == TELEPHONE_EVENT]
    assert events[:, 0].tolist() == [1] * 7 + [9] * 7
    assert offsets(packets)[:7] == [0] * 7
    assert (packets.timestamp[12:19] - packets.timestamp[0]).tolist() == [1600] * 7


def test_digits_are_typed_by_the_other_side_alone():
    event = {"kind": "digits", "at_s": 0.0, "digits": "1"}
    packets = stream(types=False, event=[event]).until(0.5)
    assert set(packets.payload_type.tolist()) == {PCMU}


def test_hold_goes_before_digits():
    events = [{"kind": "digits", "at_s": 0.0, "digits": "1"}]
    events.append({"kind": "hold", "at_s": 0.0, "for_s": 0.1})
    assert TELEPHONE_EVENT not in stream(event=events).until(0.5).payload_type


def test_packets_around_a_change_of_source_settle():
    packets = stream(
        network={"spared_packets": 2}, event=[{"kind": "reinvite", "at_s": 0.2}]
    ).until(0.4)  # fmt: skip
    assert np.flatnonzero(packets.settling).tolist() == [0, 1, 8, 9, 10, 11]


def test_source_that_begins_on_hold_settles_behind_it():
    events = [{"kind": "reinvite", "at_s": 0.2}, {"kind": "hold", "at_s": 0.2, "for_s": 0.1}]
    packets = stream(network={"spared_packets": 2}, event=events).until(0.4)
    assert np.flatnonzero(packets.settling).tolist() == [0, 1, 8, 9, 10, 11]
    assert packets.made_s[10] - packets.made_s[9] > 0.1


def test_stream_that_begins_later_goes_on_with_the_same():
    whole, later = stream().until(2.0), stream(begin_s=1.0).until(2.0)
    for name in ("made_s", "sequence", "timestamp", "ssrc", "payload"):
        assert np.array_equal(getattr(whole, name)[50:], getattr(later, name)), name


EVENTS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"kind": st.just("reinvite"), "at_s": st.floats(0, 3)}),
        st.fixed_dictionaries(
            {"kind": st.just("hold"), "at_s": st.floats(0, 3), "for_s": st.floats(0, 1)}
        ),
        st.fixed_dictionaries(
            {"kind": st.just("digits"), "at_s": st.floats(0, 3), "digits": st.just("1*")}
        ),
        st.fixed_dictionaries(
            {"kind": st.just("codec"), "at_s": st.floats(0, 3), "codec": st.just("PCMA")}
        ),
    ),
    max_size=4,
)


@given(
    events=EVENTS,
    cuts=st.lists(st.floats(0, 3), max_size=4),
    suppression=st.booleans(),
    packet_ms=st.sampled_from([10, 20, 30]),
)
def test_packets_are_the_same_however_they_are_asked_for(events, cuts, suppression, packet_ms):
    tables = {
        "event": events,
        "audio": {"silence_suppression": suppression, "packet_ms": packet_ms},
    }
    whole = stream(**tables).until(3.0)
    cut = stream(**tables)
    parts = together([cut.until(end_s) for end_s in [*sorted(cuts), 3.0]])
    for name, column in whole._asdict().items():
        assert np.array_equal(column, getattr(parts, name)), name
    is_same_source = np.diff(whole.ssrc) == 0
    assert (np.diff(whole.sequence)[is_same_source] % 2**16 == 1).all()
    assert (np.diff(whole.made_s) >= 0).all()
