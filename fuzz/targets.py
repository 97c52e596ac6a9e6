"""The targets: functions of bytes that raise where something is wrong.

Each reads its input as a little program (which packet, which bytes of it changed, how much time
passes), so that most mutations of an input reach further than the first check of a parser.
"""

from __future__ import annotations

import json
import tempfile
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jittermodel import ModelTrack, Packet
from packetmaker import MS, P, columns
from wirecases import (
    BINDING_REQUEST,
    CASES,
    CLIENT_HELLO,
    GOODBYE,
    SENDER_REPORT,
    SPEECH,
    columnar,
    parsed_batch,
    rtp,
    scalar,
    strep,
)

import strep_kernel
from pipeline.dispatch import Dispatcher
from pipeline.jitter import JitterBank
from pipeline.sinks.base import Sink
from strep.config import load
from strep.control.calls import Calls, moment_ns
from strep.control.events import CallEvent
from strep.control.webhooks import WebhookReceiver
from strep.receive.admission import Admission
from strep.receive.capture import CaptureError, CaptureReader
from strep.receive.gate import GateSettings
from strep.receive.receiver import Binding, Receiver
from strep.specs import ConfigError
from strep.wire import DropReason, Endpoint, PacketBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pipeline.block import AudioBlock
    from pipeline.packets import Released

TEMPLATES = (
    strep(rtp(SPEECH)),
    rtp(SPEECH),
    strep(rtp(SPEECH, extension=(0xBEDE, bytes(8)), csrcs=(1, 2), padding=b"\0\2")),
    strep(rtp(SPEECH * 3, extension=(1, bytes(4))), extra=b"\x11\x22\x33\x44"),
    strep(GOODBYE),
    SENDER_REPORT,
    BINDING_REQUEST,
    CLIENT_HELLO,
    *(case.datagram for case in CASES),
)
"""Datagrams to begin with."""
SLOT_BYTES = 512
MAX_DATAGRAMS = 64
MAX_STEPS = 200
MAX_CALLS = 24
"""Steps of the whole way of a packet, of which each may be a batch."""


