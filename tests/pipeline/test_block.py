from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from trackmaker import track

from pipeline.block import AudioBlock, Event, TrackSummary
from pipeline.codecs import PCMA, PCMU

pytestmark = pytest.mark.usefixtures("kernel")

COLUMNS = ("rows", "position", "gap_samples", "lost", "arrival_ns", "payload")


def block(payload, *, codec=PCMU, scratch=None, gap_samples=None):
    n = len(payload)
    return AudioBlock(
        codec=codec,
        rows=np.arange(n, dtype=np.intp),
        position=np.arange(n, dtype=np.int64) + 100,
        gap_samples=np.arange(n, dtype=np.int64) + 200 if gap_samples is None else gap_samples,
        lost=np.arange(n, dtype=np.int64) + 300,
        arrival_ns=np.arange(n, dtype=np.int64) + 400,
        payload=np.array(payload, np.uint8),
        scratch=scratch,
    )


def test_block_knows_its_size_and_rate():
    frames = block(np.zeros((3, 160)))
    assert len(frames) == 3
    assert frames.samples == 160
    assert frames.sample_rate_hz == 8000


def test_pcm_is_the_decoded_payload():
    assert block([[0x00, 0x80], [0xFF, 0x00]]).pcm.tolist() == [[-32124, 32124], [0, -32124]]
    pcm = block([[0xD5, 0x2A, 0xAA]], codec=PCMA).pcm
    assert pcm.tolist() == [[8, -32256, 32256]]
    assert pcm.dtype == np.int16
    assert pcm.flags.c_contiguous


def test_pcm_is_decoded_once():
    frames = block([[0x00, 0x80]])
    first = frames.pcm
    frames.payload[:] = 0xFF
    assert frames.pcm is first
    assert frames.pcm.tolist() == [[-32124, 32124]]


@pytest.mark.parametrize("spare", [0, 1])
def test_pcm_lies_in_the_scratch_where_that_is_large_enough(spare):
    scratch = np.full(6 + spare, 77, np.int16)
    frames = block([[0x00, 0x80, 0xFF], [0xFF, 0x00, 0x00]], scratch=scratch)
    assert frames.pcm.tolist() == [[-32124, 32124, 0], [0, -32124, -32124]]
    assert scratch.tolist() == [-32124, 32124, 0, 0, -32124, -32124, *[77] * spare]


def test_pcm_has_its_own_memory_where_the_scratch_is_too_small():
    scratch = np.full(5, 77, np.int16)
    frames = block([[0x00, 0x80, 0xFF], [0xFF, 0x00, 0x00]], scratch=scratch)
    assert frames.pcm.tolist() == [[-32124, 32124, 0], [0, -32124, -32124]]
    assert scratch.tolist() == [77] * 5


def test_bytes_are_those_of_payload_and_of_pcm_once_it_is_there():
    frames = block(np.zeros((3, 160)))
    assert frames.nbytes == 480
    assert frames.pcm.nbytes == 960
    assert frames.nbytes == 1440


@pytest.mark.parametrize(("gaps", "has_gaps"), [([0, 0], False), ([0, 160], True), ([-5, 0], True)])
def test_a_block_knows_whether_it_has_gaps(gaps, has_gaps):
    frames = block([[0x00], [0xFF]], gap_samples=np.array(gaps))
    assert frames.has_gaps is has_gaps


@pytest.mark.parametrize("is_decoded", [False, True])
def test_copy_shares_no_memory_with_the_original(is_decoded):
    frames = block([[0x00, 0x80], [0xFF, 0x00]], scratch=np.zeros(4, np.int16))
    if is_decoded:
        frames.pcm[0, 0] = 5
    kept = frames.copy()
    assert kept.nbytes == 4
    for name in COLUMNS:
        getattr(frames, name).view(np.uint8)[:] = 0xA5
    frames.pcm.view(np.uint8)[:] = 0xA5
    assert kept.codec is PCMU
    assert kept.rows.tolist() == [0, 1]
    assert kept.position.tolist() == [100, 101]
    assert kept.gap_samples.tolist() == [200, 201]
    assert kept.lost.tolist() == [300, 301]
    assert kept.arrival_ns.tolist() == [400, 401]
    assert kept.payload.tolist() == [[0x00, 0x80], [0xFF, 0x00]]
    # decoded anew, whatever somebody did to the original's samples
    assert kept.pcm.tolist() == [[-32124, 32124], [0, -32124]]


def test_copies_of_large_blocks_are_kept_apart():
    one = block(np.full((2000, 160), 0x11)).copy()
    other = block(np.full((2000, 160), 0x22), codec=PCMA).copy()
    for kept, code in (one, 0x11), (other, 0x22):
        assert (kept.payload == code).all()
        assert kept.rows.tolist() == list(range(2000))
        for number, name in enumerate(COLUMNS[1:5], start=1):
            assert getattr(kept, name).tolist() == list(range(100 * number, 100 * number + 2000))


def test_track_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        track().row = 1


def test_event_has_no_further_facts_unless_given():
    event = Event("speech_started", track(), 160, 8000)
    assert event.data == {}
    assert Event("speech_started", track(), 160, 8000).data is not event.data


def test_duration_is_the_end_of_the_last_frame_in_seconds():
    figures = dict.fromkeys((field.name for field in fields(TrackSummary)), 0)
    summary = TrackSummary(**figures | {"duration_samples": 12_000, "sample_rate_hz": 8000})
    assert summary.duration_s == 1.5
