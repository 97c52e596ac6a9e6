"""The audio pipeline: jitter bank, playout, decoding and sinks, for all tracks at once.

It knows nothing of STREP, sockets or calls: packets come in as columns (`Packets`), audio goes
out as blocks (`AudioBlock`), and time is an argument everywhere.
"""

from pipeline.block import AudioBlock, Event, Track, TrackSummary
from pipeline.sinks.base import Analyzer, Sink, SinkError

__all__ = ["Analyzer", "AudioBlock", "Event", "Sink", "SinkError", "Track", "TrackSummary"]
