"""RTP packets made from G.711 codes, many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from strep.wire.rtp import RtpHeader

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    samples = packet_ms * SAMPLES_PER_MS
    rtp = RtpHeader(
        payload_type=payload_type, sequence=first_sequence, timestamp=first_timestamp, ssrc=ssrc
    ).pack()
    header = (b"" if strep is None else strep.pack()) + rtp
    rtp_start = len(header) - len(rtp)

    packets = -(-len(codes) // samples)
    datagrams = np.full((packets, len(header) + samples), SILENCE[payload_type], np.uint8)
    datagrams[:, : len(header)] = np.frombuffer(header, np.uint8)
    index = np.arange(packets)
    sequence = (first_sequence + index).astype(">u2")
    timestamp = (first_timestamp + samples * index).astype(">u4")
    datagrams[:, rtp_start + 2 : rtp_start + 4] = sequence.view(np.uint8).reshape(-1, 2)
    datagrams[:, rtp_start + 4 : rtp_start + 8] = timestamp.view(np.uint8).reshape(-1, 4)

    whole, rest = divmod(len(codes), samples)
    datagrams[:whole, len(header) :] = codes[: whole * samples].reshape(whole, samples)
    datagrams[whole:, len(header) : len(header) + rest] = codes[whole * samples :]
    return datagrams
