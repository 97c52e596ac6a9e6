"""What is not G.711: how long it lasts, how it sounds, and what becomes of what is malformed."""

from __future__ import annotations

import logging

import encoders
import numpy as np
import pytest
from encoders import measured, tone
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import P, columns
from trackmaker import track

from pipeline import decoders
from pipeline.decoders import Decoded, Decoders, duration_units
from pipeline.dispatch import Dispatcher
from pipeline.formats import Format, PayloadTypes
from pipeline.packets import Packets, Released
from pipeline.pipeline import Pipeline
from pipeline.playout import Playout
from pipeline.sinks.base import Sink

pytestmark = pytest.mark.usefixtures("kernel")

OPUS = Format("opus", 48_000)
needs_library = pytest.mark.skipif(
    decoders.load_library() is None, reason="needs PyAV: strep[codecs]"
)


class Recorder(Sink):
    """Keeps frames: codec, rate, position, gap, lost and samples."""

    threaded = False

    def __init__(self):
        self.frames = []
        self.summaries = []

    def write(self, block):
        for i in range(len(block)):
            assert block.codec.table is not None or (
                block.payload[i].tobytes() == block.pcm[i].astype("<i2").tobytes()
            )
            self.frames.append(
                (
                    int(block.rows[i]),
                    block.codec.name,
                    block.sample_rate_hz,
                    int(block.position[i]),
                    int(block.gap_samples[i]),
                    int(block.lost[i]),
                    block.pcm[i].copy(),
                )
            )

    def close(self, _track, summary):
        self.summaries.append(summary)


class Line:
    """A pipeline with one track, whose packets come as often as they last."""

    def __init__(self, payload_type, *, units=160, ms=20, payload_types="", **options):
        self.sink = Recorder()
        told = PayloadTypes.parse(payload_types)
        self.pipeline = Pipeline(Dispatcher({"recorder": self.sink}), payload_types=told, **options)
        self.pipeline.open(track(0), sequence=0)
        self.payload_type = payload_type
        self.units = units
        self.ms = ms

    def send(self, *payloads, first=0, payload_type=None, **fields):
        kind = self.payload_type if payload_type is None else payload_type
        for i, payload in enumerate(payloads, first):
            where = {"timestamp": i * self.units, "arrival_ms": self.ms * i} | fields
            packet = P(sequence=i, payload_type=kind, payload=payload, **where)
            self.pipeline.push(columns([packet]))
        return self

    def close(self):
        self.pipeline.tick(10**12)
        self.pipeline.close(0, "closed")
        return self.sink.summaries[-1]

    @property
    def places(self):
        return [(position, gap, lost) for *_, position, gap, lost, _ in self.sink.frames]

    @property
    def pcm(self):
        return np.concatenate([frame[-1] for frame in self.sink.frames])


# -- how long packets last


@pytest.mark.parametrize(
    ("encoding", "payload", "units"),
    [
        ("G722", bytes(160), 160),
        ("G722", bytes(1), 1),
        ("L16", bytes(640), 320),
        ("L16", bytes(641), None),
        ("GSM", bytes(33), 160),
        ("GSM", bytes(66), 320),
        ("GSM", bytes(32), None),
        ("G729", bytes(10), 80),
        ("G729", bytes(20), 160),
        ("G729", bytes(40), 320),
        ("G729", bytes(12), 80),  # and comfort noise
        ("G729", bytes(2), 0),  # comfort noise alone
        ("G729", bytes(11), None),
        ("G729", bytes(8), None),
        ("opus", b"", None),
        ("opus", bytes([0 << 3 | 0]), 480),  # SILK, 10 ms, one frame
        ("opus", bytes([3 << 3 | 0]), 2880),  # SILK, 60 ms
        ("opus", bytes([9 << 3 | 1, 1, 1]), 1920),  # SILK wide-band, two of 20 ms
        ("opus", bytes([15 << 3 | 2, 1]), 1920),  # hybrid, two of 20 ms
        ("opus", bytes([16 << 3 | 0]), 120),  # CELT, 2.5 ms
        ("opus", bytes([31 << 3 | 3, 6]), 5760),  # CELT, six of 20 ms
        ("opus", bytes([31 << 3 | 3, 7]), None),  # 140 ms
        ("opus", bytes([31 << 3 | 3, 0]), None),
        ("opus", bytes([31 << 3 | 3]), None),
        ("speex", bytes(20), None),
    ],
)
def test_a_payload_tells_how_long_it_lasts(encoding, payload, units):
    assert duration_units(encoding, payload) == units


