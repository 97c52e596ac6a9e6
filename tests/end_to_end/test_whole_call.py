"""One call to which everything happens, from its capture to its page: all of it has to be right."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile
from browser import BROWSER, browse, facts
from capturefile import datagram, ethernet, pcap
from wirecases import CALL, rtp, strep

from pipeline.codecs import PCMA, PCMU
from pipeline.encode import encode
from strep import cli
from strep.voices import load_voice

RATE, FRAME = 8000, 160
SECONDS = 270
PPM = 50
JITTER_MS = 3.0
START_NS = 1_767_225_600_000_000_000
PCMA_FROM_MS, SOURCE_FROM_MS = 40_000, 80_000
DTX_MS = range(90_000, 105_000)
"""In it a second of speech begins every five seconds."""
HOLD_MS = range(110_000, 200_000)
"""Nothing is sent, and the sender's timestamps stand still."""
MUTE_MS = range(130_000, 150_000)
"""In the hold the outbound side says nothing."""
KEYS = {210_000: "4", 211_000: "2", 212_500: "#"}
"""Each is held for 200 ms."""
EVENTS = "0123456789*#"
HELD_SAMPLES = 1600
EDGES_MS = [0, PCMA_FROM_MS, SOURCE_FROM_MS, HOLD_MS.start, HOLD_MS.stop, 1000 * SECONDS]
"""No packet is lost within 100 ms of these, so that it is known what is counted as lost."""


@dataclass
class Told:
    """What the senders know of the call."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)
    heard: dict[str, list[tuple[int, int, np.ndarray]]] = field(
        default_factory=lambda: {"inbound": [], "outbound": []}
    )
    """By direction, of each packet that arrived: its piece between breaks of the timestamps, where
    it was spoken on the sender's clock, and its samples."""
    lost: int = 0
    arrived: int = 0


def voice(name):
    """The sentences of one side, over and over."""
    return np.resize(PCMU.table[load_voice(name)], SECONDS * RATE)


def make_call():
    """Return the call; its inbound side has all the trouble."""
    told = Told()
    random = np.random.default_rng(5)
    caller, agent = voice("caller"), voice("agent")
    agent[8 * MUTE_MS.start : 8 * MUTE_MS.stop] = 0
    sequence, offset, ssrc, piece = 65_000, 4_000_000_000, 0xA, 0

    def arrive(ms, inner, first):
        packet = ethernet(datagram(strep(inner, CALL, first=first)))
        told.frames.append((START_NS + round(ms * 1e6), packet))

    for frame in range(50 * SECONDS):
        ms, sample = 20 * frame, FRAME * frame
        said = agent[sample : sample + FRAME]
        codes = encode(PCMU, said[None, :])
        packet = rtp(codes.tobytes(), sequence=frame & 0xFFFF, timestamp=sample, ssrc=0xB)
        arrive(ms + 8 + random.uniform(0, 2), packet, 0xC5)
        told.heard["outbound"].append((0, sample, PCMU.table[codes[0]]))

        if ms == SOURCE_FROM_MS:
            ssrc, sequence, offset, piece = 0x77, 4000, 1_000_000, 1
        if ms == HOLD_MS.stop:
            offset, piece = offset - len(HOLD_MS) * 8, 2
        if ms in HOLD_MS or (ms in DTX_MS and ms % 5000 >= 1000):
            continue
        codec = PCMU if ms < PCMA_FROM_MS else PCMA
        key = next((at for at in KEYS if at <= ms < at + 200), None)
        if key is None:
            codes = encode(codec, caller[None, sample : sample + FRAME])
            sent = [(0 if codec is PCMU else 8, sample, codes.tobytes())]
        else:
            is_last = ms == key + 180
            held = (ms + 20 - key) * 8
            report = struct.pack("!BBH", EVENTS.index(KEYS[key]), is_last << 7 | 10, held)
            sent = [(101, 8 * key, report)] * (3 if is_last else 1)
        is_safe = any(abs(ms - edge) <= 100 for edge in EDGES_MS)
        for n, (payload_type, timestamp, payload) in enumerate(sent):
            # of the first key all packets that tell its end, beside three of a hundred
            is_lost = random.random() < 0.03 and not is_safe
            is_lost |= key == min(KEYS) and ms == key + 180
            if is_lost:
                told.lost += 1
            else:
                packet = rtp(
                    payload,
                    payload_type=payload_type,
                    sequence=sequence,
                    timestamp=(timestamp + offset) & 0xFFFFFFFF,
                    ssrc=ssrc,
                )
                arrive(ms / (1 + PPM / 1e6) + random.uniform(0, JITTER_MS) + n / 100, packet, 0xC4)
                told.arrived += 1
                if payload_type != 101:
                    told.heard["inbound"].append((piece, sample, codec.table[codes[0]]))
            sequence = (sequence + 1) & 0xFFFF
    told.frames.sort()
    return told


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """What was sent, the manifest, the recording, and the folder they are in."""
    folder = tmp_path_factory.mktemp("whole")
    told = make_call()
    capture = folder / "call.pcap"
    capture.write_bytes(pcap(told.frames, unit_ns=1))
    out = folder / "recordings"
    with pytest.raises(SystemExit) as exit_:
        cli.main(["analyze", str(capture), "--out", str(out), "--json"])
    assert not exit_.value.code
    (manifest,) = out.glob("*.json")
    (wav,) = out.glob("*.wav")
    recorded, rate = soundfile.read(wav, dtype="int16")
    assert rate == RATE
    return told, json.loads(manifest.read_text()), recorded, manifest


