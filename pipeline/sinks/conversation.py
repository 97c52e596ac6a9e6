"""How two parties share a conversation: where they talk over each other, and where nobody speaks.

The tracks of one call leg are the parties. What they say is known from the events of a voice
activity sink, whichever runs; no audio is looked at. Those events are told late (a pause must have
lasted before it is one) but name exact positions, which the arrival of each track's first packet
places on a common clock. So the conversation is gone through twice:

- as it happens, `settle_ms` behind the clock, when what was said until then has been told: events,
  which `pipeline.sinks.turns` finds for all conversations together;
- as a whole when the last track has ended, from all that was told: results.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.block import Event
from pipeline.sinks.base import Sink, check_range
from pipeline.sinks.turns import INBOUND, OUTBOUND, OVER, Turns
from pipeline.talk import mutual_silence, talk_over
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from pipeline.block import AudioBlock, Track, TrackSummary
    from pipeline.sinks.turns import Told

MAX_PENDING = 256
"""Edges of speech that wait to be settled, for each open track."""
EDGES = frozenset({"speech_started", "speech_stopped"})
DEFAULT_RATE_HZ = 8000
"""Of events before anything was heard of a track's rate."""


class ConversationSink(Sink):
    """Tells where both parties of a call leg speak, and where none does.

    Options:
    `silence_s`: silence is mutual when nobody has spoken for so long.
    `overlap_ms`: both must speak for so long; what is shorter is a mere "yes".
    `settle_ms`: how far behind the clock events are told. A voice activity sink must have told
    within this of a start or a stop; one that tells later makes events inexact, never results.
    `max_segments`: spans of speech kept per direction; those beyond it are counted.

    Emits `talk_over_started` and `mutual_silence_started` with `start_s`, and `talk_over_stopped`
    and `mutual_silence_stopped` with `start_s` and `end_s`: seconds since the first packet of the
    conversation's first track. Talk-over is told of the track that spoke up last, silence of the
    first track.

    Needs a sink that emits `speech_started` and `speech_stopped`. With several of them a party
    speaks where any says so.
    """

    threaded: ClassVar[bool] = False

    def __init__(
        self,
        *,
        silence_s: float = 5.0,
        overlap_ms: float = 300.0,
        settle_ms: float = 750.0,
        max_segments: int = 10_000,
    ) -> None:
        check_range("conversation: silence_s", silence_s, 0.1, 3600)
        check_range("conversation: overlap_ms", overlap_ms, 1, 60_000)
        check_range("conversation: settle_ms", settle_ms, 0, 60_000)
        check_range("conversation: max_segments", max_segments, 1, 1_000_000)
        self._silence_ns = round(silence_s * 1e9)
        self._overlap_ns = round(overlap_ms * 1e6)
        self._settle_ns = round(settle_ms * 1e6)
        self._max_segments = max_segments
        self._parties: dict[int, _Party] = {}
        """By row."""
        self._conversations: dict[Hashable, _Conversation] = {}
        self._by_number: dict[int, _Conversation] = {}
        self._free: list[int] = []
        """Numbers below the highest one that no conversation has."""
        self._turns: Turns[_Party] = Turns(over_ns=self._overlap_ns, quiet_ns=self._silence_ns)

    def open(self, track: Track) -> None:
        """Join the conversation of the track's call leg, or begin one."""
        key = track.call_leg_id, track.leg
        conversation = self._conversations.get(key)
        if conversation is None:
            number = self._free.pop() if self._free else len(self._by_number)
            conversation = _Conversation(number, track, end_ns=track.opened_ns)
            self._conversations[key] = self._by_number[number] = conversation
            self._turns.open(number, track.opened_ns)
        side = INBOUND if track.direction == "inbound" else OUTBOUND
        self._parties[track.row] = _Party(
            track, conversation, conversation.number, side, conversation.spans[side]
        )
        conversation.open_tracks += 1

    def write(self, block: AudioBlock) -> None:
        """Audio is not looked at."""

    def event(self, event: Event) -> None:
        """Take an edge of speech: what it tells is found when it is settled."""
        if event.kind not in EDGES:
            return
        party = self._parties.get(event.track.row)
        if party is None or party.track.generation != event.track.generation:
            return  # told of a track that is over
        party.rate_hz = event.sample_rate_hz
        at_ns = party.moment_ns(event.position_samples)
        if event.kind == "speech_started":
            self._start(party, at_ns)
        else:
            self._stop(party, at_ns)

    def tick(self, now_ns: int) -> None:
        """Tell what has become certain."""
        if self._conversations:
            self._tell(self._turns.settle(now_ns - self._settle_ns))

    def close(self, track: Track, summary: TrackSummary) -> Mapping[str, Any] | None:
        """End a track; return results when it was the last open one of its conversation.

        These are `started_at` (RFC 3339, where the times begin), `talk_over` and `silence`
        (lists of `[start_s, end_s]`), their sums `talk_over_s` and `silence_s`, and
        `speech_dropped`, the spans of speech beyond `max_segments`.
        """
        party = self._parties.pop(track.row)
        party.rate_hz = summary.sample_rate_hz or party.rate_hz
        end_ns = max(party.moment_ns(summary.duration_samples), summary.last_arrival_ns)
        while party.depth:  # its voice activity sink closes after this one, or was switched off
            self._stop(party, party.moment_ns(summary.duration_samples))
        conversation = party.conversation
        conversation.end_ns = max(conversation.end_ns, end_ns)
        conversation.open_tracks -= 1
        if conversation.open_tracks:
            return None
        self._tell(self._turns.close(conversation.number, conversation.end_ns))
        del self._conversations[track.call_leg_id, track.leg]
        del self._by_number[conversation.number]
        self._free.append(conversation.number)
        if not self._by_number:
            self._free.clear()
            self._turns.trim(0)
        return self._results(conversation)

    def _start(self, party: _Party, at_ns: int) -> None:
        party.depth += 1
        if party.depth == 1:
            party.speaks_since_ns = at_ns
            self._edge(party, at_ns, 1)

    def _stop(self, party: _Party, at_ns: int) -> None:
        if not party.depth:
            return
        party.depth -= 1
        if party.depth == 0:
            at_ns = max(at_ns, party.speaks_since_ns)
            spans = party.spans
            if len(spans) < 2 * self._max_segments:
                spans.append(party.speaks_since_ns)
                spans.append(at_ns)
            else:
                party.conversation.dropped += 1
            self._edge(party, at_ns, -1)

    def _edge(self, party: _Party, at_ns: int, step: int) -> None:
        self._turns.add(party.number, at_ns, step, party.side, party)
        if self._turns.pending > MAX_PENDING * len(self._parties):
            self._tell(self._turns.settle_half())  # a sender's clock that runs far ahead

    def _tell(self, told: list[Told[_Party]]) -> None:
        for number, condition, since_ns, until_ns, party in told:
            conversation = self._by_number[number]
            name = "talk_over" if condition == OVER else "mutual_silence"
            what, at_ns = ("started", since_ns) if until_ns is None else ("stopped", until_ns)
            data = {"start_s": conversation.seconds(since_ns)}
            if until_ns is not None:
                data["end_s"] = conversation.seconds(until_ns)
            track = conversation.first if party is None else party.track
            rate_hz = DEFAULT_RATE_HZ if party is None else party.rate_hz
            position = round((at_ns - track.opened_ns) * rate_hz / 1e9)
            self.emit(Event(f"{name}_{what}", track, position, rate_hz, data))

    def _results(self, conversation: _Conversation) -> dict[str, Any]:
        begin_ns = conversation.first.opened_ns
        parties = [np.array(spans, np.int64).reshape(-1, 2) for spans in conversation.spans]
        over_ns = talk_over(parties, self._overlap_ns)
        silence_ns = mutual_silence(parties, begin_ns, conversation.end_ns, self._silence_ns)
        return {
            "started_at": rfc3339(conversation.first.opened_unix_ns),
            "talk_over": [list(map(conversation.seconds, span)) for span in over_ns.tolist()],
            "silence": [list(map(conversation.seconds, span)) for span in silence_ns.tolist()],
            "talk_over_s": round(float((over_ns[:, 1] - over_ns[:, 0]).sum()) / 1e9, 4),
            "silence_s": round(float((silence_ns[:, 1] - silence_ns[:, 0]).sum()) / 1e9, 4),
            "speech_dropped": conversation.dropped,
        }