def test_l16_of_two_channels_lasts_half_as_long():
    assert duration_units("L16", bytes(640), 2) == 160
    assert duration_units("L16", bytes(642), 2) is None


# -- how they sound


@needs_library
def test_g722_counts_160_units_and_320_samples_in_20_ms():
    line = Line(9).send(*encoders.g722(tone(16_000, 16_000)))
    assert line.places[:3] == [(0, 0, 0), (320, 0, 0), (640, 0, 0)]
    summary = line.close()
    assert (summary.codec, summary.sample_rate_hz) == ("G722", 16_000)
    assert (summary.duration_samples, summary.duration_s) == (16_000, 1.0)
    assert (summary.unknown_payload, summary.undecoded) == (0, 0)
    assert summary.jitter_max_ms == pytest.approx(0, abs=1e-9)
    assert measured(line.pcm[1600:], 16_000) == pytest.approx((1000, -12), abs=1)


@needs_library
@pytest.mark.parametrize(("ms", "units"), [(2.5, 120), (5, 240), (10, 480), (20, 960), (60, 2880)])
def test_opus_is_48_khz_whatever_its_packet_time(ms, units):
    line = Line(96, units=units, ms=ms, payload_types="96=opus")
    line.send(*encoders.opus(tone(24_000, 48_000), ms))
    assert line.places[:2] == [(0, 0, 0), (units, 0, 0)]
    summary = line.close()
    assert (summary.codec, summary.sample_rate_hz) == ("opus", 48_000)
    # the encoder looks ahead and pads the last frame
    assert summary.duration_samples == len(line.pcm) == units * summary.packets
    assert measured(line.pcm[9600:19_200], 48_000) == pytest.approx((1000, -12), abs=6)


@needs_library
def test_gsm_is_8_khz():
    line = Line(3).send(*encoders.gsm(tone(8000, 8000)))
    assert line.places[:2] == [(0, 0, 0), (160, 0, 0)]
    summary = line.close()
    assert (summary.codec, summary.sample_rate_hz, summary.duration_s) == ("GSM", 8000, 1.0)
    assert measured(line.pcm[800:], 8000) == pytest.approx((1000, -12), abs=2)


@needs_library
def test_g729_of_several_frames_lasts_10_ms_for_each():
    line = Line(18, units=320, ms=40).send(bytes(40), bytes(40), bytes(22), bytes(2))
    assert line.places == [(0, 0, 0), (320, 0, 0), (640, 0, 0)]
    summary = line.close()
    assert (summary.codec, summary.duration_samples) == ("G729", 800)
    assert (summary.unknown_payload, summary.undecoded) == (0, 0)


@pytest.mark.parametrize(
    ("payload_type", "payload_types", "rate_hz"), [(97, "97=L16/16000", 16_000), (11, "", 44_100)]
)
def test_l16_needs_nothing_installed(monkeypatch, payload_type, payload_types, rate_hz):
    monkeypatch.setattr(decoders, "load_library", lambda: None)
    sine = tone(3200, rate_hz)
    line = Line(payload_type, units=320, payload_types=payload_types)
    line.send(*encoders.l16(sine, 320))
    assert line.places[:2] == [(0, 0, 0), (320, 0, 0)]
    assert line.pcm.tolist() == sine.tolist()
    assert line.close().sample_rate_hz == rate_hz


