"""The wire: STREP and RTP headers, one at a time and as columns over a batch.

Pure: no socket, no clock, no logger; nothing but the standard library and NumPy.
"""

from strep.wire.batch import PacketBatch
from strep.wire.classify import DropReason, Kind, WireError
from strep.wire.endpoint import Endpoint
from strep.wire.header import Direction, Leg, StrepHeader
from strep.wire.rtp import RtpHeader

__all__ = [
    "Direction",
    "DropReason",
    "Endpoint",
    "Kind",
    "Leg",
    "PacketBatch",
    "RtpHeader",
    "StrepHeader",
    "WireError",
]
