"""DTMF in the audio: keys by their two tones (ITU-T Q.23), for all tracks at once.

A track's audio is taken in hops of 10 ms of media time, whatever the length of its frames. Of each
hop that is loud enough, the correlation with the eight tones is taken (the Goertzel algorithm's
result, as dot products), and two hops together are judged: 20 ms, every 10 ms. They hold a key if

- the strongest tone of each group has, together with the other, nearly all of the power: in speech
  other harmonics have their share (hum and an offset do not count: the mean of a hop is left out);
- neither is stronger than the other by more than the twist that lines make (Q.24 section 2.4);
- both have about the same power in both hops, so begin before them and end after them;
- from one hop to the next the phase of each has advanced as at its frequency, within 2.5 %: the
  hops are short, so that a tone that is off by 1.5 % is heard as well as any, and the phase is a
  sharper measure of frequency than a longer window would be (Q.24 section 2.1).

A press is certain when so many such pairs follow each other as `minimum_ms` has, and over when
`pause_ms` have none. What lies between the tones of one key and is shorter is an interruption.

All sums over samples are of integers, so that the compiled kernel and NumPy find the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.keypress import KeyPress
from pipeline.rows import RowState
from pipeline.sinks.base import Sink, check_range
from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Track, TrackSummary

    Over = list[tuple[int, int, int, int]]
    """Presses that are over: (row, number of the key, beginning, end) of each."""

LOW_HZ = (697.0, 770.0, 852.0, 941.0)
HIGH_HZ = (1209.0, 1336.0, 1477.0, 1633.0)
KEYS = "123A456B789C*0#D"
"""By low tone and high tone."""

HOP_MS = 10
FREQUENCY_TOLERANCE = 0.025
"""Q.24 section 2.1 has 1.5 % accepted and 3.5 % refused; noise and the other tone turn phases."""
STEADINESS_DB = 11.0
"""Most that a tone differs between two hops; one that fills a quarter of a hop has 12 dB less."""
BRIDGED_MS = 60
"""What was lost in the midst of a tone, and no longer, belongs to the tone."""
SILENCE_MS = 200
"""A tone is over when by the clock nothing came for so long."""

_AMPLITUDE = 2047
"""Of the waves that audio is correlated with."""
_TONES = len(LOW_HZ) + len(HIGH_HZ)
_SUM = 2 * _TONES
"""Where the sum of a hop's samples stands, behind its correlations."""
_NO_KEY = -1
_MAX_PRODUCTS = 200_000
_USUAL_RATE_HZ = 8000
_LEAST_RATE_HZ, _HIGHEST_RATE_HZ = 8000, 48_000