def test_l16_of_two_channels_becomes_their_mean():
    both = np.array([[100, 300], [-32768, -32768], [7, 8]], ">i2")
    line = Line(10, units=3).send(both.tobytes())
    assert line.pcm.tolist() == [200, -32768, 7]
    assert line.close().sample_rate_hz == 44_100


def test_g711_under_another_payload_type_stays_g711():
    line = Line(100, payload_types="100=PCMA").send(b"\x2a" * 160, b"\xaa" * 160)
    assert [frame[1:5] for frame in line.sink.frames] == [
        ("PCMA", 8000, 0, 0),
        ("PCMA", 8000, 160, 0),
    ]
    assert set(line.pcm.tolist()) == {-32256, 32256}
    assert line.close().codecs == ("PCMA",)


# -- where they stand


@needs_library
def test_gaps_and_losses_are_in_samples():
    payloads = encoders.g722(tone(3200, 16_000))
    line = Line(9).send(*payloads[:2])
    line.send(payloads[2], first=3)  # one is lost
    line.send(payloads[3], first=4, timestamp=6 * 160, arrival_ms=140)  # two of silence
    line.close()
    assert line.places == [(0, 0, 0), (320, 0, 0), (960, 320, 1), (1920, 640, 0)]


@needs_library
def test_tracks_have_decoders_of_their_own():
    one, other = encoders.g722(tone(3200, 16_000)), encoders.g722(tone(3200, 16_000)[::-1].copy())
    alone = [Line(9).send(*each).pcm for each in (one, other)]
    line = Line(9)
    line.pipeline.open(track(1), sequence=0)
    for i, both in enumerate(zip(one, other, strict=True)):
        packets = [
            P(row, i, 20 * i, payload_type=9, timestamp=160 * i, payload=payload)
            for row, payload in enumerate(both)
        ]
        line.pipeline.push(columns(packets))
    for row in (0, 1):
        pcm = np.concatenate([frame[-1] for frame in line.sink.frames if frame[0] == row])
        assert pcm.tolist() == alone[row].tolist()
    assert len(line.pipeline.decoders) == 2


@needs_library
def test_a_decoder_begins_anew_with_the_sequence_and_ends_with_the_track():
    payloads = encoders.g722(tone(3200, 16_000))
    line = Line(9).send(*payloads[:5])
    first = line.pcm[:640]
    line.send(*payloads[:3], first=20_000, ssrc=2)
    assert line.pcm[-960:-320].tolist() == first.tolist()
    assert len(line.pipeline.decoders) == 1
    line.close()
    assert len(line.pipeline.decoders) == 0


@needs_library
def test_a_change_of_codec_begins_with_a_new_decoder():
    payloads = encoders.g722(tone(6400, 16_000))
    line = Line(9).send(*payloads[:5])
    line.send(*encoders.gsm(tone(320, 8000)), first=5, payload_type=3)
    line.send(*payloads[:2], first=7)
    assert [frame[1:3] for frame in line.sink.frames] == [
        *[("G722", 16_000)] * 5,
        *[("GSM", 8000)] * 2,
        *[("G722", 16_000)] * 2,
    ]
    assert line.pcm[-640:].tolist() == line.pcm[:640].tolist()
    line.close()
    assert [(each.codecs, each.packets, each.duration_s) for each in line.sink.summaries] == [
        (("G722",), 5, 0.1),
        (("GSM",), 2, 0.04),
        (("G722",), 2, 0.04),
    ]


@needs_library
def test_another_rate_begins_another_segment():
    payloads = encoders.g722(tone(3200, 16_000))
    line = Line(9).send(*payloads[:2]).send(*[b"\xff" * 160] * 3, first=2, payload_type=0)
    line.send(*payloads[2:4], first=5)
    assert [frame[1:4] for frame in line.sink.frames] == [
        ("G722", 16_000, 0),
        ("G722", 16_000, 320),
        ("PCMU", 8000, 0),
        ("PCMU", 8000, 160),
        ("PCMU", 8000, 320),
        ("G722", 16_000, 0),
        ("G722", 16_000, 320),
    ]
    line.close()
    figures = [(s.reason, s.packets, s.payload_bytes, s.codec) for s in line.sink.summaries]
    assert figures == [
        ("rate", 2, 320, "G722"),
        ("rate", 3, 480, "PCMU"),
        ("closed", 2, 320, "G722"),
    ]


