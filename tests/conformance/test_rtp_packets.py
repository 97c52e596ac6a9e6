"""Single RTP and RTCP packets of other projects, some malformed, with the verdicts of two others.

They are part of the material that does not ship with the project, see `material`.
"""

from __future__ import annotations

import re

import pytest
from material import MATERIAL, needs_material, table
from wirecases import columnar, parsed_batch, scalar, strep

from strep.wire import DropReason, Kind, WireError
from strep.wire.rtcp import parse as parse_rtcp

VERDICTS = table("rtp-packets/EXPECT.csv")
RTCP = [verdict for verdict in VERDICTS if verdict["file"].startswith("rtcp")]
RTP = [verdict for verdict in VERDICTS if not verdict["file"].startswith("rtcp")]

pytestmark = needs_material


def packet(verdict):
    content = (MATERIAL / "rtp-packets" / verdict["file"]).read_bytes()
    assert len(content) == int(verdict["bytes"])
    return content


def outcome(datagram):
    """What both parsers make of it, which must be the same."""
    (of_columns,) = columnar(parsed_batch([(datagram, None)]))
    assert of_columns == scalar(datagram)
    return of_columns


def test_there_are_packets_of_both_kinds():
    assert len(RTCP) == 15
    assert len(RTP) == 6


@pytest.mark.parametrize("verdict", RTCP, ids=lambda v: v["file"])
def test_rtcp_is_never_audio(verdict):
    content = packet(verdict)
    assert outcome(content) == {"kind": Kind.RTCP, "reason": DropReason.RTCP}
    assert outcome(strep(content)) == {"kind": Kind.STREP, "reason": DropReason.RTCP}
    assert outcome(strep(content, extra=bytes(9)))["reason"] == DropReason.RTCP


@pytest.mark.parametrize("verdict", RTCP, ids=lambda v: v["file"])
def test_rtcp_is_taken_where_another_parser_takes_it(verdict):
    if verdict["aiortc_as_rtcp"].startswith("ok"):
        parse_rtcp(packet(verdict))
    else:
        with pytest.raises(WireError):
            parse_rtcp(packet(verdict))


def test_rtcp_says_what_its_files_hold():
    def of(name):
        return parse_rtcp((MATERIAL / "rtp-packets" / name).read_bytes())

    (sent,) = of("rtcp_sr.bin")
    assert (sent.ssrc, sent.sender.packets, sent.sender.octets) == (1831097322, 269, 13557)
    assert sent.sender.rtp_timestamp == 1722342718
    assert (sent.blocks[0].ssrc, sent.blocks[0].jitter) == (2398654957, 127)
    (received,) = of("rtcp_rr.bin")
    assert (received.ssrc, received.sender) == (817267719, None)
    assert (received.blocks[0].highest_sequence, received.blocks[0].jitter) == (630, 1906)
    (named,) = of("rtcp_sdes.bin")
    assert named.cname == "{63f459ea-41fe-4474-9d33-9707c9ee79d1}"
    assert of("rtcp_bye.bin")[0].ssrcs == (2924645187,)


@pytest.mark.parametrize("verdict", RTP, ids=lambda v: v["file"])
def test_rtp_is_read_as_another_parser_reads_it(verdict):
    expected = re.fullmatch(
        r"ok pt=(\d+) seq=(\d+) cc=(\d+) payload=(\d+) pad=(\d+)", verdict["aiortc_as_rtp"]
    )
    payload_type, sequence, csrcs, payload_bytes, padding_bytes = map(int, expected.groups())
    content = packet(verdict)
    for datagram in (content, strep(content), strep(content, extra=bytes(9))):
        found = outcome(datagram)
        assert found["reason"] == DropReason.ACCEPTED
        assert found["rtp payload_type"] == payload_type
        assert found["rtp sequence"] == sequence
        assert found["rtp csrc_count"] == csrcs
        assert len(found["payload"]) == payload_bytes
        end = len(datagram) - padding_bytes
        assert found["payload"] == datagram[end - payload_bytes : end]


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda v: v["file"])
def test_both_parsers_agree_at_every_length(verdict):
    content = packet(verdict)
    beginnings = [(content[:length], None) for length in range(len(content))]
    beginnings += [(strep(content)[:length], None) for length in range(24 + len(content))]
    assert columnar(parsed_batch(beginnings)) == [scalar(*beginning) for beginning in beginnings]
