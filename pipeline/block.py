"""What the pipeline hands to sinks: tracks, blocks of audio, events and summaries.

A *track* is what one party said in one direction. A *block* holds the frames of equal length
and codec that were released together, at most one per track. Positions count samples of the
track's own media clock; sample 0 is the first sample of its first audio packet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.codecs import G711
from pipeline.pages import own_pages
from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from numpy.typing import NDArray

    from pipeline.changes import Change
    from pipeline.codecs import Codec
    from pipeline.keypress import KeyPress

Leg = Literal["A", "B"]
DirectionName = Literal["inbound", "outbound"]
CloseReason = Literal["idle", "closed", "end", "gap", "rate"]
"""No packets for long, told to close, or the end of the receiver or the capture; or the next
segment begins: behind a gap longer than is filled, or at a change of the sample rate."""
Began = Literal["first", "gap", "rate"]
"""Why a segment of a track began: with the track, or as the one before was closed."""
Origin = Literal["received", "concealed", "comfort_noise"]
"""What a block's frames are: packets as they came, or filler for lost ones, or for silence."""


@dataclass(frozen=True, slots=True)
class Track:
    """One party's audio in one direction: the stable thing that sinks are told about.

    Immutable and safe to keep. `row` indexes every columnar array of the pipeline while the
    track is open and is reused afterwards; (`row`, `generation`) never comes back.
    """

    row: int
    generation: int
    call_leg_id: UUID
    leg: Leg
    direction: DirectionName
    opened_ns: int
    """Arrival of the first packet, nanoseconds on the receiver's clock (monotonic when live)."""
    opened_unix_ns: int
    """The same moment, nanoseconds since 1970 UTC."""
    source: str
    """`address:port` that the first packet came from."""
    destination: str
    """`address:port` that it was sent to."""
    ssrc: int
    """SSRC of the first packet (RFC 3550 section 3); later ones are in the summary."""
    segment: int = 0
    """How many segments of this track came before, one right after the other; to sinks each is a
    track of its own."""
    began: Began = "first"
    """Why this segment began."""
    gap_s: float = 0.0
    """Seconds from the end of the segment before to the beginning of this one."""


