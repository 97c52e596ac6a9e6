from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codecs import CLOCK_RATES_HZ, CODECS, PAYLOAD_TYPES, PCMA, PCMU

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

EXPANDERS = [(PCMU, audioop.ulaw2lin), (PCMA, audioop.alaw2lin)]

pytestmark = pytest.mark.usefixtures("kernel")


def decode(codec, payload):
    out = np.empty(payload.shape, np.int16)
    codec.decode(payload, out)
    return out


def at_address(codes, remainder):
    """Return the codes in an array whose address is even (0) or odd (1)."""
    room = np.zeros(codes.size + 2, np.uint8)
    start = (room.ctypes.data + remainder) % 2
    placed = room[start : start + codes.size].reshape(codes.shape)
    placed[:] = codes
    assert placed.ctypes.data % 2 == remainder
    assert placed.flags.c_contiguous
    return placed


@pytest.mark.parametrize(
    ("codec", "code", "sample"),
    [
        (PCMU, 0xFF, 0),
        (PCMU, 0x7F, 0),
        (PCMU, 0x00, -32124),
        (PCMU, 0x80, 32124),
        (PCMU, 0xFE, 8),
        (PCMU, 0x7E, -8),
        (PCMA, 0xD5, 8),
        (PCMA, 0x55, -8),
        (PCMA, 0x2A, -32256),
        (PCMA, 0xAA, 32256),
    ],
)
def test_known_codes_decode_to_their_samples(codec, code, sample):
    assert decode(codec, np.array([[code]], np.uint8)).tolist() == [[sample]]
    assert decode(codec, np.array([[code, code]], np.uint8)).tolist() == [[sample, sample]]


@pytest.mark.parametrize(("codec", "expand"), EXPANDERS)
def test_all_256_codes_decode_as_audioop_does(codec, expand):
    codes = np.arange(256, dtype=np.uint8)
    expected = np.frombuffer(expand(codes.tobytes(), 2), np.int16)
    assert decode(codec, codes.reshape(1, 256)).tolist() == [expected.tolist()]
    assert decode(codec, codes.reshape(256, 1)).tolist() == [[s] for s in expected.tolist()]


@pytest.mark.parametrize(("codec", "expand"), EXPANDERS)
def test_all_pairs_of_codes_decode_in_their_order(codec, expand):
    pairs = np.stack(np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2), axis=-1).reshape(-1, 2)
    expected = np.frombuffer(expand(pairs.tobytes(), 2), np.int16).reshape(-1, 2)
    assert np.array_equal(decode(codec, np.ascontiguousarray(pairs)), expected)


@pytest.mark.parametrize("address", [0, 1], ids=["even_address", "odd_address"])
@pytest.mark.parametrize("shape", [(3, 160), (3, 161), (1, 1)])
@pytest.mark.parametrize(("codec", "expand"), EXPANDERS)
def test_any_length_at_any_address_decodes_alike(codec, expand, shape, address):
    codes = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    expected = np.frombuffer(expand(codes.tobytes(), 2), np.int16).reshape(shape)
    assert np.array_equal(decode(codec, at_address(codes, address)), expected)


@pytest.mark.parametrize("shape", [(2, 0), (0, 160), (0, 161)])
def test_nothing_decodes_to_nothing(shape):
    assert decode(PCMU, np.zeros(shape, np.uint8)).shape == shape


@settings(deadline=None)
@given(frames=st.integers(1, 4), data=st.data())
def test_frames_decode_as_audioop_does(frames, data):
    size = data.draw(st.integers(1, 30))
    codes = data.draw(st.binary(min_size=frames * size, max_size=frames * size))
    payload = np.frombuffer(codes, np.uint8).reshape(frames, size)
    for codec, expand in EXPANDERS:
        assert decode(codec, payload).tobytes() == expand(codes, 2)


def test_decoding_writes_into_a_part_of_a_larger_array():
    room = np.full(12, 77, np.int16)
    # the even-sized frame begins at an address that is no multiple of four
    out = room[1:9].reshape(2, 4)
    PCMU.decode(np.array([[0x00, 0x80, 0xFF, 0x7F]] * 2, np.uint8), out)
    assert room.tolist() == [77, *[-32124, 32124, 0, 0] * 2, 77, 77, 77]


@pytest.mark.parametrize(("codec", "expand"), EXPANDERS)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 15, 255, 256, 257, 700])
def test_codes_are_woven_into_one_channel_and_no_other(codec, expand, channels, count):
    codes = np.arange(count).astype(np.uint8)
    frames = np.full((count + 2, channels), 77, np.int16)
    codec.weave(codes, frames, channels + channels - 1)  # the last channel, from frame 1 on
    expected = np.frombuffer(expand(codes.tobytes(), 2), np.int16).tolist()
    assert frames[1:-1, -1].tolist() == expected
    assert (frames[:, :-1] == 77).all()
    assert frames[[0, -1], -1].tolist() == [77, 77]


@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_silence_is_the_quietest_code_of_positive_sign(codec):
    sample = int(codec.table[codec.silence])
    assert sample == np.abs(codec.table).min()


def test_registry_holds_g711():
    assert dict(CODECS) == {0: PCMU, 8: PCMA}
    assert [(c.name, c.sample_rate_hz, c.samples(160)) for c in CODECS.values()] == [
        ("PCMU", 8000, 160),
        ("PCMA", 8000, 160),
    ]


@pytest.mark.parametrize(
    ("payload_type", "clock_hz"),
    [
        (0, 8000),
        (8, 8000),
        (9, 8000),
        (13, 8000),
        (6, 16000),
        (11, 44100),
        (14, 90000),
        (31, 90000),
    ],
)
def test_clock_rates_are_those_of_rfc_3551(payload_type, clock_hz):
    assert CLOCK_RATES_HZ[payload_type] == clock_hz


def test_dynamic_and_unassigned_payload_types_have_no_clock():
    known = {0, *range(3, 19), 25, 26, 28, *range(31, 35)}
    assert set(CLOCK_RATES_HZ) == known
    assert max(CLOCK_RATES_HZ) < PAYLOAD_TYPES == 128
