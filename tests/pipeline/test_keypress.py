"""One list of key presses, whichever way they came."""

from __future__ import annotations

from trackmaker import track

from pipeline.keypress import KeyPress, merged


def press(digit, start_s, duration_ms=100.0, kind="telephone-event"):
    return {"digit": digit, "start_s": start_s, "duration_ms": duration_ms, "kind": kind}


def tone(digit, start_s, duration_ms=100.0):
    return press(digit, start_s, duration_ms, "in-band")


def test_press_is_an_event_where_it_began():
    one = KeyPress("#", "in-band", 1234, 401, 8000)
    assert one.as_dict() == {
        "digit": "#",
        "start_s": 0.15425,
        "duration_ms": 50.125,
        "kind": "in-band",
    }
    event = one.as_event(track(3))
    assert (event.kind, event.position_samples, event.sample_rate_hz) == ("dtmf", 1234, 8000)
    assert event.data == one.as_dict()
    assert event.track.row == 3


def test_presses_are_sorted_by_their_start():
    assert merged([press("2", 3), press("1", 1)], [tone("4", 4), tone("3", 2)]) == [
        press("1", 1),
        tone("3", 2),
        press("2", 3),
        tone("4", 4),
    ]
    assert merged([], []) == []


def test_tone_that_an_event_tells_too_is_left_out():
    events = [press("1", 1.0), press("1", 2.0), press("1", 3.0, 1000)]
    tones = [
        tone("1", 0.95, 40),  # what went through before the gateway noticed
        tone("1", 1.15, 40),  # the end of it
        tone("1", 2.0),
        tone("1", 3.2, 40),
        tone("1", 3.9, 400),
    ]
    assert merged(events, tones) == events


def test_tone_of_another_key_or_another_time_stays():
    events = [press("1", 1.0), press("1", 2.0)]
    tones = [tone("1", 0.5), tone("2", 1.0), tone("1", 1.4), tone("1", 2.5)]
    assert merged(events, tones) == [
        tone("1", 0.5),
        press("1", 1.0),
        tone("2", 1.0),
        tone("1", 1.4),
        press("1", 2.0),
        tone("1", 2.5),
    ]