class Tape:
    """Bytes that are read from the front, and zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """Return the next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def word(self) -> int:
        """Return the next two bytes as a number."""
        return self.byte() << 8 | self.byte()

    def take(self, size: int) -> bytes:
        """Return so many bytes, or as many as are left."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def datagram(self) -> bytes:
        """Return a datagram: one of the templates with a few bytes changed, cut or lengthened."""
        which = self.byte()
        if which == 0xFF:
            return self.take(self.byte())
        datagram = bytearray(TEMPLATES[which % len(TEMPLATES)])
        how = self.byte()
        for _ in range(how & 0b111):
            at = self.byte()
            if at < len(datagram):
                datagram[at] = self.byte()
        if how & 0b1000:
            del datagram[self.byte() :]
        if how & 0b10000:
            datagram += bytes(self.word() % (SLOT_BYTES + 16))
        return bytes(datagram)


def wire(data: bytes) -> None:
    """Parse a batch of datagrams in columns, compiled and in NumPy, and one by one."""
    tape = Tape(data)
    datagrams: list[tuple[bytes, int | None]] = []
    while tape and len(datagrams) < MAX_DATAGRAMS:
        datagram = tape.datagram()
        is_cut = tape.byte() == 1
        datagrams.append((datagram, len(datagram) + tape.byte() if is_cut else None))
    expected = [
        scalar(datagram[:SLOT_BYTES], len(datagram) if length is None else length)
        for datagram, length in datagrams
    ]
    for _ in both_ways():
        found = columnar(parsed_batch(datagrams, slot_bytes=SLOT_BYTES))
        assert found == expected, (datagrams, found, expected)


def jitter(data: bytes) -> None:
    """Push packets and steps of the clock into the jitter bank, and into a plain model of it."""
    tape = Tape(data)
    pair = _BankAndModel(tape)
    for _ in range(MAX_STEPS):
        if not tape:
            break
        kind = tape.byte()
        if kind < 32:
            pair.tick(tape.byte() * 10)
        elif kind < 40:
            pair.reopen(kind % 3, tape.word())
        else:
            pair.push(1 + kind % 8, tape)
        pair.compare_counters()


class _BankAndModel:
    """A jitter bank of three tracks, and a model of each."""

    def __init__(self, tape: Tape) -> None:
        self.bank = JitterBank(reorder_ms=(0, 20, 60, 2000)[tape.byte() % 4])
        self.models: dict[int, ModelTrack] = {}
        self.now_ms = 1000
        for row in range(3):
            self.open(row, tape.word())

    def open(self, row: int, sequence: int) -> None:
        first = Packet(1, sequence, 0, b"")
        self.bank.open(row, ssrc=1, sequence=sequence)
        self.models[row] = ModelTrack.begin(first, self.bank.reorder_ns)

    def tick(self, wait_ms: int) -> None:
        self.now_ms += wait_ms
        released = _flat(self.bank.tick(self.now_ms * MS))
        for model in self.models.values():
            model.tick(self.now_ms * MS)
        self.compare(released)

    def reopen(self, row: int, sequence: int) -> None:
        released = _flat(self.bank.close(row))
        self.models[row].close()
        self.compare(released)
        self.open(row, sequence)

    def push(self, count: int, tape: Tape) -> None:
        """Push so many packets in one batch."""
        batch = []
        due = {row: model.due for row, model in self.models.items()}
        for serial in range(count):
            row, how = divmod(tape.byte() % 96, 32)
            step = _step(how, tape)
            self.now_ms += tape.byte() % 80
            sequence, ssrc = (due[row] + step) & 0xFFFF, 2 if how == 31 else 1
            batch.append(P(row, sequence, self.now_ms, ssrc, payload=bytes([serial])))
            due[row] += step == 0
        released: list[_Out] = []
        for part in columns(batch).rounds(np.zeros(self.bank.rows, np.intp)):
            released += _flat(self.bank.push(part)[1])
        for p in batch:
            self.models[p.row].push(Packet(p.ssrc, p.sequence, p.arrival_ns, p.payload))
        self.compare(released)

    def compare(self, released: list[_Out]) -> None:
        """Hold the bank against the models: the same packets in the same order."""
        for row, model in self.models.items():
            found = [out for out in released if out[0] == row]
            expected = [
                (row, packet.sequence, packet.payload, lost, restarted)
                for packet, lost, restarted in model.out
            ]
            model.out.clear()
            assert found == expected, (found, expected)

    def compare_counters(self) -> None:
        for row, model in self.models.items():
            for name in ("lost", "late", "duplicate", "reordered", "resets"):
                found = int(getattr(self.bank, name)[row])
                assert found == getattr(model, name), (name, row, found)
        assert self.bank.held == sum(len(model.held) for model in self.models.values())


_Out = tuple[int, int, bytes, int, bool]
"""Row, sequence number, payload, packets lost before it, whether it restarts the sequence."""


def _flat(released: list[Released]) -> list[_Out]:
    """Return copies of what the bank released, which is valid until its next call."""
    out = []
    for part in released:
        packets = part.packets
        for i, row in enumerate(packets.rows.tolist()):
            lost = 0 if part.lost is None else int(part.lost[i])
            start = int(packets.offset[i])
            payload = packets.store[packets.slot[i], start : start + int(packets.length[i])]
            out.append((row, int(packets.sequence[i]), payload.tobytes(), lost, part.restarted))
    return out


def _step(how: int, tape: Tape) -> int:
    """Return how far a packet is from the one that is due: usually not at all."""
    if how < 16:
        return 0
    if how < 24:
        return how - 20
    return tape.word() - 0x8000


class _Listener(Sink):
    """Takes audio as all sinks do, and checks what every one may rely on."""

    threaded = False

    def __init__(self) -> None:
        self.samples = 0

    def write(self, block: AudioBlock) -> None:
        rows, samples = block.pcm.shape
        assert rows == len(block.rows) == len(set(block.rows.tolist()))
        self.samples += rows * samples


BOUND = Endpoint.of("192.0.2.1", 4000)
SOURCES = (BOUND, Endpoint.of("2001:db8::1", 4000), Endpoint.of("192.0.2.2", 4002))

_ALLOWED = (ip_network("192.0.2.1/32"), ip_network("2001:db8::/32"))


def path(data: bytes) -> None:
    """Send datagrams and time down the whole way of a packet; none may be lost sight of."""
    for _ in both_ways():
        _path(Tape(data))


def _receiver(options: int) -> Receiver:
    """Return a receiver that is small, so that its bounds are soon met."""
    admission = Admission(wait_s=1, max_legs=3, max_datagrams=4) if options & 1 else None
    gate = GateSettings(allowed_sources=_ALLOWED, burst_tracks=4) if options & 2 else None
    dispatcher = Dispatcher({"listener": _Listener()})
    return Receiver(dispatcher, max_tracks=8, idle_timeout_s=2, admission=admission, gate=gate)


def _path(tape: Tape) -> None:
    receiver = _receiver(tape.byte())
    batch = PacketBatch(32, SLOT_BYTES)
    now_ms = 1000
    binding = receiver.bind(Binding(legs()[0]))
    for _ in range(MAX_CALLS):
        if not tape:
            break
        kind = tape.byte()
        if kind < 200:
            batch.clear()
            for _ in range(1 + kind % 16):
                now_ms += tape.byte() % 50
                source = SOURCES[tape.byte() % len(SOURCES)].pack()
                batch.add(tape.datagram(), now_ms * MS, source, BOUND.pack())
            batch.binding[: batch.count] = binding if kind % 5 == 0 else 0
            receiver.receive(batch)
            batch.buffer[:] = 0xA5
        elif kind < 230:
            now_ms += tape.byte() * 20
            receiver.tick(now_ms * MS)
        elif kind < 240:
            receiver.admit(legs()[kind % 2])
        elif kind < 245:
            receiver.close_call(legs()[kind % 2])
        elif kind == 245:
            receiver.take_no_new()
        elif kind == 246:
            receiver.set_admission(None)
            receiver.set_gate(GateSettings(source_timeout_s=0.1))
        assert receiver.read == sum(receiver.datagrams.values())
    receiver.stop()
    assert receiver.read == sum(receiver.datagrams.values())
    counters = receiver.pipeline.counters()
    assert counters.packets == counters.released + counters.late + counters.duplicate
    assert receiver.datagrams[DropReason.ACCEPTED.label] == counters.packets


def legs() -> list[Any]:
    """Return the call legs that templates have."""
    batch = parsed_batch([(strep(rtp(SPEECH)), None)])
    leg = batch.leg_id(0)
    return [leg, type(leg)(int=leg.int ^ 1)]


def capture(data: bytes) -> None:
    """Read a capture file; what is wrong with it is one error, or said and counted."""
    with tempfile.NamedTemporaryFile(prefix="strep-fuzz-") as file:
        file.write(data)
        file.flush()
        batch = PacketBatch(64, SLOT_BYTES)
        try:
            with CaptureReader(Path(file.name)) as reader:
                while reader.read(batch):
                    batch.parse()
                assert reader.exhausted
                assert reader.progress == 1.0
        except CaptureError as error:
            _check_sentence(error)


def webhooks(data: bytes) -> None:
    """Take a webhook in, as from anybody and as from the carrier, and what follows from it."""
    tape = Tape(data)
    how = tape.byte()
    heard: list[Any] = []
    if how & 1:
        receiver = WebhookReceiver(heard.append, public_key=_PUBLIC_KEY)
        signature = tape.take(tape.byte()).decode("latin-1")
        timestamp = tape.take(tape.byte() % 32).decode("latin-1")
        answer = receiver.receive(tape.take(len(data)), signature, timestamp, 1_700_000_000)
        assert answer.status != 200, "nobody can sign without the key"
        return
    body = tape.take(len(data))
    receiver = WebhookReceiver(heard.append, public_key=None, allow_unsigned=True)
    answer = receiver.receive(body, None, None, 1_700_000_000)
    assert answer.status in {200, 400, 413}
    assert sum(receiver.counts.values()) == 1
    json.loads(answer.body or b"{}")
    for event in receiver._queue:  # noqa: SLF001 -- without an event loop
        if isinstance(event, CallEvent):
            calls = Calls(pending_ns=10**9)
            call = calls.told(event, 10**18)
            moment_ns(event.occurred_at, 10**18)
            json.dumps(call.facts())
            calls.tick(2 * 10**18)


_PUBLIC_KEY = "YKJ3TjuMRTE0+NXBO7bP/N9RbwOf/1tQnBThgedORiE="


class _File:
    """A settings file that is nowhere."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_bytes(self) -> bytes:
        """Return what is in it."""
        return self._content

    def __str__(self) -> str:
        return "strep.toml"


