"""While a call is paused, silence is recorded, and of the sound nothing is ever on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wavbench import (
    CALL,
    FRAME,
    MS,
    STEM,
    UNIX_NS,
    Filler,
    Linear,
    block,
    close,
    make_track,
    names,
    pcm,
    recording,
)

from pipeline.codecs import PCMA, PCMU
from pipeline.sinks.pausing import KEPT_NS, LOOK_NS, REMEMBERED_NS, Pauses
from pipeline.utc import rfc3339

pytestmark = pytest.mark.usefixtures("kernel")

OPEN, SECRET = b"\x80" * FRAME, b"\x8f" * FRAME
OTHER = UUID(int=5)
SILENCE = {"PCMU": 0xFF, "PCMA": 0xD5}


def at(ms):
    return rfc3339(UNIX_NS + ms * MS)


def write(sink, payload, ms, rows=(0, 1), **options):
    """Write a frame of 20 ms to each row, which arrives when it was spoken."""
    sink.write(block(rows, [ms * 8] * len(rows), [payload] * len(rows), arrival_ms=ms, **options))


@pytest.mark.parametrize("codec", [PCMU, PCMA])
@pytest.mark.parametrize("encoding", ["pcm16", "source"])
@pytest.mark.parametrize("layout", ["stereo", "mono"])
@pytest.mark.parametrize("flushed", [True, False])
def test_what_arrives_in_a_pause_is_silence(tmp_path, codec, encoding, layout, flushed):
    with recording(tmp_path, encoding=encoding, layout=layout) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        for ms in range(0, 400, 20):
            if ms == 100:
                sink.pause(CALL, 100 * MS)
            if ms == 300:
                sink.resume(CALL, 300 * MS)
            write(sink, SECRET if 100 <= ms < 300 else OPEN, ms, codec=codec)
            if flushed:
                sink.tick((ms + 2000) * MS)
            for file in tmp_path.iterdir():
                assert SECRET[:1] * 4 not in file.read_bytes()
                assert codec.table[0x8F].tobytes() * 4 not in file.read_bytes()
        results = close(sink, *tracks)
    loud, quiet = codec.table[0x80], 0 if encoding == "pcm16" else codec.table[SILENCE[codec.name]]
    expected = np.repeat([loud, quiet, loud], [800, 1600, 800])
    channels = np.concatenate([pcm(tmp_path / name) for name in names(tmp_path)])
    assert np.array_equal(channels, [expected] * 2)
    for result in results:
        assert result["marks"] == [
            {"kind": "paused", "at": at(100)}, {"kind": "resumed", "at": at(300)},
        ]  # fmt: skip


def test_arrival_decides_also_for_what_is_released_late(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        sink.open(make_track(0))
        sink.pause(CALL, 100 * MS)
        # released after the pause began, but it had come before
        sink.write(block([0], [0], [OPEN], arrival_ms=99))
        sink.resume(CALL, 200 * MS)
        # waited behind a hole while the pause ended
        sink.write(block([0], [160], [SECRET], arrival_ms=199))
        sink.write(block([0], [480], [OPEN], arrival_ms=200))
        sink.tick(201 * MS)
        # and one behind that: reordered
        sink.write(block([0], [320], [SECRET], arrival_ms=198))
        close(sink, make_track(0))
    loud = PCMU.table[0x80]
    assert pcm(tmp_path / f"{STEM}-a-inbound.wav")[0].tolist() == (
        [loud] * 160 + [0] * 320 + [loud] * 160
    )


def test_what_is_made_up_of_paused_sound_is_silence_too(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        sink.open(make_track(0))
        write(sink, OPEN, 0, [0])
        sink.pause(CALL, 10 * MS)
        write(sink, SECRET, 20, [0])
        sink.resume(CALL, 30 * MS)
        write(sink, SECRET, 40, [0], kind=Filler)  # repeats the frame before
        write(sink, OPEN, 60, [0])
        write(sink, OPEN, 80, [0], kind=Filler)
        close(sink, make_track(0))
    loud = PCMU.table[0x80]
    assert pcm(tmp_path / f"{STEM}-a-inbound.wav")[0].tolist() == (
        [loud] * 160 + [0] * 320 + [loud] * 320
    )


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_linear_samples_are_silence_too(tmp_path, rate_hz):
    samples = rate_hz // 50
    frames = [np.full(samples, value, "<i2").tobytes() for value in (7, 8, 9)]
    with recording(tmp_path, layout="mono") as sink:
        sink.open(make_track(0))
        for i, frame in enumerate(frames):
            sink.write(block([0], [i * samples], [frame], arrival_ms=20 * i, codec=Linear(rate_hz)))
            (sink.pause if i == 0 else sink.resume)(CALL, (20 * i + 10) * MS)
        close(sink, make_track(0))
    (recorded,) = pcm(tmp_path / f"{STEM}-a-inbound.wav")
    assert np.array_equal(recorded, np.repeat([7, 0, 9], samples))


@pytest.mark.parametrize("split_s", [0, 1])
def test_call_that_ends_in_a_pause_has_its_length(tmp_path, split_s):
    with recording(tmp_path, split_s=split_s) as sink:
        tracks = make_track(0), make_track(1, "outbound")
        for track in tracks:
            sink.open(track)
        write(sink, OPEN, 0)
        sink.pause(CALL, 10 * MS)
        for ms in range(20, 2500, 20):
            write(sink, SECRET, ms)
        close(sink, *tracks)
    whole = np.concatenate([pcm(tmp_path / name) for name in names(tmp_path)], axis=1)
    assert whole.shape == (2, 20_000)
    assert not whole[:, FRAME:].any()


def test_call_that_is_paused_before_it_is_heard_is_silent_from_the_beginning(tmp_path):
    with recording(tmp_path, encoding="source") as sink:
        sink.pause(CALL, 0)
        track = make_track(0, opened_ms=1000)
        sink.open(track)
        sink.write(block([0], [0], [SECRET], arrival_ms=1020))
        (result,) = close(sink, track)
    assert result["marks"] == [{"kind": "paused", "at": at(1000)}]
    assert result["offset_samples"] == 160
    assert not pcm(result["recording"]).any()
    assert pcm(result["recording"]).shape == (2, 320)


def test_pause_outlasts_the_tracks_of_the_call_and_concerns_no_other(tmp_path):
    with recording(tmp_path, layout="mono") as sink:
        for generation, call in enumerate((CALL, CALL, OTHER)):
            track = make_track(0, call=call, generation=generation)
            sink.open(track)
            write(sink, OPEN, 20 * generation, [0])
            if generation == 0:
                sink.pause(CALL, 10 * MS)
            write(sink, SECRET, 20 * generation + 20, [0])
            close(sink, track)
    sounding = {name: np.count_nonzero(pcm(tmp_path / name)) for name in names(tmp_path)}
    assert sounding == {
        f"{STEM}-a-inbound.wav": 160,
        f"{STEM}-a-inbound-2.wav": 0,
        f"20260101T000000Z-{OTHER}-a-inbound.wav": 320,
    }


def test_events_tell_of_each_track(tmp_path):
    events = []
    with recording(tmp_path) as sink:
        sink.emit = events.append
        track = make_track(0, opened_ms=100)
        sink.open(track)
        sink.pause(CALL, 1100 * MS)
        sink.pause(CALL, 1200 * MS)
        sink.resume(CALL, 1300 * MS)
        sink.resume(CALL, 1400 * MS)
        sink.resume(OTHER, 1400 * MS)
    assert [(e.kind, e.track, e.position_samples) for e in events] == [
        ("recording_paused", track, 8000),
        ("recording_resumed", track, 9600),
    ]


# -- which frames


def frame(row, arrival_ms):
    return block([row], [0], [OPEN], arrival_ms=arrival_ms)


def test_pauses_are_forgotten_when_nothing_of_them_can_come_any_more():
    pauses = Pauses()
    pauses.begin(CALL, 0, {3})
    pauses.end(CALL, 100 * MS)
    assert pauses.cut(frame(3, 50)) is not None
    pauses.forget(REMEMBERED_NS)
    assert pauses.cut(frame(3, 50)) is not None
    pauses.forget(REMEMBERED_NS + 100 * MS + LOOK_NS)
    assert not pauses
    assert pauses.cut(frame(3, 50)) is None
    assert pauses._legs == {}


def test_leg_that_nobody_resumes_is_forgotten_a_day_after_its_last_track():
    pauses = Pauses()
    pauses.begin(CALL, 0, {3})
    pauses.forget(2 * KEPT_NS)
    pauses.close(3)
    pauses.forget(3 * KEPT_NS)
    assert pauses.is_paused(CALL)
    pauses.forget(4 * KEPT_NS)
    assert pauses.is_paused(CALL)
    pauses.forget(5 * KEPT_NS)
    assert not pauses.is_paused(CALL)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["begin", "end"]), st.integers(0, 1)),
            st.tuples(st.just("frame"), st.integers(0, 3), st.integers(-3, 0)),
        ),
        max_size=40,
    )
)
def test_a_frame_is_cut_if_it_arrived_in_a_pause_of_its_leg(steps):
    """Rows 0 and 1 are of one leg, 2 and 3 of another; time goes on by a step each."""
    legs = UUID(int=1), UUID(int=2)
    pauses = Pauses()
    spans = {leg: [] for leg in legs}
    for now, (what, number, *lag) in enumerate(steps):
        if what == "frame":
            arrival = now + lag[0]
            one = frame(number, 0)
            one.arrival_ns[:] = arrival
            cut = pauses.cut(one)
            expected = any(first <= arrival < last for first, last in spans[legs[number // 2]])
            assert (cut is not None and bool(cut[0])) == expected
        elif what == "begin":
            if pauses.begin(legs[number], now, {2 * number, 2 * number + 1}):
                spans[legs[number]].append((now, 1 << 60))
        elif pauses.end(legs[number], now):
            spans[legs[number]][-1] = (spans[legs[number]][-1][0], now)


a_frame = st.tuples(
    st.sampled_from([0, 1, 2, 3]), st.sampled_from([PCMU, PCMU, PCMA]), st.integers(-400, 400)
)
a_command = st.tuples(st.sampled_from(["pause", "resume", "tick"]), st.just(None), st.just(0))


@pytest.mark.parametrize("encoding", ["pcm16", "source"])
@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.one_of(a_frame, a_frame, a_command), max_size=40))
def test_no_sample_of_a_pause_is_ever_in_a_file(encoding, steps):
    """Sound of a pause has codes of its own, which are looked for in every file at every step."""
    secret = {id(PCMU): b"\x8f", id(PCMA): b"\xa7"}
    sides = "inbound", "outbound"
    with (
        tempfile.TemporaryDirectory() as folder,
        recording(Path(folder), encoding=encoding) as sink,
    ):
        tracks = [make_track(r, sides[r % 2], call=UUID(int=r // 2)) for r in range(4)]
        for track in tracks:
            sink.open(track)
        paused, positions = False, [0] * 4
        for now_ms, (what, codec, gap) in enumerate(steps):
            if what in {"pause", "resume"}:
                getattr(sink, what)(UUID(int=0), now_ms * MS)
                paused = what == "pause"
            elif what == "tick":
                sink.tick((now_ms + 10_000) * MS)
            else:
                is_secret = paused and what < 2
                code = secret[id(codec)] if is_secret else b"\x01"
                positions[what] += gap
                start = [positions[what]]
                sink.write(block([what], start, [code * 80], arrival_ms=now_ms, codec=codec))
                positions[what] += 80
        close(sink, *tracks)
        loud = {abs(int(PCMU.table[0x8F])), abs(int(PCMA.table[0xA7]))}
        for name in names(Path(folder)):
            assert not loud & set(np.abs(pcm(Path(folder) / name).astype(int)).ravel().tolist())
