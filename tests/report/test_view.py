"""What a report shows of manifests, those that make no sense included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strep.report.gather import Source
from strep.report.view import grade, views

ID = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"


def track(direction="inbound", **changes):
    return {
        "leg": "A",
        "direction": direction,
        "started_at": "2026-01-31T12:00:00.000Z",
        "ended_at": "2026-01-31T12:00:10.000Z",
        "recording": "call.wav",
        "channel": "left" if direction == "inbound" else "right",
        "offset_s": 0.0,
        "duration_s": 10.0,
        "packets": 490,
        "lost": 10,
    } | changes


def source(*tracks, folder="calls", **changes):
    manifest = {
        "version": 1,
        "call_leg_id": ID,
        "leg": "A",
        "started_at": "2026-01-31T12:00:00.000Z",
        "ended_at": "2026-01-31T12:00:10.000Z",
        "tracks": list(tracks),
    }
    return Source(manifest | changes, Path(folder))


def show(*tracks, **changes):
    (view,) = views([source(*tracks, **changes)])
    return view.document


def test_times_of_a_track_count_from_its_offset_in_the_recording():
    (lane,) = show(
        track(
            offset_s=2.0,
            duration_s=8.0,
            speech=[[1.0, 2.5]],
            lost_at_s=[3.0],
            concealed_at_s=[[3.0, 3.02]],
            dtmf=[{"digit": "5", "start_s": 4.0, "duration_ms": 100, "kind": "telephone-event"}],
            timeline={"interval_s": 1.0, "jitter_ms": [2.5], "lost": [1], "packets": [49]},
        )
    )["lanes"]
    assert [(each["start_s"], each["end_s"]) for each in lane["tracks"]] == [(2.0, 10.0)]
    assert (lane["speech"], lane["lost"], lane["speech_s"]) == ([(3.0, 4.5)], [5.0], 1.5)
    assert lane["concealed"] == [(5.0, 5.02)]
    assert lane["dtmf"] == [
        {"digit": "5", "at_s": 6.0, "duration_ms": 100, "kind": "telephone-event"}
    ]
    assert lane["timeline"] == [
        {"start_s": 2.0, "interval_s": 1.0, "jitter_ms": [2.5], "lost": [1], "packets": [49]}
    ]


def test_changes_stand_at_their_times_and_all_codecs_are_named():
    (lane,) = show(
        track(
            offset_s=2.0,
            codec="PCMU",
            codecs=["PCMU", "PCMA", "telephone-event"],
            changes=[
                {"kind": "codec", "at_s": 3.0, "codec": "PCMA"},
                {"kind": "source", "at_s": 1.0, "ssrc": "0x00000007"},
                {"kind": "restart", "at_s": 4.0},
                {"kind": "hold", "at_s": 5.0, "gap_s": 90.0},
            ],
        )
    )["lanes"]
    assert [(each["at_s"], each["kind"], each["detail"]) for each in lane["changes"]] == [
        (3.0, "source", "0x00000007"),
        (5.0, "codec", "PCMA"),
        (6.0, "restart", None),
        (7.0, "hold", 90.0),
    ]
    assert lane["tracks"][0]["codec"] == "PCMU, PCMA"


def test_losses_that_are_not_listed_one_by_one_are_shown_where_the_timeline_has_some():
    (lane,) = show(
        track(
            offset_s=1.0,
            lost_at_s=[0.5, 2.5],
            quality={"burst": {"runs": 9}},
            timeline={"interval_s": 2.0, "lost": [1, 3, 0, 5], "packets": [99, 97, 100, 95]},
        )
    )["lanes"]
    assert lane["lost_places"] == 9
    assert lane["lost"] == [1.5, 3.5]
    assert lane["lost_unlisted"] == [(3.5, 5.0), (7.0, 9.0)]


def test_lanes_are_inbound_and_outbound_in_this_order():
    document = show(track("outbound"), track("inbound"))
    assert [lane["direction"] for lane in document["lanes"]] == ["inbound", "outbound"]


def test_conversation_is_shown_as_told():
    document = show(
        track(),
        track(
            "outbound",
            conversation={
                "started_at": "2026-01-31T12:00:00.000Z",
                "talk_over": [[1.0, 2.5]],
                "silence": [[4.0, 9.5]],
            },
        ),
    )
    assert (document["talk_over"], document["talk_over_s"]) == ([(1.0, 2.5)], 1.5)
    assert (document["silence"], document["silence_s"]) == ([(4.0, 9.5)], 5.5)


def test_conversation_that_is_not_told_is_found_in_the_speech():
    document = show(track(speech=[[0.0, 3.0]]), track("outbound", speech=[[2.0, 3.5], [9.5, 10]]))
    assert document["talk_over"] == [(2.0, 3.0)]
    assert document["silence"] == [(3.5, 9.5)]


def test_without_any_speech_nothing_is_said_of_silence():
    assert show(track(), track("outbound"))["silence"] == []


def test_pauses_are_made_of_marks_and_last_to_the_end_if_nobody_resumes():
    marks = [
        {"kind": kind, "at_s": at} for kind, at in (("paused", 2), ("resumed", 3), ("paused", 8))
    ]
    assert show(track(), marks=marks)["paused"] == [(2, 3), (8, 10.0)]


@pytest.mark.parametrize(
    ("mos", "loss", "word"),
    [
        (4.4, 0.5, "good"), (4.03, None, "good"), (4.02, None, "fair"), (3.6, None, "fair"),
        (3.59, 0.0, "poor"), (None, 0.01, "good"), (None, 0.02, "fair"), (None, 0.031, "poor"),
        (None, None, None),
    ],
)  # fmt: skip
def test_quality_in_a_word(mos, loss, word):
    assert grade(mos, loss) == word


def test_call_is_as_good_as_its_worse_side():
    document = show(
        track(quality={"mos": 4.3, "mos_concealed": 4.38}), track("outbound", quality={"mos": 3.1})
    )
    assert (document["mos"], document["grade"]) == (3.1, "poor")
    assert [lane["grade"] for lane in document["lanes"]] == ["good", "poor"]


def test_loss_is_over_both_sides():
    document = show(track(packets=90, lost=10), track("outbound", packets=100, lost=0))
    assert (document["packets"], document["lost_packets"]) == (190, 10)
    assert document["loss_ratio"] == 0.05
    assert document["grade"] == "poor"


def test_recordings_of_single_tracks_that_were_made_at_once_are_one_view():
    mono = {"channel": "mono", "offset_s": 0.0}
    shown = views(
        [
            source(track(recording="in.wav", **mono)),
            source(
                track("outbound", recording="out.wav", started_at="2026-01-31T12:00:02Z", **mono),
                started_at="2026-01-31T12:00:02Z",
            ),
        ]
    )
    assert len(shown) == 1
    assert [(each.path.name, each.lane, each.start_s) for each in shown[0].recordings] == [
        ("in.wav", 0, 0.0),
        ("out.wav", 1, 2.0),
    ]
    assert shown[0].document["duration_s"] == 12.0


def test_recordings_one_after_the_other_are_parts():
    later = {"started_at": "2026-01-31T12:05:00Z", "ended_at": "2026-01-31T12:05:10Z"}
    shown = views([source(track(**later), **later), source(track())])
    assert [each.document["part"] for each in shown] == [[1, 2], [2, 2]]
    assert [each.document["started_at"] for each in shown] == [
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:05:00+00:00",
    ]


def test_segment_in_the_same_recording_is_in_the_same_lane():
    (lane,) = show(
        track(duration_s=3.0),
        track(offset_s=7.0, duration_s=3.0, segment={"number": 1, "began": "gap", "gap_s": 4.0}),
    )["lanes"]
    assert [(each["start_s"], each["end_s"], each["began"]) for each in lane["tracks"]] == [
        (0.0, 3.0, None),
        (7.0, 10.0, "gap"),
    ]
    assert lane["packets"] == 980


def test_newest_call_comes_first():
    other = {"call_leg_id": "other", "started_at": "2026-02-01T12:00:00Z"}
    shown = views([source(track()), source(track(), **other)])
    assert [each.document["call_leg_id"] for each in shown] == ["other", ID]


def test_recording_is_looked_for_beside_its_manifest():
    (view,) = views([source(track(recording="/elsewhere\\..\\secrets/call.wav"))])
    assert [each.path for each in view.recordings] == [Path("calls/call.wav")]


def test_files_of_a_split_recording_stand_one_behind_the_other():
    files = [{"recording": f"call-{n}.wav", "start_s": 5.0 * n, "duration_s": 5.0} for n in (0, 1)]
    (view,) = views([source(track(recording="call-0.wav"), files=files)])
    assert [(each.path.name, each.start_s) for each in view.recordings] == [
        ("call-0.wav", 0.0),
        ("call-1.wav", 5.0),
    ]


def test_far_end_is_shown_as_it_reports():
    (lane,) = show(track(rtcp={"far_end": {"fraction_lost": 0.25, "round_trip_ms": 42.1}}))["lanes"]
    (shown,) = lane["tracks"]
    assert (shown["fraction_lost"], shown["round_trip_ms"]) == (0.25, 42.1)


def test_track_without_recording_is_placed_by_its_beginning():
    (lane,) = show(
        track(recording=None, channel=None, offset_s=None, started_at="2026-01-31T12:00:03Z")
    )["lanes"]
    assert lane["tracks"][0]["start_s"] == 3.0


NAN = float("nan")
NONSENSE = (
    None, True, -1, 10**400, 1e308, NAN, float("inf"), "", "x" * 10_000, "2026-01-31", "9999-99",
    [], [[]], [[1, "a"], [3, 2], [NAN, 4], [1, 2, 3], None, [1, 2]], [1, None, "2", 3.5], {},
    {"mos": "x"}, "0001-01-01T00:00:00+23:00",
    [{"kind": 3, "at_s": 1}, {"kind": "codec", "at_s": 1, "codec": []}], ["PCMU", 7, "x" * 999],
    [{"digit": 1, "start_s": "x"}, {"digit": [], "start_s": 1}, {"kind": "paused", "at_s": 1}, 7],
    {"interval_s": 0}, {"interval_s": 1, "lost": 5, "packets": [-1], "jitter_ms": [None, "x", NAN]},
    {"started_at": "no", "talk_over": [[1], [2, 3]], "silence": {}}, {"number": 1, "began": []},
    {"mos": 10**400, "burst": {"longest_packets": []}}, {"mos": 1, "burst": 3},
    {"from": 3, "to": []},
)  # fmt: skip
KEYS = (
    "leg", "started_at", "ended_at", "recording", "channel", "offset_s", "duration_s", "packets",
    "lost", "speech", "lost_at_s", "dtmf", "changes", "codecs", "timeline", "quality",
    "conversation", "segment", "rtcp", "drift_ppm", "codec", "concealed_at_s",
)  # fmt: skip
OF_MANIFEST = ("started_at", "ended_at", "call", "marks", "leg", "files")


@given(
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(NONSENSE), max_size=8),
    st.dictionaries(st.sampled_from(OF_MANIFEST), st.sampled_from(NONSENSE), max_size=3),
)
@settings(max_examples=100)
def test_no_value_whatever_raises_or_is_no_json(changes, of_manifest):
    json.dumps(show(track(**changes), **of_manifest), allow_nan=False)
