"""One datagram, from its first bits to its payload: the scalar parser.

It is there for people, for tools and as the oracle of the columnar parser in `batch`: both give
the same kind, the same reason and the same fields for the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from strep.wire.classify import DropReason, Kind, WireError
from strep.wire.header import STREP_MAGIC, StrepHeader
from strep.wire.rtp import RTP_VERSION, RtpHeader, is_rtcp_payload_type

STUN_MAGIC_COOKIE = bytes.fromhex("2112a442")
_DENIED = {
    Kind.RTCP: DropReason.RTCP,
    Kind.T38: DropReason.T38,
    Kind.SIP: DropReason.SIP,
    Kind.OTHER: DropReason.OTHER,
}


@dataclass(frozen=True, slots=True)
class Datagram:
    """An accepted datagram."""

    strep: StrepHeader | None
    """None for plain RTP."""
    rtp: RtpHeader
    payload: memoryview
    """A view of the parsed buffer: valid as long as that is."""

    @classmethod
    def parse(
        cls, buffer: bytes | bytearray | memoryview, *, length_bytes: int | None = None
    ) -> Datagram:
        """Parse a datagram of which `buffer` holds the beginning or all.

        `length_bytes` is its length on the wire (default: the buffer's). Raises `WireError`.
        """
        view = memoryview(buffer)
        kind = classify(view)
        if not view:
            raise WireError(DropReason.SHORT, "an empty datagram", actual=0, required=1)
        if kind in _DENIED:
            raise WireError(_DENIED[kind], f"{kind.name}, expected STREP or RTP")
        if length_bytes is not None and length_bytes > len(view):
            raise WireError(
                DropReason.TRUNCATED,
                f"only {len(view)} of the datagram's {length_bytes} bytes are there",
                actual=len(view),
                required=length_bytes,
            )
        strep = None
        if kind is Kind.STREP:
            strep, view = StrepHeader.parse(view)
        rtp, payload = RtpHeader.parse(view)
        return cls(strep, rtp, payload)


def classify(datagram: bytes | bytearray | memoryview) -> Kind:
    """Tell what a datagram is by its first bits (and, against STUN and DTLS, a few more)."""
    view = memoryview(datagram)
    if not view:
        return Kind.OTHER
    first = view[0]
    if first >> 6 == STREP_MAGIC:
        return Kind.STREP
    if first >> 6 == RTP_VERSION:
        rtcp = len(view) >= 2 and is_rtcp_payload_type(view[1] & 0x7F)
        return Kind.RTCP if rtcp else Kind.RTP
    if first >> 6 == 0b01:
        return Kind.SIP if ord("A") <= first <= ord("Z") else Kind.OTHER
    stun = bytes(view[4:8]) == STUN_MAGIC_COOKIE
    dtls = 20 <= first <= 63 and bytes(view[1:2]) == b"\xfe"
    return Kind.OTHER if stun or dtls else Kind.T38