def configuration(data: bytes) -> None:
    """Load settings; they are right and can be written and read back, or it is one sentence."""
    if data[:1] == b"\0":
        variables = {}
        for item in data[1:].decode("utf-8", "surrogateescape").split("\0"):
            key, _, value = item.partition("=")
            variables[f"STREP_{key}"] = value
        file = None
    else:
        variables, file = {}, _File(data)
    try:
        settings = load(file, variables, {})  # type: ignore[arg-type]
    except ConfigError as error:
        _check_sentence(error)
        return
    again = load(_File(settings.as_toml().encode()), {}, {})  # type: ignore[arg-type]
    assert again == settings


def _check_sentence(error: Exception) -> None:
    """Hold that what people are told is one line."""
    assert "\n" not in str(error), str(error)


def both_ways() -> Iterator[None]:
    """Go through the ways of the hot loops: compiled, where it is, and in NumPy."""
    compiled = strep_kernel._compiled  # noqa: SLF001
    try:
        if compiled is not None:
            yield
        strep_kernel._compiled = None  # noqa: SLF001
        yield
    finally:
        strep_kernel._compiled = compiled  # noqa: SLF001


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "wire": wire,
        "jitter": jitter,
        "path": path,
        "capture": capture,
        "webhooks": webhooks,
        "configuration": configuration,
    }
)
