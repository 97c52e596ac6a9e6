"""RTP packets made from G.711 codes, many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from strep.wire.fields import RTP_BYTES
from strep.wire.rtp import RTP_VERSION, RtpHeader

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from strep.wire.header import StrepHeader

SAMPLES_PER_MS = 8
SILENCE = {0: 0xFF, 8: 0xD5}
"""The code of a zero sample by RTP payload type: PCMU and PCMA (RFC 3551 table 4)."""
LONGEST_PACKET_MS = 120


def packetize(
    codes: NDArray[np.uint8],
    *,
    payload_type: int,
    ssrc: int,
    first_sequence: int,
    first_timestamp: int,
    packet_ms: int = 20,
    strep: StrepHeader | None = None,
) -> NDArray[np.uint8]:
    """Return whole datagrams of one stream, uint8 (packets, bytes), in an array of its own.

    `codes` is uint8 (samples,), G.711 at 8 kHz; the last packet is filled up with silence. Each
    row is a STREP header where one is given, an RTP header and `packet_ms` of audio. Sequence
    numbers and timestamps wrap. The marker bit stays clear, as it does for a sender without
    silence suppression (RFC 3551 section 4.1).

    Raises ValueError where a value does not fit its field, for a payload type that is not G.711
    and for a packet time other than 1 to 120 ms.
    """
    if payload_type not in SILENCE:
        raise ValueError(f"payload_type is {payload_type}, expected 0 (PCMU) or 8 (PCMA)")
    if not 1 <= packet_ms <= LONGEST_PACKET_MS:
        raise ValueError(f"packet_ms is {packet_ms}, expected 1 to {LONGEST_PACKET_MS}")
    # only to have the fields checked
    RtpHeader(
        payload_type=payload_type, sequence=first_sequence, timestamp=first_timestamp, ssrc=ssrc
    ).pack()
    payloads = frames(codes, packet_ms * SAMPLES_PER_MS, silence=SILENCE[payload_type])
    index = np.arange(len(payloads))
    return datagrams(
        payloads,
        payload_type=payload_type,
        ssrc=ssrc,
        sequence=first_sequence + index,
        timestamp=first_timestamp + payloads.shape[1] * index,
        strep=strep,
    )


def frames(codes: NDArray[np.uint8], samples: int, *, silence: int) -> NDArray[np.uint8]:
    """Cut codes (n,) into frames, uint8 (frames, samples), the last one filled up with silence."""
    whole, rest = divmod(len(codes), samples)
    cut = np.full((whole + bool(rest), samples), silence, np.uint8)
    cut[:whole] = codes[: whole * samples].reshape(whole, samples)
    cut[whole:, :rest] = codes[whole * samples :]
    return cut


def datagrams(
    payloads: NDArray[np.uint8],
    *,
    payload_type: ArrayLike,
    ssrc: ArrayLike,
    sequence: ArrayLike,
    timestamp: ArrayLike,
    marker: ArrayLike = False,
    strep: StrepHeader | None = None,
) -> NDArray[np.uint8]:
    """Return datagrams with these payloads (n, bytes), uint8, in an array of its own.

    The fields are one for all or (n,) integers each; what exceeds a field's bits is cut off.
    """
    first = b"" if strep is None else strep.pack()
    at = len(first) + RTP_BYTES
    made = np.empty((len(payloads), at + payloads.shape[1]), np.uint8)
    made[:, : len(first)] = np.frombuffer(first, np.uint8)
    rtp = made[:, len(first) : at]
    rtp[:, 0] = RTP_VERSION << 6
    rtp[:, 1] = np.asarray(payload_type) | np.asarray(marker).astype(np.uint8) << 7
    for field, place, kind in ((sequence, 2, ">u2"), (timestamp, 4, ">u4"), (ssrc, 8, ">u4")):
        column = np.broadcast_to(np.asarray(field, np.int64).astype(kind), len(payloads))
        octets = np.ascontiguousarray(column).view(np.uint8).reshape(-1, column.itemsize)
        rtp[:, place : place + column.itemsize] = octets
    made[:, at:] = payloads
    return made
