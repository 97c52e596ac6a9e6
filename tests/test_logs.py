from __future__ import annotations

import json
import logging
import re
import sys

import pytest
import structlog

from strep.logs import configure


@pytest.fixture(autouse=True)
def _unhandled():
    """Without pytest's handlers: the root logger closes what it loses."""
    logging.getLogger().handlers.clear()


def lines(capsys) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_facts_stand_in_every_line(capsys):
    configure("json", "info", worker=3)
    structlog.get_logger("strep").info("one")
    logging.getLogger("pipeline.wav").warning("other")
    assert [line["worker"] for line in lines(capsys)] == [3, 3]


def test_json_events_are_one_object_a_line_with_utc_times(capsys):
    configure("json", "info")
    structlog.get_logger("strep.daemon").info("listening", address="0.0.0.0:9000", tracks=3)
    [line] = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "event": "listening",
        "level": "info",
        "logger": "strep.daemon",
        "address": "0.0.0.0:9000",
        "tracks": 3,
    }


def test_records_of_the_standard_library_look_like_events(capsys):
    configure("json", "info")
    logging.getLogger("pipeline.sinks").warning("%s is full", "wav", extra={"dropped": 4})
    [line] = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "wav is full",
        "level": "warning",
        "logger": "pipeline.sinks",
        "dropped": 4,
    }


@pytest.mark.parametrize("logger", [logging.getLogger("a"), structlog.get_logger("a")])
def test_traceback_is_a_field_of_the_json_line(capsys, logger):
    configure("json", "info")
    try:
        int("seven")
    except ValueError:
        logger.exception("failed")
    [line] = lines(capsys)
    assert (line["event"], line["level"]) == ("failed", "error")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith(
        "\nValueError: invalid literal for int() with base 10: 'seven'"
    )


def fail(password: str) -> None:
    raise ValueError("no entry" if password else "no password")


@pytest.mark.parametrize("logger", [logging.getLogger("a"), structlog.get_logger("a")])
def test_console_shows_plain_tracebacks_without_the_values_of_variables(capsys, logger):
    configure("console", "info")
    try:
        fail("hun" + "ter2")
    except ValueError:
        logger.exception("failed")
    shown = capsys.readouterr().err
    assert "[error    ] failed" in shown
    assert "\nValueError: no entry\n" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("get_logger", [logging.getLogger, structlog.get_logger])
def test_only_the_level_and_above_is_shown(capsys, level, expected, get_logger):
    configure("json", level)
    for each in ("debug", "info", "warning", "error"):
        getattr(get_logger("a"), each)("event")
    assert [line["level"] for line in lines(capsys)] == expected


def test_auto_is_json_where_standard_error_is_no_terminal(capsys):
    configure("auto", "info")
    logging.getLogger("a").info("event")
    assert lines(capsys)[0]["event"] == "event"


def test_auto_is_console_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure("auto", "info")
    logging.getLogger("a").info("event")
    shown = capsys.readouterr().err
    assert "\x1b[" in shown
    assert not shown.startswith("{")


def test_a_further_call_replaces_the_last(capsys):
    configure("console", "error")
    configure("json", "info")
    logging.getLogger("a").info("event")
    assert [line["event"] for line in lines(capsys)] == ["event"]


def test_line_breaks_of_an_event_stay_inside_the_json_line(capsys):
    configure("json", "info")
    structlog.get_logger("a").info("one\ntwo", peer="x\n{}")
    [line] = lines(capsys)
    assert (line["event"], line["peer"]) == ("one\ntwo", "x\n{}")
