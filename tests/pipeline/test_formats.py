"""What payload types stand for, as people write it and as calls declare it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import (
    FIXED,
    STATIC,
    Format,
    PayloadTypes,
    declared_format,
    is_dynamic,
    parse_format,
)

OPUS = Format("opus", 48_000)


@pytest.mark.parametrize(
    ("text", "expected", "rate_hz"),
    [
        ("opus", OPUS, 48_000),
        ("OPUS/48000/2", OPUS, 48_000),
        ("g722", Format("G722", 8000), 16_000),
        ("G722/8000", Format("G722", 8000), 16_000),
        ("G729/8000/1", Format("G729", 8000), 8000),
        ("gsm", Format("GSM", 8000), 8000),
        ("pcmu", Format("PCMU", 8000), 8000),
        (" L16/16000 ", Format("L16", 16_000), 16_000),
        ("l16/44100/2", Format("L16", 44_100, 2), 44_100),
    ],
)
def test_formats_are_read_as_in_an_rtpmap(text, expected, rate_hz):
    assert parse_format(text) == expected
    assert parse_format(text).sample_rate_hz == rate_hz


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "speex",
            "'speex' is no codec that can be decoded: PCMU, PCMA, G722, G729, GSM, opus, L16",
        ),
        ("", "'' is no codec that can be decoded: PCMU, PCMA, G722, G729, GSM, opus, L16"),
        ("G722/16000", "'G722/16000': the RTP clock of G722 is 8000"),
        ("G729/8000/2", "'G729/8000/2': G729 has one channel"),
        ("L16", "'L16' needs a clock from 8000 to 192000, such as L16/16000"),
        ("L16/1", "'L16/1' needs a clock from 8000 to 192000, such as L16/16000"),
        ("L16/16000/3", "'L16/16000/3': L16 has one or two channels"),
        ("opus/a", "'opus/a' is not NAME, NAME/CLOCK or NAME/CLOCK/CHANNELS"),
        ("opus/48000/2/1", "'opus/48000/2/1' is not NAME, NAME/CLOCK or NAME/CLOCK/CHANNELS"),
    ],
)
def test_a_wrong_format_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=r"codec|clock|channel|NAME") as error:
        parse_format(text)
    assert str(error.value) == sentence


def test_payload_types_are_read_from_one_text():
    formats = PayloadTypes.parse("96=opus, 97=L16/16000,")
    assert formats == {96: OPUS, 97: Format("L16", 16_000)}
    assert str(formats) == "96=opus,97=L16/16000"
    assert PayloadTypes.parse("") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("opus", "'opus' is not NUMBER=CODEC with a payload type up to 127"),
        ("128=opus", "'128=opus' is not NUMBER=CODEC with a payload type up to 127"),
        ("-1=opus", "'-1=opus' is not NUMBER=CODEC with a payload type up to 127"),
        ("96=opus,96=gsm", "payload type 96 is given twice"),
        ("0=opus", "'0=opus': payload type 0 has a fixed meaning"),
        ("13=gsm", "'13=gsm': payload type 13 has a fixed meaning"),
    ],
)
def test_wrong_payload_types_are_refused_in_one_sentence(text, sentence):
    with pytest.raises(ValueError, match="payload type") as error:
        PayloadTypes.parse(text)
    assert str(error.value) == sentence


FORMATS = st.one_of(
    st.sampled_from([each for each in STATIC.values() if each.encoding != "L16"] + [OPUS]),
    st.builds(Format, st.just("L16"), st.integers(8000, 192_000), st.integers(1, 2)),
)


@given(st.dictionaries(st.integers(1, 127).filter(lambda n: n not in FIXED), FORMATS))
def test_payload_types_survive_as_text(formats):
    assert PayloadTypes.parse(str(PayloadTypes(formats))) == formats


@pytest.mark.parametrize(
    ("codecs", "expected"),
    [
        ("OPUS", OPUS),
        ("G722, PCMU,OPUS,G729,telephone-event", OPUS),
        ("opus/48000/2,VP8,H264", OPUS),
        ("PCMU,PCMA,G722,G729", None),
        ("OPUS,AMR-WB", None),
        ("AMR-WB", None),
        ("L16", None),
        ("L16/16000", None),
        ("", None),
    ],
)
def test_a_declared_codec_counts_where_it_is_the_only_one_without_a_static_type(codecs, expected):
    assert declared_format(codecs) == expected


def test_static_types_are_those_of_rfc_3551():
    assert {number: str(each) for number, each in STATIC.items()} == {
        0: "PCMU",
        3: "GSM",
        8: "PCMA",
        9: "G722",
        10: "L16/44100/2",
        11: "L16/44100",
        18: "G729",
    }
    assert [number for number in range(128) if is_dynamic(number)] == list(range(96, 128))