class DtmfSink(Sink):
    """Hears keys that are pressed: an event for each when it is over, all of a track at its end.

    Options:
    `minimum_dbfs`: least power of the two tones together; 0 dBm0 is -6.2 dBFS.
    `twist_db`: most that one tone is stronger than the other, either way.
    `purity`: least share of the power that the two tones have in all that is heard.
    `minimum_ms`: least duration of a press.
    `pause_ms`: least pause between two presses of one key.
    `max_presses`: presses kept and told per track; those beyond it are counted.

    Emits `dtmf` with `digit`, `start_s`, `duration_ms` and `kind` "in-band". Sample rates from 8 to
    48 kHz that have whole samples in 10 ms are heard, tracks of others are not.
    """

    threaded: ClassVar[bool] = False

    def __init__(
        self,
        *,
        minimum_dbfs: float = -42.0,
        twist_db: float = 9.0,
        purity: float = 0.7,
        minimum_ms: float = 40.0,
        pause_ms: float = 40.0,
        max_presses: int = 1000,
    ) -> None:
        check_range("dtmf: minimum_dbfs", minimum_dbfs, -70, 0)
        check_range("dtmf: twist_db", twist_db, 0, 30)
        check_range("dtmf: purity", purity, 0.1, 0.99)
        check_range("dtmf: minimum_ms", minimum_ms, 20, 10_000)
        check_range("dtmf: pause_ms", pause_ms, 20, 10_000)
        check_range("dtmf: max_presses", max_presses, 1, 1_000_000)
        self._minimum_dbfs = minimum_dbfs
        self._twist_db = twist_db
        self._purity = purity
        # of a tone that lasts k hops, at least k - 1 pairs of hops are filled by it
        self._hits = max(1, round(minimum_ms / HOP_MS) - 1)
        self._pause_ms = pause_ms - HOP_MS
        self._max_presses = max_presses
        self._rules_of: dict[int, _Rules | None] = {}
        """By sample rate."""
        self._columns = _Columns()
        self._heard: dict[int, _Heard] = {}
        """By row."""
        self._has_other_rates = False
        self._kernel = load()
        self._bound = 0
        self._states: dict[int, Any] = {}
        """By sample rate, what the kernel works on."""
        self._over = np.zeros((4, 0), np.int64)
        self._over_columns: Any = None

    def open(self, track: Track) -> None:
        """Begin a track in silence, whatever its row held before."""
        self._columns.ensure(track.row + 1)
        self._columns.renew(track.row)
        self._heard[track.row] = _Heard(track)

    def write(self, block: AudioBlock) -> None:
        """Hear one frame of every track in the block."""
        if not block.is_received:
            return  # what was put in for lost audio is no evidence
        rate_hz = block.sample_rate_hz
        if rate_hz not in self._rules_of:
            self._rules_of[rate_hz] = self._rules(rate_hz)
        rules = self._rules_of[rate_hz]
        if rules is None:
            return
        if rate_hz != _USUAL_RATE_HZ or self._has_other_rates:
            self._has_other_rates = True
            self._columns.rate_hz[block.rows] = rate_hz
        detect = self._detect if self._kernel is None else self._detect_compiled
        self._tell(detect(block, rules))

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """Hear that nothing came on these tracks up to these positions, by the clock."""
        columns = self._columns
        since = until - columns.end.take(rows)
        is_over = columns.digit.take(rows) >= 0
        is_over &= since * 1000 >= SILENCE_MS * columns.rate_hz.take(rows)
        self._tell(self._finish(rows[is_over]))

    def close(self, track: Track, summary: TrackSummary) -> Mapping[str, Any]:
        """End a track; return its presses as `dtmf`, and `dtmf_dropped`.

        `dtmf` lists the presses, each with `digit`, `start_s`, `duration_ms` and `kind`;
        `dtmf_dropped` counts those beyond `max_presses`.
        """
        del summary
        self._tell(self._finish(np.array([track.row])))
        heard = self._heard.pop(track.row)
        if not self._heard:
            self._columns.trim(0)
            self._states.clear()  # which hold the columns
        return {"dtmf": heard.presses, "dtmf_dropped": heard.dropped}

    def _tell(self, over: Iterable[tuple[int, int, int, int]]) -> None:
        for row, key, begin, end in over:
            heard = self._heard[row]
            if len(heard.presses) == self._max_presses:
                heard.dropped += 1
                continue
            press = KeyPress(
                digit=KEYS[key],
                kind="in-band",
                start_samples=begin,
                duration_samples=end - begin,
                sample_rate_hz=int(self._columns.rate_hz[row]),
            )
            heard.presses.append(press.as_dict())
            self.emit(press.as_event(heard.track))

    def _rules(self, rate_hz: int) -> _Rules | None:
        """Return what audio of a sample rate is judged by; None where it cannot be."""
        hop, rest = divmod(rate_hz * HOP_MS, 1000)
        if rest or not _LEAST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
            return None
        # so that sums over a hop fit into 31 bits; at 8 kHz no bit of G.711 is lost
        shift = 2
        while hop * (32768 >> shift) * _AMPLITUDE >= 2**31:
            shift += 1
        frequency_hz = np.array(LOW_HZ + HIGH_HZ)
        turn = 2 * np.pi * frequency_hz * HOP_MS / 1000
        phase = 2 * np.pi * frequency_hz[:, None] / rate_hz * np.arange(hop)
        waves = np.stack((np.cos(phase), -np.sin(phase)), axis=1).reshape(2 * _TONES, hop)
        waves = np.round(_AMPLITUDE * (waves - waves.mean(axis=1, keepdims=True)))
        alignment = np.cos(turn * FREQUENCY_TOLERANCE)
        power_of_all = hop / 2 * _AMPLITUDE**2  # of a sum, for a tone of power 1 in each sample
        return _Rules(
            hop=hop,
            shift=shift,
            pause=round(self._pause_ms * rate_hz / 1000),
            bridge=BRIDGED_MS * rate_hz // 1000,
            basis=np.concatenate((waves, np.ones((1, hop)))).astype(np.int16),
            limit=np.array(
                [
                    10 ** (self._minimum_dbfs / 10) * (32768 >> shift) ** 2,
                    self._purity * power_of_all,
                    10 ** (self._twist_db / 10),
                    10 ** (STEADINESS_DB / 10),
                ]
            ),
            turn=np.stack((np.cos(turn), np.sin(turn), alignment * abs(alignment)), axis=1),
        )

    def _detect_compiled(self, block: AudioBlock, rules: _Rules) -> Over:
        """Do what `_detect` does, in one pass."""
        kernel: Any = self._kernel
        columns, rate_hz = self._columns, block.sample_rate_hz
        if self._bound != columns.moves:
            self._bound = columns.moves
            self._states.clear()
        if rate_hz not in self._states:
            self._states[rate_hz] = kernel.Columns(
                columns.fill, columns.until, columns.energy, columns.energy_before, columns.begin,
                columns.end, columns.last, columns.sums, columns.sums_before, columns.run,
                columns.digit, columns.is_certain, rules.basis, rules.limit, rules.turn,
            )  # fmt: skip
        room = len(block) * (block.samples // rules.hop + 2)
        if self._over.shape[1] < room:
            self._over = np.zeros((4, 2 * room), np.int64)
            self._over_columns = kernel.Columns(*self._over)
        count = kernel.tones(
            self._states[rate_hz],
            kernel.Columns(block.rows, block.position, block.lost, block.pcm),
            self._over_columns,
            len(block),
            block.samples,
            rules.shift,
            rules.hop,
            self._hits,
            rules.pause,
            rules.bridge,
            room,
        )
        over: Over = list(zip(*self._over[:, :count].tolist(), strict=True)) if count else []
        return over

    def _detect(self, block: AudioBlock, rules: _Rules) -> Over:
        """Take the frames; return the presses that are over."""
        columns, rows, position = self._columns, block.rows, block.position
        is_broken = (position != columns.until.take(rows)) | (columns.fill.take(rows) >= rules.hop)
        over: Over = []
        if is_broken.any():
            broken = is_broken.nonzero()[0]
            over += self._resume(rows[broken], position[broken], block.lost[broken], rules)
        columns.until[rows] = position + block.samples
        fill = columns.fill.take(rows)
        for each in np.unique(fill).tolist():
            which = (fill == each).nonzero()[0]
            over += self._hops(rows[which], position[which], block.pcm[which], each, rules)
        return over

    def _resume(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        lost: NDArray[np.int64],
        rules: _Rules,
    ) -> Over:
        """Take frames that do not follow the ones before."""
        columns = self._columns
        until = columns.until.take(rows)
        missing = position - until
        columns.fill[rows] = columns.energy[rows] = columns.energy_before[rows] = 0
        columns.sums[rows] = 0
        is_bridged = (lost > 0) & (missing >= 0) & (missing <= rules.bridge)
        is_bridged &= until - columns.end.take(rows) < rules.hop
        columns.end[rows[is_bridged]] = position[is_bridged]
        return self._finish(rows[missing < 0])

    def _hops(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        pcm: NDArray[np.int16],
        fill: int,
        rules: _Rules,
    ) -> Over:
        """Take frames of tracks whose last hop is filled equally far."""
        columns, least = self._columns, rules.limit[0]
        over: Over = []
        samples, done = pcm.shape[1], 0
        # so few that BLAS wakes no threads for them
        at_once = max(1, _MAX_PRODUCTS // rules.basis.size)
        while done < samples:
            part = min(rules.hop - fill, samples - done)
            scaled = (pcm[:, done : done + part] >> rules.shift).astype(np.float64)
            energy = np.einsum("ij,ij->i", scaled, scaled).astype(np.int64)
            loud = (energy >= least * part).nonzero()[0]
            waves = rules.basis[:, fill : fill + part].T.astype(np.float64)
            for some in np.array_split(loud, len(loud) // at_once + 1):
                columns.sums[rows[some]] += (scaled[some] @ waves).astype(np.int32)
            energy += columns.energy.take(rows)
            done += part
            fill += part
            if fill < rules.hop:
                columns.fill[rows] = fill
                columns.energy[rows] = energy
                break
            over += self._judge(rows, position + done, energy, rules)
            fill = 0
        return over

    def _judge(
        self,
        rows: NDArray[np.intp],
        edge: NDArray[np.int64],
        energy: NDArray[np.int64],
        rules: _Rules,
    ) -> Over:
        """Judge the hops that are full, up to `edge`, together with those before."""
        columns = self._columns
        before = columns.energy_before.take(rows)
        power = energy - columns.sums[rows, _SUM].astype(np.float64) ** 2 / rules.hop
        is_loud = power >= rules.limit[0] * rules.hop
        digit = np.full(len(rows), _NO_KEY, np.int8)
        both = (is_loud & (before > 0)).nonzero()[0]
        if len(both):
            row = rows[both]
            digit[both] = _digits(
                columns.sums_before[row].astype(np.float64),
                columns.sums[row].astype(np.float64),
                (power + before)[both],
                rules,
            )
        loud = rows[is_loud]
        columns.sums_before[loud] = columns.sums[loud]
        columns.sums[rows] = 0
        columns.energy_before[rows] = np.where(is_loud, power, 0)
        columns.fill[rows] = columns.energy[rows] = 0
        busy = ((digit >= 0) | (columns.digit.take(rows) >= 0)).nonzero()[0]
        return self._follow(rows[busy], edge[busy], digit[busy], rules) if len(busy) else []

    def _follow(
        self,
        rows: NDArray[np.intp],
        edge: NDArray[np.int64],
        digit: NDArray[np.int8],
        rules: _Rules,
    ) -> Over:
        """Take the key that the last two hops hold, or none; return the presses that are over."""
        columns = self._columns
        start = edge - 2 * rules.hop
        end = columns.end.take(rows)
        is_key = digit >= 0
        is_more = is_key & (digit == columns.digit.take(rows)) & (start - end < rules.pause)
        is_over = np.where(is_key, ~is_more, start + rules.hop - end >= rules.pause)
        over = self._finish(rows[is_over])

        new = is_key & ~is_more
        columns.digit[rows[new]] = digit[new]
        columns.begin[rows[new]] = start[new]
        columns.is_certain[rows[new]] = False

        follows = is_more & (columns.last.take(rows) == start - rules.hop)
        run = np.where(follows, columns.run.take(rows) + 1, 1)
        rows, run = rows[is_key], run[is_key]
        columns.run[rows] = run
        columns.last[rows] = start[is_key]
        columns.end[rows] = edge[is_key]
        columns.is_certain[rows] |= run >= self._hits
        return over

    def _finish(self, rows: NDArray[np.intp]) -> Over:
        """End the presses of these tracks; return those that were certain."""
        columns = self._columns
        ended = rows[(columns.digit.take(rows) >= 0) & columns.is_certain.take(rows)]
        columns_of = (columns.digit, columns.begin, columns.end)
        over: Over = list(
            zip(
                ended.tolist(), *(column.take(ended).tolist() for column in columns_of), strict=True
            )
        )
        columns.digit[rows] = _NO_KEY
        return over


@dataclass(slots=True)
class _Heard:
    """The presses of an open track."""

    track: Track
    presses: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0
    """Presses beyond `max_presses`."""


@dataclass(frozen=True, eq=False)
class _Rules:
    """What audio of one sample rate is judged by; lengths in samples."""

    hop: int
    shift: int
    """Bits by which samples are shifted to the right before they are multiplied."""
    pause: int
    """Between the tones of two presses, as it is measured: a hop less than it is long."""
    bridge: int
    basis: NDArray[np.int16]
    """(17, hop) cosine and negative sine of each tone, without their mean; ones."""
    limit: NDArray[np.float64]
    """(4,) least energy of a sample, least power of the two tones for an energy of 1, greatest
    ratio of the two, greatest ratio of a tone in two hops."""
    turn: NDArray[np.float64]
    """(8, 3) cosine and sine of what a tone's phase advances in a hop; the cosine of the most that
    it may be off, squared and with its sign."""


class _Columns(RowState):
    """What has been heard of each track, by row; positions in samples."""

    fresh = {  # noqa: RUF012 -- the columns' declaration, never changed
        "fill": (np.int64, 0),
        "until": (np.int64, 0),
        "energy": (np.int64, 0),
        "energy_before": (np.float64, 0.0),
        "begin": (np.int64, 0),
        "end": (np.int64, 0),
        "last": (np.int64, 0),
        "sums": ((np.int32, _SUM + 1), 0),
        "sums_before": ((np.int32, _SUM + 1), 0),
        "run": (np.int32, 0),
        "digit": (np.int8, _NO_KEY),
        "is_certain": (np.bool_, False),
        "rate_hz": (np.int64, _USUAL_RATE_HZ),
    }
    fill: NDArray[np.int64]
    """Samples of the hop that is not full yet."""
    until: NDArray[np.int64]
    """Position of the end of the last frame."""
    energy: NDArray[np.int64]
    """Of the hop that is not full yet."""
    energy_before: NDArray[np.float64]
    """Of the last full hop, less its mean; 0 where it is too quiet, or does not adjoin."""
    begin: NDArray[np.int64]
    """Of the press that goes on: the first pair of hops that holds its tones."""
    end: NDArray[np.int64]
    """The end of the last pair that does."""
    last: NDArray[np.int64]
    """The beginning of that pair."""
    sums: NDArray[np.int32]
    """(rows, 17): correlation with `basis` of the hop that is not full yet."""
    sums_before: NDArray[np.int32]
    """(rows, 17): of the last full hop."""
    run: NDArray[np.int32]
    """Pairs in a row that hold the tones."""
    digit: NDArray[np.int8]
    """Number of the key whose tones are heard; -1 for none."""
    is_certain: NDArray[np.bool_]
    rate_hz: NDArray[np.int64]


def _digits(
    before: NDArray[np.float64],
    now: NDArray[np.float64],
    energy: NDArray[np.float64],
    rules: _Rules,
) -> NDArray[np.int8]:
    """Return the key whose tones two hops hold, -1 for none, as (n,) int8.

    `before` and `now` (n, 17) are the hops' correlations, `energy` (n,) is that of both.
    """
    squared_before, squared_now = before**2, now**2
    power = (squared_before[:, :-1:2] + squared_before[:, 1::2]) + (
        squared_now[:, :-1:2] + squared_now[:, 1::2]
    )
    n = np.arange(len(power))
    tones = power[:, :4].argmax(axis=1), power[:, 4:].argmax(axis=1) + 4
    low, high = power[n, tones[0]], power[n, tones[1]]
    _, purity, twist, steadiness = rules.limit
    is_key = (low + high >= purity * energy) & (low <= high * twist) & (high <= low * twist)
    for tone in tones:
        a, b, c, d = (
            before[n, 2 * tone],
            before[n, 2 * tone + 1],
            now[n, 2 * tone],
            now[n, 2 * tone + 1],
        )
        first, second = a * a + b * b, c * c + d * d
        is_key &= (first <= second * steadiness) & (second <= first * steadiness)
        cosine, sine, alignment = rules.turn[tone].T
        aligned = (a * c + b * d) * cosine + (a * d - b * c) * sine
        is_key &= aligned * np.abs(aligned) >= alignment * (first * second)
    return np.where(is_key, 4 * tones[0] + tones[1] - 4, _NO_KEY).astype(np.int8)
