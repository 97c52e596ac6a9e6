"""What tracks leave behind is freed without a search for cycles, which would stop the packets."""

from __future__ import annotations

import gc

import numpy as np

from bench.traffic import PacketWriter, Traffic
from pipeline.dispatch import Dispatcher
from pipeline.sinks.conversation import ConversationSink
from pipeline.sinks.dtmf import DtmfSink
from pipeline.sinks.log import LogSink
from pipeline.sinks.vad import VadSink
from pipeline.sinks.wav import WavSink
from strep.receive.receiver import Receiver
from strep.wire import PacketBatch

MS = 1_000_000
TRACKS, SECONDS = 8, 6


def play(folder):
    """Open, play and close some calls on all built-in sinks; return what was heard, and where."""
    told = []
    folder.mkdir()
    dispatcher = Dispatcher(
        {
            "vad": VadSink(),
            "dtmf": DtmfSink(),
            "conversation": ConversationSink(silence_s=0.5),
            "log": LogSink(path=folder / "events.jsonl"),
            "wav": WavSink(directory=folder),
        },
        on_closed=lambda _, __, results: told.append(results),
    )
    dispatcher.start()
    receiver = Receiver(dispatcher, idle_timeout_s=5)
    writer, batch = PacketWriter(Traffic(tracks=TRACKS, loss=0.02)), PacketBatch()
    now_ns = MS
    for first in range(0, TRACKS * SECONDS * 50, TRACKS):
        datagrams = batch.buffer[:TRACKS, : writer.datagram_bytes]
        writer.write(np.arange(first, first + TRACKS), datagrams)
        batch.length_bytes[:TRACKS] = batch.kept_bytes[:TRACKS] = writer.datagram_bytes
        batch.arrival_ns[:TRACKS] = now_ns
        batch.count = TRACKS
        receiver.receive(batch)
        now_ns += 20 * MS
        receiver.tick(now_ns)
    receiver.tick(now_ns + 10_000 * MS)
    dispatcher.stop()
    return told, receiver


def test_closed_tracks_leave_no_garbage_in_cycles(tmp_path):
    play(tmp_path / "warm")  # what is made once
    gc.collect()
    gc.disable()
    try:
        told, still_there = play(tmp_path / "calls")
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = {type(each).__qualname__ for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert sum(len(results["vad"]["speech"]) for results in told) > TRACKS
    assert any(results.get("conversation") for results in told)
    assert not still_there.pipeline.tracks
    assert not left & {"Track", "_Conversation", "_Party", "_Speech", "Recording", "AudioBlock"}, (
        left
    )