class Payloads:
    """Coded frames of one size, where they lie: in a batch, in a pool, or as rows of an array.

    Valid as long as the memory that they lie in.
    """

    __slots__ = ("_kernel", "_offset", "_slot", "_store", "size")

    def __init__(
        self,
        store: NDArray[np.uint8],
        slot: NDArray[np.intp],
        offset: NDArray[np.int64],
        size: int,
    ) -> None:
        """Name frame i as `store[slot[i], offset[i] : offset[i] + size]`."""
        self._store = store
        self._slot = slot
        self._offset = offset
        self.size = size
        """Bytes of each."""
        self._kernel = load()

    @classmethod
    def of(cls, codes: NDArray[np.uint8]) -> Payloads:
        """Return the rows of an array (n, bytes), C-contiguous, as they are."""
        return cls(codes, np.arange(len(codes)), np.zeros(len(codes), np.int64), codes.shape[1])

    def __len__(self) -> int:
        return len(self._slot)

    def codes(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return a copy, (n, bytes) uint8, C-contiguous: in `out` where that is given."""
        if out is None:
            out = np.empty((len(self._slot), self.size), np.uint8)
        if self._kernel is None:
            out[:] = self._in_place()
        else:
            self._kernel.gather(
                self._kernel.Columns(self._store, self._slot, self._offset, out),
                *(len(out), self._store.shape[1], self.size),
            )
        return out

    def decode(self, codec: Codec, out: NDArray[np.int16]) -> None:
        """Decode into `out` (n, samples), C-contiguous."""
        if self._kernel is None or not isinstance(codec, G711):
            codec.decode(self._in_place(), out)
        else:
            self._kernel.decode(
                self._kernel.Columns(self._store, self._slot, self._offset, codec.table, out),
                *(len(out), self._store.shape[1], self.size, codec.law),
            )

    def _in_place(self) -> NDArray[np.uint8]:
        """Return the frames as rows of one array, which are a view where that can be."""
        slot, offset, n = self._slot, self._offset, len(self._slot)
        if not n:
            return np.zeros((0, self.size), np.uint8)
        first, column = int(slot[0]), int(offset[0])
        if (offset != column).any():
            apart: NDArray[np.uint8] = self._store[
                slot[:, None], offset[:, None] + np.arange(self.size)
            ]
            return apart
        wanted = self._store[:, column : column + self.size]
        if int(slot[-1]) - first == n - 1 and (n < 2 or (np.diff(slot) == 1).all()):
            return wanted[first : first + n]
        return wanted.take(slot, axis=0)


class AudioBlock:
    """Frames of one codec and one length, one row per track, released together.

    Every array has one entry per frame, in the order of `rows`, which names no track twice.
    All of them, `pcm` included, are valid **during the call only**; use `copy()` to keep a block.
    """

    __slots__ = (
        "_frames",
        "_has_gaps",
        "_payload",
        "_pcm",
        "_scratch",
        "arrival_ns",
        "codec",
        "gap_samples",
        "lost",
        "origin",
        "position",
        "rows",
    )

    def __init__(
        self,
        *,
        codec: Codec,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        gap_samples: NDArray[np.int64],
        lost: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        payload: Payloads | NDArray[np.uint8],
        scratch: NDArray[np.int16] | None = None,
        origin: Origin = "received",
        has_gaps: bool | None = None,
    ) -> None:
        """Make a block of payloads, or of an array of them, (n, bytes) uint8.

        `scratch` lends memory for `pcm`, where it is large enough. `has_gaps` is whether any of
        `gap_samples` is not 0, where that is known.
        """
        self.codec = codec
        """The codec of every frame in the block."""
        self.rows = rows
        """(n,) intp: `Track.row` of each frame."""
        self.position = position
        """(n,) int64: the frame's first sample, in samples since the track's first one."""
        self.gap_samples = gap_samples
        """(n,) int64: samples without audio (silence or loss) between the frame before and this
        one; 0 for a track's first frame. Negative when the sender's timestamps overlap."""
        self.lost = lost
        """(n,) int64: packets that were lost immediately before this frame."""
        self.arrival_ns = arrival_ns
        """(n,) int64: arrival of the frame's packet on the receiver's clock."""
        self.origin: Origin = origin
        """What the frames are. Filler stands in blocks of its own, before the frame behind the
        hole, with no `gap_samples` and no `lost`; a sink that must not judge it looks here."""
        self._payload: NDArray[np.uint8] | None = None
        if not isinstance(payload, Payloads):
            self._payload = np.ascontiguousarray(payload)
            payload = Payloads.of(self._payload)
        self._frames = payload
        self._scratch = scratch
        self._has_gaps = has_gaps
        self._pcm: NDArray[np.int16] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_received(self) -> bool:
        """Whether the frames came as packets, and are not filler."""
        return self.origin == "received"

    @property
    def has_gaps(self) -> bool:
        """Whether any frame has `gap_samples`."""
        if self._has_gaps is None:
            self._has_gaps = bool(self.gap_samples.any())
        return self._has_gaps

    @property
    def sample_rate_hz(self) -> int:
        """Samples per second of `pcm` and of all positions."""
        return self.codec.sample_rate_hz

    @property
    def samples(self) -> int:
        """Length of each frame in samples."""
        return self.codec.samples(self._frames.size)

    @property
    def nbytes(self) -> int:
        """Bytes of audio that the block holds, coded and decoded."""
        coded = len(self.rows) * self._frames.size
        return coded + (0 if self._pcm is None else self._pcm.nbytes)

    @property
    def payload(self) -> NDArray[np.uint8]:
        """(n, bytes) uint8, C-contiguous: the codec's codes as they came.

        Where `codec.table` is None, the samples: int16, little-endian.
        """
        if self._payload is None:
            self._payload = self._frames.codes()
        return self._payload

    @property
    def pcm(self) -> NDArray[np.int16]:
        """(n, samples) int16, C-contiguous: decoded at the first use, once for all who share it."""
        if self._pcm is None:
            # whoever else decodes at the same moment, in another thread, gets the same
            shape = (len(self.rows), self.samples)
            size = shape[0] * shape[1]
            if self._scratch is None or self._scratch.size < size:
                pcm = np.empty(shape, np.int16)
            else:
                pcm = self._scratch[:size].reshape(shape)
            self._frames.decode(self.codec, pcm)
            self._pcm = pcm
        return self._pcm

    def take(self, which: NDArray[np.intp]) -> AudioBlock:
        """Return some of the frames, as a block that owns its arrays."""
        return AudioBlock(
            codec=self.codec,
            rows=self.rows[which],
            position=self.position[which],
            gap_samples=self.gap_samples[which],
            lost=self.lost[which],
            arrival_ns=self.arrival_ns[which],
            payload=self.payload[which],
            origin=self.origin,
        )

    def copy(self) -> AudioBlock:
        """Return a block that owns its arrays and may be kept; it decodes anew if it has to."""
        columns = (self.rows, self.position, self.gap_samples, self.lost, self.arrival_ns)
        size = sum(column.nbytes for column in columns)
        # One piece of memory for all of it, which goes back to the system as a whole: thousands of
        # blocks that wait for a slow sink would else leave a heap full of holes behind.
        room = own_pages(size + len(self) * self._frames.size)
        rows, position, gap_samples, lost, arrival_ns = (
            room[:size].view(np.int64).reshape(len(columns), -1)
        )
        for kept, column in zip(
            (rows, position, gap_samples, lost, arrival_ns), columns, strict=True
        ):
            kept[:] = column
        return AudioBlock(
            codec=self.codec,
            rows=rows.view(np.intp),
            position=position,
            gap_samples=gap_samples,
            lost=lost,
            arrival_ns=arrival_ns,
            payload=self._frames.codes(room[size:].reshape(len(self), self._frames.size)),
            origin=self.origin,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a track, named in the past tense.

    Emitted by sinks (`speech_started`, `speech_stopped`, `dtmf` for tones in the audio) and by the
    pipeline (`track_opened`, `track_realigned`, `track_closed`, `dtmf` and `telephone_event` for
    RFC 4733), delivered to `Sink.event` of all sinks, and to `Analyzer.event` of the track's own
    analysers.
    """

    kind: str
    track: Track
    position_samples: int
    """Where on the track, in samples."""
    sample_rate_hz: int
    data: Mapping[str, Any] = field(default_factory=dict)
    """Further facts, ready for JSON."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What came of a track over time: point i begins i * `interval_s` behind its opening.

    Behind the last point nothing came any more.
    """

    interval_s: float
    packets: tuple[int, ...]
    """Packets that came, duplicates and late ones included; 65,535 may stand for more."""
    lost: tuple[int, ...]
    """Packets that were given up, like `packets`."""
    jitter_ms: tuple[float, ...]
    """Interarrival jitter at the end of the interval, or the greatest such of its parts, in tenths
    of a millisecond; 0 where nothing came."""

    def as_json(self) -> dict[str, Any]:
        """Return it for `json.dumps`."""
        return {
            "interval_s": self.interval_s,
            "packets": list(self.packets),
            "lost": list(self.lost),
            "jitter_ms": list(self.jitter_ms),
        }


@dataclass(frozen=True, slots=True)
class TrackSummary:
    """The figures of a finished (or, on request, of a running) track."""

    reason: CloseReason
    packets: int
    """Packets that belong to the track, duplicates and late ones included."""
    payload_bytes: int
    """Sum of their RTP payloads."""
    released: int
    """Packets released in order, audio or not."""
    lost: int
    """Packets given up: missing when their time was over."""
    late: int
    """Packets that came after they had been given up."""
    duplicate: int
    reordered: int
    """Packets that came after a later one, but in time."""
    resets: int
    """Restarts of the sequence: another SSRC, or a jump that the next packet continued."""
    unknown_payload: int
    """Packets of a payload type that stands for no codec, or for one that is not installed."""
    timestamp_gaps: int
    """Timestamp gaps without loss: silence (DTX, hold), or packets without audio."""
    silence_samples: int
    """Samples in all gaps, of silence and of loss."""
    jitter_last_ms: float
    """Interarrival jitter (RFC 3550 section 6.4.1)."""
    jitter_mean_ms: float
    jitter_max_ms: float
    first_arrival_ns: int
    last_arrival_ns: int
    duration_samples: int
    """End of the last audio frame."""
    sample_rate_hz: int
    payload_types: Mapping[int, int]
    """Packets by RTP payload type."""
    codecs: tuple[str, ...]
    """Names of the codecs of those payload types, `unknown` where there is none."""
    ssrcs: tuple[int, ...]
    """The last sources that fed the track, in their order (at most 100)."""
    losses: tuple[tuple[int, int], ...]
    """(position in samples, packets) of each loss, the first 1,000 of them."""
    telephone_event_types: tuple[int, ...] = ()
    """RTP payload types of telephone-events that came (RFC 4733)."""
    telephone_events: tuple[KeyPress, ...] = ()
    """Keys pressed as telephone-events, in the order in which they were over (at most 1,000)."""
    telephone_events_dropped: int = 0
    """Telephone-events beyond those."""
    telephone_events_malformed: int = 0
    """Packets of their payload types that hold none."""
    loss_runs: int = 0
    """Runs of packets lost one after the other."""
    longest_loss: int = 0
    """Packets in the longest of them."""
    bursts: int = 0
    """Bursts of loss by RFC 3611 section 4.7.2, see `JitterBank.burst_totals`."""
    burst_packets: int = 0
    """Packets in these bursts, lost or not."""
    burst_lost: int = 0
    mouth_to_ear_ms: float = 0.0
    """One-way delay that the E-model is told."""
    timeline: Timeline | None = None
    """None while the track is open."""
    rtcp: Mapping[str, Any] | None = None
    """What RTCP told of the track, ready for JSON; None while it is open, and without any."""

    codec: str = "unknown"
    """Name of the codec of most packets."""
    undecoded: int = 0
    """Packets of a known codec whose payload could not be decoded: they are a gap."""
    drift_ppm: float | None = None
    """How much faster the sender's clock runs than the receiver's, in parts per million; None
    where too little came to tell. Nothing is resampled by it."""
    realignments: int = 0
    """Frames that stand where their arrival says, or step back: a new sequence, a timestamp that is
    not believed, a sender whose timestamps stood still during a hold."""
    concealed_samples: int = 0
    """Samples made for lost packets; they are part of `silence_samples`."""
    concealed: tuple[tuple[int, int], ...] = ()
    """(position in samples, samples) of each stretch of these, the first 1,000 of them."""
    comfort_noise_samples: int = 0
    """Samples of comfort noise made for pauses, another part."""
    changes: tuple[Change, ...] = ()
    """Other sources, other codecs and holds in its midst, the first 100 of them."""

    @property
    def expected(self) -> int:
        """Packets that were sent, as far as can be told: released and lost ones."""
        return self.released + self.lost

    @property
    def loss_ratio(self) -> float:
        """Fraction of the expected packets that were given up, those that came late included."""
        return self.lost / max(1, self.expected)

    @property
    def duration_s(self) -> float:
        """Media time from the first audio sample to the last, in seconds."""
        return self.duration_samples / self.sample_rate_hz