def track(manifest, direction):
    (entry,) = (each for each in manifest["tracks"] if each["direction"] == direction)
    return entry


def shift_of(channel, piece):
    """Return by how much the samples of a piece stand later than they were spoken."""
    _, sample, samples = max(piece[:500], key=lambda each: np.abs(each[2].astype(int)).sum())
    shifts = [
        shift
        for shift in range(-2000, 2001)
        if sample + shift >= 0
        and np.array_equal(channel[sample + shift : sample + shift + FRAME], samples)
    ]
    assert len(shifts) == 1
    return shifts[0]


@pytest.mark.parametrize(("direction", "channel"), [("inbound", 0), ("outbound", 1)])
def test_every_sample_stands_where_it_was_spoken_and_all_else_is_silence(call, direction, channel):
    told, manifest, recorded, _ = call
    entry = track(manifest, direction)
    begin = round(entry["offset_s"] * RATE)
    assert 0 <= begin <= RATE // 50
    expected = np.zeros(len(recorded), np.int16)
    for number in sorted({piece for piece, *_ in told.heard[direction]}):
        piece = [each for each in told.heard[direction] if each[0] == number]
        shift = shift_of(recorded[:, channel], piece)
        # the network's jitter, where timestamps do not tell, and what the clock was ahead by then
        drifted = 8 * 0.05 * piece[0][1] / RATE if number else 0
        assert -drifted - 8 * JITTER_MS * number - 8 <= shift - begin <= 8 * JITTER_MS * number + 8
        for _, sample, samples in piece:
            expected[sample + shift : sample + shift + FRAME] = samples
    assert np.array_equal(recorded[:, channel], expected)
    assert abs(len(recorded) - SECONDS * RATE) <= 8 * 20 + FRAME


def test_manifest_tells_what_happened(call):
    told, manifest, _, _ = call
    assert len(manifest["recordings"]) == 1
    inbound, outbound = track(manifest, "inbound"), track(manifest, "outbound")
    assert sorted(inbound["codecs"]) == ["PCMA", "PCMU", "telephone-event"]
    assert inbound["ssrcs"] == ["0x0000000a", "0x00000077"]
    assert (inbound["packets"], inbound["lost"]) == (told.arrived, told.lost)
    assert (inbound["resets"], inbound["late"], inbound["realignments"]) == (1, 0, 2)
    assert "segment" not in inbound
    assert inbound["drift_ppm"] == pytest.approx(PPM, abs=5)
    assert outbound["drift_ppm"] == pytest.approx(0, abs=1)
    assert (outbound["lost"], outbound["silence_s"]) == (0, 0)
    # the pauses of DTX, the hold, the keys, and what was lost of the audio
    still = 3 * 4.0 + 90.0 + 3 * 0.2
    assert still < inbound["silence_s"] < still + 0.02 * told.lost + 0.1
    assert max(inbound["jitter_max_ms"], outbound["jitter_max_ms"]) < 3  # the hold is none
    assert inbound["quality"]["loss_ratio"] == pytest.approx(0.03, abs=0.005)
    assert 1.5 < inbound["quality"]["mos"] < 4
    assert outbound["quality"]["mos"] > 4.4


def test_each_key_is_told_once_with_its_time_and_length(call):
    _, manifest, _, _ = call
    pressed = track(manifest, "inbound")["dtmf"]
    assert [(each["digit"], each["kind"]) for each in pressed] == [
        (digit, "telephone-event") for digit in KEYS.values()
    ]
    assert [each["start_s"] for each in pressed] == pytest.approx(
        [at / 1000 for at in KEYS], abs=0.03
    )
    # of the first one, nothing that told its end arrived
    assert [each["duration_ms"] for each in pressed] == [
        pytest.approx(180, abs=20), 200, 200
    ]  # fmt: skip
    assert track(manifest, "outbound")["dtmf"] == []


def test_nobody_is_said_to_speak_in_the_hold(call):
    _, manifest, _, _ = call
    speech = track(manifest, "inbound")["speech"]
    assert len(speech) > 20
    assert not [span for span in speech if span[0] < 199.5 and span[1] > 110.5]
    (conversation,) = (t["conversation"] for t in manifest["tracks"] if "conversation" in t)
    (silence,) = conversation["silence"]
    assert silence == pytest.approx([130, 150], abs=2)  # the voice pauses before and behind, too


def test_page_shows_it(call, tmp_path):
    _, _, _, manifest = call
    page = tmp_path / "call.html"
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(manifest), "--out", str(page)])
    assert not exit_.value.code
    if BROWSER is None:
        pytest.skip("needs Chromium, found by its name or by the variable CHROMIUM")
    dom = browse(page.as_uri(), tmp_path, "--dump-dom")
    inbound, outbound = facts(dom, "lane")
    assert (inbound["lane"], inbound["dtmf"]) == ("inbound", "3")
    assert (outbound["lane"], outbound["dtmf"], outbound["lost"]) == ("outbound", "0", "0")
    assert int(inbound["lost"]) > 100
    assert all(int(net["jitter-points"]) >= 100 for net in facts(dom, "net"))
    assert int(facts(dom, "talk-over")[0]["silence"]) >= 1
    assert facts(dom, "ready")[0]["audio"] == "embedded"