@needs_library
def test_there_are_at_most_so_many_decoders():
    held = Decoders(max_decoders=1)
    packets = columns([P(row, payload_type=9) for row in range(3)])
    parts = [(part.rows.tolist(), type(part)) for part, _ in held.decode(packets, None)]
    assert parts == [([0], Decoded), ([1, 2], Packets)]
    assert (held.undecoded(0), held.undecoded(1), held.undecoded_total) == (0, 1, 2)
    held.close(0)
    assert len(held) == 0


@needs_library
def test_decoded_packets_can_be_kept_and_are_not_decoded_again():
    payload = encoders.g722(tone(320, 16_000))[0]
    packets = columns([P(payload_type=9, payload=payload, timestamp=0)])
    playout = Playout()
    ((decoded, _),) = playout.decoders.decode(packets, None)
    assert (decoded.codec.name, decoded.length.tolist()) == ("G722", [640])
    assert decoded.received.length.tolist() == [160]
    kept = decoded.take(np.array([0])).copy()
    expected = decoded.store.tobytes()
    decoded.store[:] = packets.store[:] = 0xA5
    (block,) = playout.play(Released(kept))
    assert block.payload.tobytes() == block.pcm.tobytes() == expected
    assert (block.sample_rate_hz, int(playout.end[0])) == (16_000, 320)
    assert kept.received.payload_type.tolist() == [9]


# -- what a call declared


@needs_library
def test_a_declared_codec_has_the_dynamic_payload_type_that_comes():
    payloads = encoders.opus(tone(9600, 48_000))
    line = Line(111, units=960, declared=lambda _: OPUS)
    line.send(b"\x01\x8a\x00\xa0", first=0, payload_type=101)  # a telephone-event
    line.send(*payloads, first=1)
    line.send(b"\x05\x8a\x00\xa0", first=len(payloads) + 1, payload_type=101)
    summary = line.close()
    assert summary.codecs == ("telephone-event", "opus")
    assert summary.codec == "opus"
    assert (summary.unknown_payload, summary.undecoded) == (0, 0)
    assert summary.duration_samples == 960 * len(payloads)
    assert summary.jitter_mean_ms == pytest.approx(0, abs=1e-9)


@needs_library
def test_a_codec_may_be_declared_after_its_packets_have_come():
    payloads = encoders.opus(tone(9600, 48_000))
    declared = []
    line = Line(111, units=960, declared=lambda _: declared[0] if declared else None)
    line.send(*payloads[:2])
    assert line.sink.frames == []
    declared.append(OPUS)
    line.pipeline.declare(track(0).call_leg_id)
    line.send(*payloads[2:4], first=2)
    assert len(line.sink.frames) == 2
    summary = line.close()
    assert (summary.codec, summary.packets, summary.jitter_max_ms) == ("opus", 4, 0)


def test_nothing_is_learnt_of_a_payload_type_that_has_a_meaning():
    line = Line(97, payload_types="97=L16/16000", declared=lambda _: OPUS)
    line.send(bytes(320)).send(bytes(160), first=1, payload_type=50)
    assert [frame[1] for frame in line.sink.frames] == ["L16"]
    assert line.close().codecs == ("unknown", "L16")


@needs_library
def test_what_was_learnt_of_a_payload_type_holds_for_the_next_segment():
    payloads = encoders.opus(tone(9600, 48_000))
    line = Line(111, units=960, declared=lambda _: OPUS)
    line.send(*payloads[:3]).send(*[b"\xff" * 160] * 2, first=3, payload_type=0)
    line.send(*payloads[3:6], first=5)
    assert len(line.sink.frames) == 8
    summary = line.close()
    assert (summary.codecs, summary.packets) == (("opus",), 3)
    assert summary.jitter_mean_ms == pytest.approx(0, abs=1e-9)


