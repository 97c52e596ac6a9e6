"""Sinks: what happens to the audio of the tracks."""

from pipeline.sinks.base import Analyzer, Sink, SinkError

__all__ = ["Analyzer", "Sink", "SinkError"]
