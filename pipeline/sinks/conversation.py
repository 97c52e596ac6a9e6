"""How two parties share a conversation: where they talk over each other, and where nobody speaks.

The tracks of one call leg are the parties. What they say is known from the events of a voice
activity sink, whichever runs; no audio is looked at. Those events are told late (a pause must have
lasted before it is one) but name exact positions, which the arrival of each track's first packet
places on a common clock. So the conversation is gone through twice:

- as it happens, `settle_ms` behind the clock, when what was said until then has been told: events;
- as a whole when the last track has ended, from all that was told: results.
"""

from __future__ import annotations

import heapq
from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.block import Event
from pipeline.sinks.base import Sink, check_range
from pipeline.talk import mutual_silence, talk_over
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from pipeline.block import AudioBlock, DirectionName, Track, TrackSummary

MAX_PENDING = 256
"""Edges of speech that wait to be settled, of a conversation."""
_NEVER_NS = 1 << 62
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
        self._parties: dict[int, _Party] = {}  # by row
        self._conversations: dict[Hashable, _Conversation] = {}
        self._due: list[tuple[int, int, _Conversation]] = []  # a heap; the number breaks ties
        self._pushed = 0

    def open(self, track: Track) -> None:
        """Join the conversation of the track's call leg, or begin one."""
        key = track.call_leg_id, track.leg
        conversation = self._conversations.get(key)
        if conversation is None:
            over = _Condition("talk_over", self._overlap_ns)
            quiet = _Condition("mutual_silence", self._silence_ns)
            quiet.begin(track.opened_ns)
            conversation = _Conversation(track, over, quiet)
            self._conversations[key] = conversation
        self._parties[track.row] = _Party(track, conversation)
        conversation.open_tracks += 1
        self._schedule(conversation)

    def write(self, block: AudioBlock) -> None:
        """Audio is not looked at."""

    def event(self, event: Event) -> None:
        """Take an edge of speech."""
        if event.kind not in {"speech_started", "speech_stopped"}:
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
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, conversation = heapq.heappop(self._due)
            if due_ns == conversation.due_ns:  # not settled or put forward since
                conversation.due_ns = None
                self._settle(conversation, now_ns - self._settle_ns)
                self._schedule(conversation)

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
        del self._conversations[track.call_leg_id, track.leg]
        conversation.due_ns = None
        pending = conversation.pending
        self._settle(conversation, max(conversation.end_ns, *(edge[0] for edge in pending), 0))
        for condition in conversation.conditions:
            if condition.since_ns is not None:
                self._turn(conversation, condition, conversation.settled_ns)
        conversation.last_speaker = None  # a party names its conversation: no cycle is left behind
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
            conversation, direction = party.conversation, party.track.direction
            at_ns = max(at_ns, party.speaks_since_ns)
            spans = conversation.spans.setdefault(direction, [])
            if len(spans) < self._max_segments:
                spans.append((party.speaks_since_ns, at_ns))
            else:
                conversation.dropped += 1
            self._edge(party, at_ns, -1)

    def _edge(self, party: _Party, at_ns: int, step: int) -> None:
        """Take in that a party begins or ceases to speak, and settle when that may tell anything.

        Most edges tell nothing: a pause ends, or the other one takes over. They wait for one that
        may, which spares most of the work.
        """
        conversation, direction = party.conversation, party.track.direction
        pending = conversation.pending
        certain_ns = self._certain_ns(conversation, direction, at_ns, step)
        # at one moment those who begin come first, so that nobody is thought silent in between
        edge = (at_ns, -step, certain_ns, direction, party)
        if not pending or pending[-1][:2] <= edge[:2]:
            pending.append(edge)
        else:  # told late: nothing that was thought of this and of the later ones holds
            insort(pending, edge, key=lambda each: each[:2])
            first = pending.index(edge)
            pending[first:] = [(each[0], each[1], each[0], *each[3:]) for each in pending[first:]]
            certain_ns = at_ns
        if len(pending) > MAX_PENDING:  # a sender's clock that runs far ahead
            self._settle(conversation, pending[MAX_PENDING // 2][0])
            self._schedule(conversation)
        elif certain_ns != _NEVER_NS:
            self._settle_by(conversation, certain_ns + self._settle_ns)

    def _certain_ns(
        self, conversation: _Conversation, direction: DirectionName, at_ns: int, step: int
    ) -> int:
        """Return when there will be something to tell, if an edge is the last one there is."""
        speaking, before = conversation.speaking, conversation.parties
        speaking[direction] += step
        parties = (speaking["inbound"] > 0) + (speaking["outbound"] > 0)
        if parties == before:
            return _NEVER_NS
        since_ns, conversation.since_ns = conversation.since_ns, at_ns
        conversation.parties = parties
        over, quiet = conversation.conditions
        if parties == 1:  # what ends is told when it was told of, or could be
            ended = quiet if before == 0 else over
            return at_ns if at_ns - since_ns >= ended.least_ns else _NEVER_NS
        return at_ns + (over if parties == 2 else quiet).least_ns

    def _schedule(self, conversation: _Conversation) -> None:
        """See to it that the conversation is settled when the next thing can be certain."""
        first_ns = min(
            *(condition.certain_ns for condition in conversation.conditions),
            *(edge[2] for edge in conversation.pending),
        )
        if first_ns != _NEVER_NS:
            self._settle_by(conversation, first_ns + self._settle_ns)

    def _settle_by(self, conversation: _Conversation, due_ns: int) -> None:
        """See to it that the conversation is settled by then."""
        if conversation.due_ns is None or due_ns < conversation.due_ns:
            conversation.due_ns = due_ns
            self._pushed += 1
            heapq.heappush(self._due, (due_ns, self._pushed, conversation))

    def _settle(self, conversation: _Conversation, until_ns: int) -> None:
        """Go through the conversation up to a moment, and tell what happened."""
        # Python runs this for each edge of speech of every call: what does not change is not called
        pending, talking = conversation.pending, conversation.talking
        over, quiet = conversation.conditions
        settled_ns = conversation.settled_ns
        while pending and pending[0][0] <= until_ns:
            at_ns, minus_step, _, direction, party = pending.pop(0)
            settled_ns = max(settled_ns, at_ns)  # one that was told late counts from now
            if over.certain_ns <= settled_ns or quiet.certain_ns <= settled_ns:
                self._tell_starts(conversation, settled_ns)
            talking[direction] -= minus_step
            if minus_step < 0:
                conversation.last_speaker = party
            parties = (talking["inbound"] > 0) + (talking["outbound"] > 0)
            if (parties > 1) is (over.since_ns is None):
                self._turn(conversation, over, settled_ns)
            if (parties == 0) is (quiet.since_ns is None):
                self._turn(conversation, quiet, settled_ns)
        conversation.settled_ns = max(settled_ns, until_ns)
        self._tell_starts(conversation, conversation.settled_ns)

    def _turn(self, conversation: _Conversation, condition: _Condition, at_ns: int) -> None:
        """Let a condition begin to hold, or cease to."""
        since_ns = condition.since_ns
        if since_ns is None:
            condition.begin(at_ns)
            return
        is_told = condition.certain_ns == _NEVER_NS
        condition.since_ns, condition.certain_ns = None, _NEVER_NS
        if is_told:
            self._tell(conversation, condition, "stopped", since_ns, at_ns)

    def _tell_starts(self, conversation: _Conversation, settled_ns: int) -> None:
        """Tell of conditions that have held for long enough by now."""
        for condition in conversation.conditions:
            if condition.certain_ns <= settled_ns and condition.since_ns is not None:
                condition.certain_ns = _NEVER_NS
                self._tell(conversation, condition, "started", condition.since_ns)

    def _tell(
        self, conversation: _Conversation, condition: _Condition, what: str, *moments_ns: int
    ) -> None:
        names = ("start_s", "end_s")
        data = {
            name: conversation.seconds(moment_ns)
            for name, moment_ns in zip(names, moments_ns, strict=False)
        }
        party = conversation.last_speaker
        if condition.name == "mutual_silence" or party is None:
            rate_hz = DEFAULT_RATE_HZ if party is None else party.rate_hz
            party = _Party(conversation.first, conversation, rate_hz)
        position = party.position_samples(moments_ns[-1])
        self.emit(Event(f"{condition.name}_{what}", party.track, position, party.rate_hz, data))

    def _results(self, conversation: _Conversation) -> dict[str, Any]:
        begin_ns = conversation.first.opened_ns
        parties = [
            np.array(conversation.spans.get(direction, []), np.int64).reshape(-1, 2)
            for direction in ("inbound", "outbound")
        ]
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
class _Condition:
    """Something that holds from time to time and is told when it has held for long enough."""

    name: str
    least_ns: int
    since_ns: int | None = None
    """None while it does not hold."""
    certain_ns: int = _NEVER_NS
    """When it will have held for long enough; never while it does not hold, or once it is told."""

    def begin(self, at_ns: int) -> None:
        """Hold from then on."""
        self.since_ns, self.certain_ns = at_ns, at_ns + self.least_ns


@dataclass(slots=True)
class _Party:
    """An open track."""

    track: Track
    conversation: _Conversation
    rate_hz: int = DEFAULT_RATE_HZ
    depth: int = 0
    """How many voice activity sinks hear it speak."""
    speaks_since_ns: int = 0

    def moment_ns(self, position_samples: int) -> int:
        """Return when a sample stands, on the receiver's clock."""
        return self.track.opened_ns + position_samples * 1_000_000_000 // self.rate_hz

    def position_samples(self, moment_ns: int) -> int:
        """Return which sample stands at a moment."""
        return round((moment_ns - self.track.opened_ns) * self.rate_hz / 1e9)


class _Conversation:
    """The tracks of a call leg from the opening of the first to the end of the last.

    All moments are on the receiver's clock. A track that comes back while another is open goes on
    with the conversation, as it does with the recording.
    """

    def __init__(self, first: Track, over: _Condition, quiet: _Condition) -> None:
        self.first = first
        self.conditions = (over, quiet)
        self.open_tracks = 0
        self.end_ns = first.opened_ns
        self.spans: dict[DirectionName, list[tuple[int, int]]] = {}
        """What each direction said, for the results."""
        self.dropped = 0
        self.speaking: dict[DirectionName, int] = {"inbound": 0, "outbound": 0}
        """Tracks that speak by all that was told, by direction."""
        self.parties = 0
        """Directions that do."""
        self.since_ns = first.opened_ns
        """Since when it is so many; no later, where edges were not told in order."""
        self.pending: list[tuple[int, int, int, DirectionName, _Party]] = []
        """Edges that are not settled yet, in order: moment, -1 for a start and 1 for a stop, when
        it makes something certain."""
        self.talking: dict[DirectionName, int] = {"inbound": 0, "outbound": 0}
        """Tracks that speak at `settled_ns`, by direction."""
        self.settled_ns = first.opened_ns
        """What happened before was told."""
        self.last_speaker: _Party | None = None
        self.due_ns: int | None = None
        """When it is to be settled."""

    def seconds(self, moment_ns: int) -> float:
        """Return a moment as seconds since the first packet."""
        return round((moment_ns - self.first.opened_ns) / 1e9, 4)
