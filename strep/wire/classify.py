"""What a datagram is, by its first bits, and why one is not accepted.

Forked media shares its port with whatever reaches it. The two first bits tell STREP (11), RTP and
RTCP (10), SIP (01, a capital letter) and T.38 (00, usually) apart; STUN (RFC 8489 section 5) and
DTLS (RFC 9147) begin with 00 as well and are recognised as neither.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What a datagram is."""

    STREP = 0
    RTP = 1
    RTCP = 2
    """RTCP on the port itself; RTCP inside STREP is of kind STREP and dropped as `rtcp`."""
    T38 = 3
    SIP = 4
    OTHER = 5

    @property
    def label(self) -> str:
        """The word used in logs, metrics and JSON."""
        return self.name.lower()


class DropReason(IntEnum):
    """Why a datagram is not accepted: one word, the same in enum, log, metric and JSON."""

    ACCEPTED = 0
    SHORT = 1
    """Ends before its STREP or RTP header does."""
    TRUNCATED = 2
    """Larger than the slot of the batch, or cut by the capture."""
    STREP_VERSION = 3
    """A STREP version other than 1."""
    HEADER_LENGTH = 4
    """STREP HeaderLen below 24."""
    RTP_VERSION = 5
    """What follows the STREP header has an RTP version other than 2."""
    CSRC = 6
    """The list of CSRCs runs past the end."""
    EXTENSION = 7
    """The RTP header extension runs past the end."""
    PADDING = 8
    """The RTP padding is 0 or larger than the payload."""
    RTCP = 9
    T38 = 10
    SIP = 11
    OTHER = 12
    """None of the protocols that are known here."""
    TRACKS_FULL = 13
    """A new track beyond `max_tracks`."""
    STRAY = 14
    """Another SSRC, or a jump of the sequence, that the next packet did not continue."""
    UNKNOWN_LEG = 15
    """Of a call leg that nobody told of in time, where only known ones are admitted."""
    DRAINING = 16
    """Of a call leg that came when the daemon had been told to stop after its running calls."""
    OTHER_SOURCE = 17
    """From another address than the track's, which is not silent."""
    SOURCE_NOT_ALLOWED = 18
    """Would open a track, from none of the `allowed_sources`."""
    TOO_MANY_NEW = 19
    """Would open a track, from a host that has opened too many lately."""

    @property
    def label(self) -> str:
        """The word used in logs, metrics and JSON."""
        return self.name.lower()


class WireError(ValueError):
    """A datagram that is not accepted, for people: the scalar parser raises nothing else.

    `reason` is the same that the columnar parser gives; `actual` and `required` are sizes in
    bytes where the reason is one of size, else None.
    """

    def __init__(
        self,
        reason: DropReason,
        message: str,
        *,
        actual: int | None = None,
        required: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.actual = actual
        self.required = required