# -- what cannot be decoded


def test_without_the_library_packets_are_counted_and_the_log_says_once_what_to_install(
    monkeypatch, caplog
):
    monkeypatch.setattr(decoders, "load_library", lambda: None)
    with caplog.at_level(logging.WARNING, "pipeline.decoders"):
        line = Line(9).send(bytes(160), bytes(160)).send(bytes(20), first=2, payload_type=18)
    told = "cannot be decoded and is left out of the audio: pip install 'strep[codecs]'"
    assert [record.getMessage() for record in caplog.records] == [
        f"G722 (payload type 9) {told}",
        f"G729 (payload type 18) {told}",
    ]
    summary = line.close()
    assert line.sink.frames == []
    assert (summary.codec, summary.codecs) == ("G722", ("G722", "G729"))
    assert (summary.unknown_payload, summary.undecoded) == (3, 0)


@needs_library
def test_a_malformed_payload_is_counted_and_a_gap_of_its_length():
    good = encoders.gsm(tone(800, 8000))
    line = Line(3).send(*good[:2], bytes(32), *good[3:])
    summary = line.close()
    assert line.places == [(0, 0, 0), (160, 0, 0), (480, 160, 0), (640, 0, 0)]
    assert (summary.undecoded, summary.unknown_payload) == (1, 0)
    assert (summary.released, summary.lost, summary.duration_samples) == (5, 0, 800)
    assert line.pipeline.counters().undecoded == 1


@needs_library
def test_losses_before_a_malformed_payload_are_told_with_the_next_frame():
    good = encoders.gsm(tone(800, 8000))
    line = Line(3).send(good[0]).send(bytes(7), first=2).send(good[3], first=3)
    line.close()
    assert line.places == [(0, 0, 0), (480, 320, 1)]


class Raising:
    """A library whose decoders raise, or say something else than the payload does."""

    class CodecContext:
        @staticmethod
        def create(name, mode):
            assert (name, mode) == ("g722", "r")
            return Raising()

    Packet = bytes

    @staticmethod
    def Codec(_name, _mode):  # noqa: N802 -- the library's name
        """Have every decoder."""

    def decode(self, packet):
        if packet[0] == 0:
            raise RuntimeError("a defect")
        return []


def test_whatever_the_library_raises_is_counted(monkeypatch):
    monkeypatch.setattr(decoders, "load_library", lambda: Raising)
    line = Line(9).send(bytes(160), b"\x01" * 160)
    assert line.sink.frames == []
    assert line.close().undecoded == 2


@needs_library
@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([3, 9, 10, 11, 18, 96, 97, 0, 101]),
            st.one_of(
                st.binary(max_size=80), st.sampled_from([bytes(33), bytes(160), b"\x0b\x82"])
            ),
        ),
        max_size=12,
    )
)
def test_random_payloads_never_raise_and_are_all_accounted_for(payloads):
    line = Line(0, payload_types="96=opus,97=L16/16000")
    for i, (payload_type, payload) in enumerate(payloads):
        line.send(payload, first=i, payload_type=payload_type)
    line.close()
    summaries = line.sink.summaries
    assert sum(each.released for each in summaries) == len(payloads)
    assert sum(each.packets for each in summaries) == len(payloads)
    undecoded = sum(each.undecoded for each in summaries)
    silent = sum(not payload for _, payload in payloads)
    comfort = sum(kind == 18 and len(payload) == 2 for kind, payload in payloads)
    events = sum(kind == 101 and bool(payload) for kind, payload in payloads)
    assert len(line.sink.frames) + undecoded + silent + comfort + events == len(payloads)
    assert len(line.pipeline.decoders) == 0
