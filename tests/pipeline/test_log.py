from __future__ import annotations

import json
from uuid import UUID

import pytest

from pipeline.block import Event, Track
from pipeline.sinks import SinkError
from pipeline.sinks.log import LogSink

TRACK = Track(
    row=3,
    generation=1,
    call_leg_id=UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1"),
    leg="A",
    direction="inbound",
    opened_ns=5_000,
    opened_unix_ns=1_767_225_600_250_999_999,
    source="192.0.2.1:4000",
    destination="192.0.2.2:9000",
    ssrc=7,
)


def test_event_becomes_one_line_of_json_at_its_media_time(tmp_path):
    log = LogSink(path=tmp_path / "events.jsonl")
    log.start()
    log.event(Event("speech_started", TRACK, 12_000, 8000, {"start_s": 1.5}))
    log.event(Event("track_closed", TRACK, 0, 8000))
    log.stop()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "time": "2026-01-01T00:00:01.750Z",
            "event": "speech_started",
            "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
            "leg": "A",
            "direction": "inbound",
            "position_s": 1.5,
            "data": {"start_s": 1.5},
        },
        {
            "time": "2026-01-01T00:00:00.250Z",
            "event": "track_closed",
            "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
            "leg": "A",
            "direction": "inbound",
            "position_s": 0.0,
            "data": {},
        },
    ]


def test_lines_are_there_after_a_tick(tmp_path):
    log = LogSink(path=tmp_path / "events.jsonl")
    log.start()
    log.event(Event("track_opened", TRACK, 0, 8000))
    log.tick(1)
    assert (tmp_path / "events.jsonl").read_text().count("\n") == 1
    log.stop()


def test_lines_are_added_to_a_file_that_is_there(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("before\n")
    log = LogSink(path=path)
    log.start()
    log.event(Event("track_opened", TRACK, 0, 8000))
    log.stop()
    assert path.read_text().startswith('before\n{"time": ')


def test_several_processes_write_whole_lines_into_one_file(tmp_path):
    path = tmp_path / "events.jsonl"
    logs = [LogSink(path=path) for _ in range(2)]
    for log in logs:
        log.start()
    for burst in range(3):
        for number, log in enumerate(logs):
            for _ in range(200):  # more than any buffer of a file holds
                log.event(Event("speech_started", TRACK, 0, 8000, {"log": number, "burst": burst}))
    for log in logs:
        log.tick(0)
        log.stop()
    data = [json.loads(line)["data"] for line in path.read_text().splitlines()]
    assert [entry["log"] for entry in data] == [0] * 600 + [1] * 600


def test_without_a_path_lines_go_to_standard_output(capsys):
    log = LogSink()
    log.start()
    log.event(Event("track_opened", TRACK, 8000, 8000))
    log.stop()
    assert json.loads(capsys.readouterr().out)["time"] == "2026-01-01T00:00:01.250Z"
    print("still open")  # noqa: T201 -- the stream is not the sink's to close
    assert capsys.readouterr().out == "still open\n"


def test_file_that_cannot_be_opened_is_named(tmp_path):
    log = LogSink(path=tmp_path / "missing" / "events.jsonl")
    with pytest.raises(SinkError, match=r"missing/events\.jsonl: No such file or directory"):
        log.start()


def test_keys_that_are_pressed_in_a_pause_are_not_named(tmp_path):
    log = LogSink(path=tmp_path / "events.jsonl")
    log.start()
    log.pause(TRACK.call_leg_id, 2_000_000_000)
    log.resume(TRACK.call_leg_id, 4_000_000_000)
    for second in range(7):
        log.event(Event("dtmf", TRACK, second * 8000, 8000, {"digit": "5", "start_s": second}))
    log.stop()
    lines = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert "".join(line["data"]["digit"] for line in lines) == "55???55"
