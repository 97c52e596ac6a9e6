"""Key presses of real captures, as their authors have them."""

from __future__ import annotations

import pytest
from material import MATERIAL, needs_material, table

from pipeline.sinks.dtmf import DtmfSink
from strep.analyze import analyze

pytestmark = [needs_material, pytest.mark.usefixtures("kernel")]

CAPTURES = MATERIAL / "captures"
EXPECTED = table("captures/DTMF_EXPECT.csv")
PRESSED = [row for row in EXPECTED if row["digits_asserted"]]


def tracks_of(name, **options):
    return analyze(CAPTURES / name, {"dtmf": DtmfSink()}, **options).tracks


def track_of(row, **options):
    ssrc = f"{int(row['ssrc'], 16):#010x}"
    (found,) = [t for t in tracks_of(row["file"], **options) if t["ssrc"] == ssrc]
    return found


def named(rows):
    return [pytest.param(row, id=f"{row['file']}-{row['ssrc']}") for row in rows]


def told(presses, row):
    """Check the digits and durations of telephone-events against what stands in the table."""
    events = [press for press in presses if press["kind"] == "telephone-event"]
    assert "".join(press["digit"] for press in events) == row["digits_asserted"]
    durations = [round(press["duration_ms"] * 8) for press in events]
    assert durations == [int(units) for units in row["durations"].split("/")]
    starts = [press["start_s"] for press in events]
    assert starts == sorted(starts)
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("row", named(PRESSED))
def test_every_key_is_told_once_in_order_with_its_duration(row):
    track = track_of(row)
    told(track["dtmf"], row)
    # what is in the audio of these belongs to an event
    assert all(press["kind"] == "telephone-event" for press in track["dtmf"])
    assert "telephone-event" in track["codecs"]
    if "unknown" not in track["codecs"]:
        assert track["unknown_payload"] == 0


@pytest.mark.parametrize("row", named(PRESSED))
def test_payload_type_is_learnt(row):
    told(track_of(row, telephone_events={}, learn_telephone_events=True)["dtmf"], row)


def test_keys_are_heard_in_the_audio_where_there_are_no_events():
    """The phone's own tones, as its microphone heard them, with much rumble."""
    (track,) = tracks_of("asterisk-testsuite/ulaw-2013785496.pcap", telephone_events={})
    assert "".join(press["digit"] for press in track["dtmf"]) == "2013785496"
    assert {press["kind"] for press in track["dtmf"]} == {"in-band"}


@pytest.mark.parametrize("row", named(row for row in EXPECTED if not row["digits_asserted"]))
def test_payload_that_is_no_event_is_none(row):
    assert track_of(row)["dtmf"] == []
