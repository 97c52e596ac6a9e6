"""The pictures of docs/audio.md, and the figures that stand beside them.

`python -m bench.pictures` draws all of them into `docs`, `python -m bench.pictures DIR` elsewhere.
Nothing is read but the two voices that ship with strep; all that is random has a seed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from bench.arguments import Parser
from bench.report import GREY, INK, OTHERS, OURS, SERIES, STYLE, plain
from pipeline.block import Track
from pipeline.codecs import PCMU
from pipeline.dispatch import Dispatcher
from pipeline.encode import encode
from pipeline.level import NoiseFloor, measure
from pipeline.packets import Packets
from pipeline.pipeline import Pipeline
from pipeline.sinks.base import Sink
from pipeline.sinks.dtmf import DtmfSink
from pipeline.sinks.vad import VadSink
from strep.voices import load_voice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Event

RATE_HZ = 8000
FRAME = 160
WAYS = ("silence", "repeat", "g711")
LOW_HZ, HIGH_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
KEYS = "123A456B789C*0#D"
TRACKS = 1000
PICTURE_DPI = 120


class _Listener(Sink):
    """Keeps what is heard on each row, and where each frame stands."""

    threaded = False

    def __init__(self) -> None:
        self.audio: defaultdict[int, list[tuple[int, NDArray[np.int16]]]] = defaultdict(list)
        self.arrivals: list[tuple[int, int]] = []
        """(arrival, position) of each frame."""
        self.events: list[Event] = []

    def write(self, block: AudioBlock) -> None:
        for row, position, pcm in zip(block.rows, block.position, block.pcm, strict=True):
            self.audio[int(row)].append((int(position), pcm.copy()))
        arrivals, positions = block.arrival_ns.tolist(), block.position.tolist()
        self.arrivals += zip(arrivals, positions, strict=True)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def pcm(self, samples: int, row: int = 0) -> NDArray[np.int16]:
        heard = np.zeros(samples, np.int16)
        for position, pcm in self.audio[row]:
            part = heard[position : position + len(pcm)]
            part[:] = pcm[: len(part)]
        return heard


def _hear(packets: Packets, sinks: Mapping[str, Sink], **options: Any) -> None:
    """Send packets of rows 0 to n - 1, in the order of their arrival, through the pipeline."""
    dispatcher = Dispatcher(dict(sinks))
    dispatcher.start()
    pipeline = Pipeline(dispatcher, **options)
    rows = np.unique(packets.rows).tolist()
    for row in rows:
        first = int(packets.sequence[packets.rows == row][0])
        track = Track(row, 0, UUID(int=row), "A", "inbound", 0, 0, "", "", row)
        pipeline.open(track, sequence=first)
    for start in range(0, len(packets), 2000):
        part = packets.take(np.arange(start, min(start + 2000, len(packets))))
        pipeline.push(part)
    for row in rows:
        pipeline.close(row, "end")
    dispatcher.stop()


def _packets(
    codes: NDArray[np.uint8],
    *,
    row: int = 0,
    timestamps: NDArray[np.int64] | None = None,
    arrival_s: NDArray[np.float64] | None = None,
    ssrc: NDArray[np.int64] | None = None,
) -> Packets:
    """Return packets of 20 ms, one for each row of `codes` (n, 160)."""
    n = len(codes)
    index = np.arange(n)
    stamped = index * FRAME if timestamps is None else timestamps
    return Packets(
        rows=np.full(n, row, np.intp),
        ssrc=np.full(n, 1) if ssrc is None else ssrc,
        sequence=index & 0xFFFF,
        timestamp=stamped & 0xFFFFFFFF,
        payload_type=np.zeros(n, np.intp),
        arrival_ns=np.rint((index / 50 if arrival_s is None else arrival_s) * 1e9).astype(np.int64),
        store=codes,
        slot=index,
        offset=np.zeros(n, np.intp),
        length=np.full(n, FRAME, np.intp),
    )


def alignment(figure: Figure) -> list[str]:
    """Show where frames stand of a call that is held, and that a network stalls."""
    seconds = 60
    spoken_s = np.arange(50 * seconds) / 50
    stamps = np.arange(50 * seconds) * FRAME
    arrival_s = spoken_s + np.random.default_rng(1).uniform(0, 0.02, len(spoken_s))
    ssrc = np.ones(len(spoken_s), np.int64)
    stamps[spoken_s >= 12] -= 4 * RATE_HZ  # a hold of 4 s whose clock stood still
    stalled = (spoken_s >= 26) & (spoken_s < 28)
    arrival_s[stalled] = 28 + np.arange(stalled.sum()) * 1e-4
    stamps[spoken_s >= 40] += 3_600 * RATE_HZ  # an hour, in a leap
    ssrc[spoken_s >= 50] = 2
    stamps[spoken_s >= 50] -= 3_590 * RATE_HZ
    sent = ~((spoken_s >= 8) & (spoken_s < 12)) & ~((spoken_s >= 18) & (spoken_s < 22))
    packets = _packets(
        np.full((int(sent.sum()), FRAME), 0xFF, np.uint8),
        timestamps=stamps[sent],
        arrival_s=arrival_s[sent],
        ssrc=ssrc[sent],
    )
    listener = _Listener()
    _hear(packets, {"listener": listener})
    where = np.array([position for _, position in listener.arrivals]) / RATE_HZ
    true = spoken_s[sent]
    axes = figure.subplots()
    by_stamps = stamps[sent] / RATE_HZ
    for piece in np.split(
        np.arange(len(true)), np.flatnonzero(np.abs(np.diff(by_stamps - true)) > 0.5) + 1
    ):
        inside = np.abs((by_stamps - true)[piece]) < 15
        axes.plot(true[piece][inside], (by_stamps - true)[piece][inside], color=OTHERS, lw=3)
    axes.plot(true, where - true, ".", color=OURS, ms=2.5)
    for at, text in (
        (10, "hold, clock\nstands still"),
        (20, "pause, clock\nruns on"),
        (27, "network\nstalls"),
        (40, "timestamps\nleap an hour"),
        (50, "another\nSSRC"),
    ):
        axes.text(at, 2.2, text, ha="center", va="bottom", fontsize=8, color=GREY)
    axes.text(59.8, 0.3, "in the recording", ha="right", fontsize=8, color=OURS)
    axes.text(
        16.2,
        -3.9,
        "by the timestamps alone; from 40 s on an hour away",
        fontsize=8,
        color=GREY,
        va="bottom",
    )
    axes.set_ylim(-5, 4.5)
    axes.set_xlabel("spoken, s")
    axes.set_ylabel("away from there, s")
    plain(axes, grid="y")
    return [
        f"alignment: at most {1000 * np.abs(where - true).max():.0f} ms from where it was spoken"
    ]


def concealment(figure: Figure) -> list[str]:
    """Show a voice with holes, as each of the ways fills them; and what that costs."""
    codes = load_voice("caller")
    frames = codes[: len(codes) // FRAME * FRAME].reshape(-1, FRAME)
    wanted = PCMU.table[frames].ravel()
    loud = np.flatnonzero(np.abs(PCMU.table[frames].astype(int)).mean(axis=1) > 500)
    first = int(next(k for k in loud if {k + 1, k + 2, k + 3, k + 4, k + 5} <= set(loud.tolist())))
    lost = (first + 1, first + 4, first + 5)
    kept = np.setdiff1d(np.arange(len(frames)), lost)
    whole = _packets(frames)
    part = slice((first - 1) * FRAME, (first + 8) * FRAME)
    at_ms = np.arange(part.stop - part.start) / 8
    for axes, way in zip(figure.subplots(len(WAYS), 1, sharex=True), WAYS, strict=True):
        listener = _Listener()
        _hear(whole.take(kept), {"listener": listener}, concealment=way)
        made = listener.pcm(len(wanted))[part]
        axes.plot(at_ms, wanted[part], color=OTHERS, lw=0.8)
        axes.plot(at_ms, made, color=OURS, lw=0.9)
        for each in lost:
            begin = (each - first + 1) * 20
            axes.axvspan(begin, begin + 20, color=SERIES[2], alpha=0.14, lw=0)
        axes.set_title(way, loc="left", fontsize=9.5, color=INK)
        axes.set_yticks([])
        plain(axes, grid="x")
    axes.set_xlabel("ms; shaded: lost packets, grey: what was said")
    return [
        f"concealment: {way}, {_distance_db(frames, way):.0f} dB of log spectra, "
        f"us a packet {_cost_us(way, 0):.2f} without loss, {_cost_us(way, 0.03):.2f} with 3 %"
        for way in WAYS
    ]


def _distance_db(frames: NDArray[np.uint8], way: str) -> float:
    """Return how far the spectra of filler are from what was said: single losses in speech."""
    said = PCMU.table[frames].astype(float)
    loud = np.flatnonzero(np.abs(said).mean(axis=1) > 500)
    without = loud[loud > 2][::7]
    listener = _Listener()
    kept = np.setdiff1d(np.arange(len(frames)), without)
    _hear(_packets(frames).take(kept), {"listener": listener}, concealment=way)
    made = listener.pcm(frames.size).reshape(-1, FRAME).astype(float)

    def spectra(of: NDArray[np.float64]) -> NDArray[np.float64]:
        levels: NDArray[np.float64] = 20 * np.log10(
            np.abs(np.fft.rfft(of * np.hanning(FRAME), axis=1)) + 30
        )
        return levels

    apart = spectra(made[without]) - spectra(said[without])
    return float(np.sqrt((apart**2).mean(axis=1)).mean())


def _cost_us(way: Any, share: float) -> float:
    """Return the least CPU time per packet of 1,000 tracks with so much loss, without sinks."""
    frames = load_voice("caller")[: 150 * FRAME].reshape(-1, FRAME)
    dispatcher = Dispatcher({})
    dispatcher.start()
    pipeline = Pipeline(dispatcher, concealment=way, reorder_ms=0)
    for row in range(TRACKS):
        track = Track(row, 0, UUID(int=row), "A", "inbound", 0, 0, "", "", row)
        pipeline.open(track, sequence=0)
    random = np.random.default_rng(1)
    rows = np.arange(TRACKS)
    costs = []
    for k, frame in enumerate(frames):
        here = rows[random.random(TRACKS) >= (share if k > 2 else 0)]
        n = len(here)
        packets = Packets(
            rows=here,
            ssrc=np.ones(n, np.int64),
            sequence=np.full(n, k),
            timestamp=np.full(n, k * FRAME),
            payload_type=np.zeros(n, np.intp),
            arrival_ns=np.full(n, k * 20_000_000),
            store=np.broadcast_to(frame, (n, FRAME)).copy(),
            slot=np.arange(n),
            offset=np.zeros(n, np.intp),
            length=np.full(n, FRAME, np.intp),
        )
        began = time.thread_time()
        pipeline.push(packets)
        costs.append((time.thread_time() - began) / n)
    dispatcher.stop()
    return 1e6 * float(np.median(costs[10:]))


def keys(figure: Figure) -> list[str]:
    """Show key presses in a voice, and how long and clear a press has to be."""
    random = np.random.default_rng(5)
    voice = PCMU.table[load_voice("caller")][int(4.6 * RATE_HZ) : int(7.6 * RATE_HZ)].astype(float)
    heard = voice.copy()
    for number, key in enumerate("1590#"):
        begin = round((0.25 + 0.55 * number) * RATE_HZ)
        tone = _tone(key, 100, -8, random)
        heard[begin : begin + len(tone)] = tone
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 2))
    upper.specgram(
        heard + random.normal(0, 3, len(heard)),
        NFFT=256, Fs=RATE_HZ, noverlap=192, cmap="Greys", vmin=-40, vmax=40,
    )  # fmt: skip
    for event in _presses(_mulaw(heard)):
        start_s, end_s = event["start_s"], event["start_s"] + event["duration_ms"] / 1000
        upper.axvspan(start_s, end_s, color=OURS, alpha=0.22, lw=0)
        upper.text(
            (start_s + end_s) / 2, 2150, event["digit"], ha="center", color=OURS, weight="bold"
        )
    upper.set_ylim(0, 2500)
    upper.set_xlim(0, 3)
    upper.set_ylabel("Hz")
    upper.set_title(
        "keys pressed in the midst of speech; shaded: what was heard", loc="left", fontsize=9.5
    )
    plain(upper, grid="y")
    upper.grid(visible=False)
    return _by_duration(lower, random)


def _by_duration(axes: Axes, random: np.random.Generator) -> list[str]:
    lengths_ms = (20, 23, 26, 30, 33, 36, 40, 50)
    said = []
    for snr_db, colour in ((20, OURS), (10, SERIES[2]), (6, OTHERS)):
        shares = [_share_heard(length, snr_db, random) for length in lengths_ms]
        axes.plot(
            lengths_ms, shares, "o-", ms=3, color=colour, label=f"{snr_db} dB above the noise"
        )
        told = ", ".join(
            f"{share:.4g} % at {length} ms"
            for length, share in zip(lengths_ms, shares, strict=True)
        )
        said.append(f"keys: {snr_db} dB: {told}")
    axes.set_xlabel("length of the press and of the pause behind it, ms (pause at least 40)")
    axes.set_ylabel("% heard")
    axes.legend(frameon=False, fontsize=8)
    plain(axes, grid="y")
    return said


def _share_heard(length_ms: float, snr_db: float, random: np.random.Generator) -> float:
    """Return how many percent of 300 random presses are heard, and nothing else."""
    wanted, parts = "", [np.zeros(400)]
    for _ in range(300):
        key = KEYS[random.integers(16)]
        wanted += key
        tone = _tone(key, length_ms, random.uniform(-25, -3), random, snr_db=snr_db)
        parts += [tone, np.zeros(round(max(length_ms, 40) * 8 + random.integers(80)))]
    found = "".join(each["digit"] for each in _presses(_mulaw(np.concatenate(parts))))
    if found == wanted:
        return 100.0
    at = 0
    for key in found:  # each of those found has to be the next or a later one of those pressed
        at = wanted.find(key, at) + 1
        if not at:
            return float("nan")
    return 100 * len(found) / len(wanted)


def _tone(
    key: str,
    length_ms: float,
    level_dbm0: float,
    random: np.random.Generator,
    *,
    snr_db: float | None = None,
) -> NDArray[np.float64]:
    """Return a key's tones: up to 6 dB of twist and 1.5 % off, noise below the weaker one."""
    low, high = LOW_HZ[KEYS.index(key) // 4], HIGH_HZ[KEYS.index(key) % 4]
    at_s = np.arange(round(length_ms * 8)) / RATE_HZ
    stronger = 32124 * 10 ** ((level_dbm0 - 3.17) / 20)
    amplitudes = [stronger, stronger * 10 ** (-random.uniform(0, 6) / 20)]
    random.shuffle(amplitudes)
    off = random.uniform(-0.015, 0.015, 2)
    phase = random.uniform(0, 2 * np.pi, 2)
    made: NDArray[np.float64] = sum(
        amplitude * np.sin(2 * np.pi * hz * (1 + by) * at_s + begin)
        for amplitude, hz, by, begin in zip(amplitudes, (low, high), off, phase, strict=True)
    )
    if snr_db is not None:
        weaker = min(amplitudes) / np.sqrt(2)
        made = made + random.normal(0, weaker / 10 ** (snr_db / 20), len(made))
    return made


def _mulaw(samples: NDArray[np.float64]) -> NDArray[np.uint8]:
    whole = np.pad(samples, (0, -len(samples) % FRAME + 10 * FRAME))
    pcm = np.clip(np.rint(whole), -32768, 32767).astype(np.int16)
    codes: NDArray[np.uint8] = encode(PCMU, pcm[None])[0]
    return codes.reshape(-1, FRAME)


def _presses(frames: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Return what the sink `dtmf` tells of them."""
    listener = _Listener()
    _hear(_packets(np.ascontiguousarray(frames)), {"dtmf": DtmfSink(), "listener": listener})
    return [dict(event.data) for event in listener.events if event.kind == "dtmf"]


def speech(figure: Figure) -> list[str]:
    """Show a voice in growing noise, its power, the noise floor, and what is speech."""
    voice = PCMU.table[load_voice("caller")][: 20 * RATE_HZ].astype(float)
    level_dbfs = np.interp(np.arange(len(voice)) / RATE_HZ, (0, 8, 14, 20), (-72, -72, -52, -52))
    noise = np.random.default_rng(3).normal(0, 1, len(voice))
    frames = _mulaw(voice + noise * 32768 * 10 ** (level_dbfs / 20))[: 20 * 50]
    pcm = PCMU.table[frames]
    _, power = measure(pcm)
    floor = NoiseFloor(4000)
    floor.ensure(1)
    row, floors = np.zeros(1, np.intp), []
    for k, each in enumerate(power):
        end = np.array([(k + 1) * FRAME])
        floors.append(float(floor.update(row, np.array([each]), end, RATE_HZ)[0]))
    listener = _Listener()
    _hear(_packets(np.ascontiguousarray(frames)), {"vad": VadSink(), "listener": listener})
    starts = [e.data["start_s"] for e in listener.events if e.kind == "speech_started"]
    ends = [e.data["end_s"] for e in listener.events if e.kind == "speech_stopped"]
    at_s = np.arange(len(pcm)) / 50
    wave, levels = figure.subplots(2, 1, sharex=True)
    wave.plot(np.arange(pcm.size) / RATE_HZ, pcm.ravel(), color=OURS, lw=0.3)
    wave.set_yticks([])
    wave.set_title(
        "a voice in growing noise; shaded: what is speech to vad", loc="left", fontsize=9.5
    )
    levels.plot(at_s, 10 * np.log10(np.maximum(power, 1e-9)), color=OURS, lw=0.8)
    levels.plot(at_s, 10 * np.log10(np.maximum(floors, 1e-9)), color=SERIES[2], lw=1.3)
    levels.set_title("its power in the band, and the noise floor", loc="left", fontsize=9.5)
    levels.set_ylabel("dBFS")
    levels.set_xlabel("s")
    for axes in (wave, levels):
        for start, end in zip(starts, ends, strict=False):
            axes.axvspan(start, end, color=SERIES[1], alpha=0.15, lw=0)
        plain(axes, grid="x")
    return [f"speech: {len(starts)} segments in {len(pcm) / 50:.0f} s"]


PICTURES: Mapping[str, tuple[Callable[[Figure], list[str]], tuple[float, float]]] = {
    "alignment": (alignment, (7.2, 2.7)),
    "concealment": (concealment, (7.2, 4.2)),
    "keys": (keys, (7.2, 4.4)),
    "speech": (speech, (7.2, 3.6)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="python -m bench.pictures", description="Draw the pictures of docs/audio.md."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("docs"), metavar="DIR", help="where to"
    )
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, inches) in PICTURES.items():
        with rc_context(STYLE):
            figure = Figure(figsize=inches, layout="constrained")
            said = draw(figure)
            drawn = BytesIO()
            figure.savefig(drawn, dpi=PICTURE_DPI)
        small = (
            Image.open(drawn)
            .convert("RGB")
            .quantize(255, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        )
        small.save(folder / f"{name}.png", optimize=True)
        print("\n".join(said))


if __name__ == "__main__":
    main()
