"""Prompts and gatherings, on a call that was answered at 0 s; every prompt lasts a second."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from strep.simulator.carrier import Carrier
from strep.simulator.problems import RefusedError
from strep.simulator.scenario import Scenario

SPEAK = {"language": "en-US", "payload": "your pin?", "voice": "female"}


class Line:
    """A call that is up, and a hand on the clock."""

    def __init__(self, **tables):
        scenario = Scenario.model_validate(tables)
        self.carrier = Carrier(
            seed=1, wall=lambda _: datetime(2026, 1, 1, tzinfo=UTC), connection_id="c",
            webhook_url=None, scenario_for=lambda _: scenario,
        )  # fmt: skip
        self.now_s = 0.0
        self.call = self.carrier.place("+1", "+2", scenario, 0.0)
        self.command("answer")
        self.carrier.take_effects()

    def command(self, name, **body):
        self.carrier.command(name, self.call.control_id, body, self.now_s)

    def type(self, digits):
        self.carrier.type_there(self.call, digits, self.now_s)

    def to(self, now_s):
        self.now_s = now_s
        self.carrier.tick(now_s)
        return self.said()

    def said(self):
        """Return what was said since the last time: `playback.ended:completed`."""
        said = []
        for effect in self.carrier.take_effects():
            payload = effect.event["payload"]
            word = payload.get("digit", payload.get("status"))
            digits = payload.get("digits")
            event_type = effect.event["event_type"].removeprefix("call.")
            rest = [part for part in (word, digits) if part is not None]
            said.append(":".join([event_type, *rest]))
        return said


@pytest.fixture
def line():
    return Line()


# playing


def test_file_is_played_for_its_time(line):
    line.command("playback_start", audio_url="http://example.com/a.wav")
    (effect,) = line.carrier.take_effects()
    assert effect.event["payload"]["media_url"] == "http://example.com/a.wav"
    assert effect.event["payload"]["overlay"] is False
    assert line.to(0.9) == []
    assert line.to(1.0) == ["playback.ended:completed"]


def test_files_are_played_one_after_the_other(line):
    for name in ("a", "b"):
        line.command("playback_start", media_name=name)
    assert line.said() == ["playback.started"]
    assert line.to(1.0) == ["playback.ended:completed", "playback.started"]
    assert line.to(2.0) == ["playback.ended:completed"]


def test_loops_take_their_time_and_infinity_has_no_end(line):
    line.command("playback_start", media_name="a", loop=3)
    assert line.to(2.9) == ["playback.started"]
    assert line.to(3.0) == ["playback.ended:completed"]
    line.command("playback_start", media_name="a", loop="infinity")
    assert line.to(9000.0) == ["playback.started"]


def test_stop_ends_the_current_file_or_all(line):
    for name in "abc":
        line.command("playback_start", media_name=name)
    line.said()
    line.command("playback_stop", stop="current")
    assert line.said() == ["playback.ended:cancelled", "playback.started"]
    line.command("playback_stop")
    assert line.said() == ["playback.ended:cancelled"]
    assert line.to(9.0) == []
    line.command("playback_stop")
    assert line.said() == []


def test_start_may_stop_what_is_played(line):
    line.command("playback_start", media_name="a")
    line.command("playback_start", media_name="b", stop="all")
    assert line.said() == ["playback.started", "playback.ended:cancelled", "playback.started"]
    assert line.to(1.0) == ["playback.ended:completed"]
    line.command("playback_start", stop="current")
    assert line.said() == []


def test_overlay_is_played_at_the_same_time(line):
    line.command("playback_start", media_name="a", loop="infinity")
    line.command("playback_start", media_name="b", overlay=True)
    assert line.said() == ["playback.started"] * 2
    assert line.to(1.0) == ["playback.ended:completed"]
    for name in "cd":
        line.command("playback_start", media_name=name, overlay=True)
    assert line.said() == ["playback.started", "playback.ended:cancelled", "playback.started"]
    line.command("playback_stop", overlay=True)
    assert line.said() == ["playback.ended:cancelled"]
    line.command("playback_stop", overlay=True)
    assert line.to(9.0) == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "one of audio_url, media_name and playback_content is needed"),
        ({"media_name": "a", "overlay": True},
         "overlay needs a file without overlay that is being played"),
    ],
)  # fmt: skip
def test_playback_that_cannot_be_is_refused(line, body, detail):
    with pytest.raises(RefusedError, match=detail):
        line.command("playback_start", **body)
    assert line.said() == []


# gathering without a prompt


def test_digits_are_gathered_up_to_the_terminating_one(line):
    line.command("gather")
    line.type("12")
    assert line.said() == ["dtmf.received:1", "dtmf.received:2"]
    line.type("#")
    assert line.said() == ["dtmf.received:#", "gather.ended:valid:12"]


def test_digits_are_gathered_up_to_the_maximum(line):
    line.command("gather", maximum_digits=2)
    line.type("123")
    assert line.said() == [
        "dtmf.received:1", "dtmf.received:2", "gather.ended:valid:12", "dtmf.received:3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "digits", "at_s", "ended"),
    [
        ({}, "", 5.0, "gather.ended:invalid:"),
        ({"initial_timeout_millis": 700}, "", 0.7, "gather.ended:invalid:"),
        ({}, "1", 5.0, "gather.ended:valid:1"),
        ({"inter_digit_timeout_millis": 300}, "1", 0.3, "gather.ended:valid:1"),
        ({"minimum_digits": 2, "inter_digit_timeout_millis": 300}, "1", 0.3,
         "gather.ended:invalid:1"),
        ({"timeout_millis": 100}, "1", 0.1, "gather.ended:valid:1"),
    ],
)  # fmt: skip
def test_gathering_ends_in_time(line, body, digits, at_s, ended):
    line.command("gather", **body)
    line.type(digits)
    line.said()
    assert line.to(at_s - 0.01) == []
    assert line.to(at_s) == [ended]
    assert line.to(100.0) == []


@pytest.mark.parametrize(
    ("body", "digits", "ended"),
    [
        ({"valid_digits": "123"}, "14", "gather.ended:invalid:1"),
        ({"minimum_digits": 3}, "1#", "gather.ended:invalid:1"),
    ],
)
def test_wrong_digits_end_a_gathering(line, body, digits, ended):
    line.command("gather", **body)
    line.type(digits)
    assert line.said()[-1] == ended


def test_gathering_can_be_stopped(line):
    line.command("gather")
    line.type("1")
    line.command("gather_stop")
    assert line.said() == ["dtmf.received:1", "gather.ended:cancelled:1"]
    line.command("gather_stop")
    assert line.to(100.0) == []


def test_second_gathering_is_refused(line):
    line.command("gather")
    with pytest.raises(RefusedError, match="digits are being gathered on this call already"):
        line.command("gather_using_speak", **SPEAK)


def test_digits_are_told_without_a_gathering_too(line):
    line.type("*")
    assert line.said() == ["dtmf.received:*"]


# gathering with a prompt


def test_prompt_is_played_again_as_often_as_allowed(line):
    line.command("gather_using_audio", media_name="m", timeout_millis=2000, maximum_tries=2)
    assert line.said() == ["playback.started"]
    assert line.to(1.0) == ["playback.ended:completed"]
    assert line.to(3.0) == ["playback.started"]
    assert line.to(4.0) == ["playback.ended:completed"]
    assert line.to(6.0) == ["gather.ended:invalid:"]
    assert line.to(100.0) == []


def test_digit_interrupts_the_prompt(line):
    line.command("gather_using_speak", **SPEAK)
    line.type("4")
    assert line.said() == ["speak.started", "dtmf.received:4", "speak.ended:cancelled"]
    line.type("2#")
    assert line.said() == ["dtmf.received:2", "dtmf.received:#", "gather.ended:valid:42"]
    assert line.to(100.0) == []


def test_invalid_digits_are_told_before_the_prompt_comes_again(line):
    line.command("gather_using_audio", media_name="m", invalid_media_name="wrong",
                 valid_digits="1", maximum_tries=2)  # fmt: skip
    line.type("9")
    assert line.said() == [
        "playback.started", "dtmf.received:9", "playback.ended:cancelled", "playback.started",
    ]  # fmt: skip
    assert line.to(1.0) == ["playback.ended:completed", "playback.started"]
    line.type("1#")
    assert line.said()[-1] == "gather.ended:valid:1"


def test_last_try_with_invalid_digits_ends_the_gathering(line):
    line.command("gather_using_speak", **SPEAK, invalid_payload="no", valid_digits="1",
                 maximum_tries=1)  # fmt: skip
    line.type("9")
    assert line.said()[-1] == "gather.ended:invalid:"


def test_prompt_that_was_interrupted_does_not_end_a_later_one(line):
    line.command("gather_using_audio", media_name="m", valid_digits="1")
    line.to(0.6)
    line.type("9")
    assert line.said()[-1] == "playback.started"
    assert line.to(1.5) == []
    assert line.to(1.6) == ["playback.ended:completed"]


def test_stopped_prompt_leaves_the_gathering_waiting(line):
    line.command("gather_using_speak", **SPEAK, timeout_millis=500, maximum_tries=1)
    line.said()
    line.command("playback_stop")
    assert line.said() == ["speak.ended:cancelled"]
    assert line.to(0.5) == ["gather.ended:invalid:"]


def test_gather_stop_ends_the_prompt_too(line):
    line.command("gather_using_speak", **SPEAK)
    line.said()
    line.command("gather_stop")
    assert line.said() == ["speak.ended:cancelled", "gather.ended:cancelled:"]


def test_audio_without_a_file_is_refused(line):
    with pytest.raises(RefusedError, match="one of audio_url and media_name is needed"):
        line.command("gather_using_audio")


# the other side


def test_other_side_types_at_every_gathering():
    line = Line(call={"types": "12#"})
    line.command("gather")
    assert line.to(1.4) == ["dtmf.received:1", "dtmf.received:2"]
    assert line.to(1.5) == ["dtmf.received:#", "gather.ended:valid:12"]


def test_other_side_stops_typing_when_the_gathering_is_over():
    line = Line(call={"types": "12#"})
    line.command("gather", maximum_digits=1)
    assert line.to(9.0) == ["dtmf.received:1", "gather.ended:valid:1"]


def test_digits_of_the_scenario_are_told_when_their_tone_is_over():
    line = Line(event=[{"kind": "digits", "at_s": 2, "digits": "12", "tone_ms": 100,
                        "pause_ms": 50}])  # fmt: skip
    assert line.to(2.09) == []
    assert line.to(2.1) == ["dtmf.received:1"]
    assert line.to(2.25) == ["dtmf.received:2"]


def test_nobody_types_before_the_answer():
    line = Line()
    call = line.carrier.place("+1", "+2", Scenario(), 0.0)
    with pytest.raises(RefusedError, match="was not answered yet"):
        line.carrier.type_there(call, "1", 0.0)