@dataclass(slots=True)
class _Party:
    """An open track; an edge of speech touches nothing else of its conversation."""

    track: Track
    conversation: _Conversation
    number: int
    """Of the conversation."""
    side: int
    spans: array[int]
    """What its side said."""
    rate_hz: int = DEFAULT_RATE_HZ
    depth: int = 0
    """How many voice activity sinks hear it speak."""
    speaks_since_ns: int = 0

    def moment_ns(self, position_samples: int) -> int:
        """Return when a sample stands, on the receiver's clock."""
        return self.track.opened_ns + position_samples * 1_000_000_000 // self.rate_hz


@dataclass(slots=True)
class _Conversation:
    """The tracks of a call leg from the opening of the first to the end of the last.

    All moments are on the receiver's clock. A track that comes back while another is open goes on
    with the conversation, as it does with the recording.
    """

    number: int
    """Its row in `Turns`."""
    first: Track
    open_tracks: int = 0
    end_ns: int = 0
    spans: tuple[array[int], array[int]] = field(default_factory=lambda: (array("q"), array("q")))
    """What each side said, for the results: beginning and end of each span in turn."""
    dropped: int = 0

    def seconds(self, moment_ns: int) -> float:
        """Return a moment as seconds since the first packet."""
        return round((moment_ns - self.first.opened_ns) / 1e9, 4)
