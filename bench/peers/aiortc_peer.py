"""aiortc's packet parser, jitter buffer and G.711 decoder, fed by uvloop.

The buffer is set up as aiortc's own receiver does for audio; encryption, RTCP and the thread per
receiver that come with a whole peer connection are left out.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

import uvloop
from aiortc.codecs import depayload, get_decoder
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from bench.peers.program import CountingProtocol, serve

if TYPE_CHECKING:
    from av import AudioFrame

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

CAPACITY, PREFETCH = 16, 4
_PCMU = RTCRtpCodecParameters(mimeType="audio/PCMU", clockRate=8000, channels=1, payloadType=0)


class _Track:
    __slots__ = ("buffer", "decoder", "frames", "level")

    def __init__(self) -> None:
        self.buffer = JitterBuffer(capacity=CAPACITY, prefetch=PREFETCH)
        self.decoder = get_decoder(_PCMU)
        self.frames = 0
        self.level = 0


class AiortcReceiver(CountingProtocol):
    """Receives STREP on one socket and leaves the RTP in it to aiortc."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[bytes, int], _Track] = {}
        self._malformed = 0

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        """Take one datagram."""
        try:
            packet = RtpPacket.parse(data[data[1] :])
        except (IndexError, ValueError):
            self._malformed += 1
            return
        key = (data[8:24], data[0] & 0b11)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track()
        payload = depayload(_PCMU, packet.payload)
        packet._data = payload  # type: ignore[attr-defined]  # noqa: SLF001 -- as its receiver does
        _, encoded = track.buffer.add(packet)
        if encoded is None:
            return
        for frame in cast("list[AudioFrame]", track.decoder.decode(encoded)):
            pcm = bytes(frame.planes[0])
            track.level = audioop.rms(pcm, 2)
            track.frames += 1

    def totals(self) -> dict[str, int]:
        """Return what was received; each track holds a few packets back."""
        return {
            "packets": sum(track.frames for track in self._tracks.values()),
            "malformed": self._malformed,
        }


if __name__ == "__main__":
    serve(AiortcReceiver, uvloop.run)
