"""What arrives on real sockets equals what the log says was sent."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from strep.network import DelayTrace
from strep.simulator.audio import load_audio
from strep.simulator.expected import expected_audio
from strep.simulator.ledger import Fate, Ledger
from strep.simulator.media import Media, TrackPlan
from strep.simulator.scenario import Scenario
from strep.simulator.simulator import Clock
from strep.specs import Address
from strep.wire import Direction, Leg
from strep.wire.datagram import Datagram

VOICES = {
    Direction.INBOUND: load_audio("caller", Path()),
    Direction.OUTBOUND: load_audio("agent", Path()),
}
LEG_ID = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")


@pytest.fixture
def listener():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        yield udp


def received(udp):
    arrived = []
    with suppress(BlockingIOError):
        while True:
            arrived.append(udp.recv(2048))
    return arrived


def plan(to, *, direction=Direction.INBOUND, leg=Leg.A, is_strep=True, trace=None, **tables):
    return TrackPlan(
        call_control_id="v3:x", call_leg_id=LEG_ID, leg=leg, direction=direction,
        is_strep=is_strep, to=Address(*to), scenario=Scenario.model_validate(tables),
        audio=VOICES[direction], trace=trace, seed=(1, leg, direction), answered_s=0.0,
    )  # fmt: skip


class Studio:
    """Media and a hand on their clock, without an event loop."""

    def __init__(self, *, ledger=None):
        self.now_s = 0.0
        self.media = Media(lambda: self.now_s, speed=1.0, ledger=ledger or Ledger())

    def to(self, now_s):
        while self.now_s < now_s:
            self.now_s = min(self.now_s + 0.1, now_s)
            while self.media.step() == 0:
                pass

    def finish(self, numbers):
        """Stop tracks, send what is under way, and return the logs."""
        for number in numbers:
            self.media.stop(number)
        self.to(self.now_s + 10.0)
        assert self.media.step() is None
        self.media.close()
        return [self.media.log(number) for number in numbers]


def send(*plans, seconds=4.0, ledger=None):
    """Send tracks for so many seconds of the simulation; return the media and their logs."""
    studio = Studio(ledger=ledger)
    numbers = [studio.media.start(each) for each in plans]
    studio.to(seconds)
    return studio.media, studio.finish(numbers)


def contents(datagrams):
    """Count (sequence, timestamp, SSRC, payload type, payload) of datagrams."""
    parsed = [Datagram.parse(datagram) for datagram in datagrams]
    return Counter(
        (d.rtp.sequence, d.rtp.timestamp, d.rtp.ssrc, d.rtp.payload_type, bytes(d.payload))
        for d in parsed
    )


def logged(log):
    """Count the same of what a log says was sent."""
    fields = ("sequence", "timestamp", "ssrc", "payload_type")
    columns = [log.columns[name].tolist() for name in fields]
    rows = zip(*columns, log.payloads, log.columns["copies"].tolist(), strict=True)
    return Counter({tuple(row[:5]): row[5] for row in rows if row[5]})


def test_every_packet_of_the_log_arrives_and_no_other(listener):
    media, (log,) = send(plan(listener.getsockname()))
    arrived = received(listener)
    assert contents(arrived) == logged(log)
    assert len(arrived) == media.datagrams == log.counts()["sent"]
    assert len(arrived) == 200
    assert set(log.columns["fate"].tolist()) == {Fate.SENT}
    assert not log.running


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("leg", Leg)
def test_strep_header_names_call_leg_and_direction(listener, leg, direction):
    send(plan(listener.getsockname(), leg=leg, direction=direction), seconds=0.2)
    header = Datagram.parse(received(listener)[0]).strep
    assert (header.call_leg_id, header.leg, header.direction) == (LEG_ID, leg, direction)


def test_plain_rtp_has_no_header(listener):
    _, (log,) = send(plan(listener.getsockname(), is_strep=False), seconds=0.2)
    arrived = received(listener)
    assert {len(datagram) for datagram in arrived} == {172}
    assert log.wrapping == "rtp"
    assert contents(arrived) == logged(log)


def test_impaired_media_arrive_as_the_log_says(listener):
    _, (log,) = send(
        plan(
            listener.getsockname(),
            direction=Direction.OUTBOUND,
            network={"loss": 0.1, "loss_burst_packets": 2, "duplicate": 0.1, "reorder": 0.1},
            audio={"silence_suppression": True},
            event=[
                {"kind": "reinvite", "at_s": 1.0},
                {"kind": "hold", "at_s": 1.5, "for_s": 0.5},
                {"kind": "codec", "at_s": 2.5, "codec": "PCMA"},
            ],
        ),
        seconds=10.0,
    )
    arrived = received(listener)
    assert contents(arrived) == logged(log)
    counts = log.counts()
    assert counts["lost"] > 2
    assert counts["datagrams"] > counts["sent"]
    assert {d.rtp.payload_type for d in map(Datagram.parse, arrived)} == {0, 8}


def test_telephone_events_are_short(listener):
    digits = {"kind": "digits", "at_s": 1.0, "digits": "12"}
    _, (log,) = send(plan(listener.getsockname(), event=[digits]))
    arrived = received(listener)
    assert contents(arrived) == logged(log)
    assert Counter(len(datagram) for datagram in arrived)[24 + 12 + 4] == 14
    assert {len(datagram) for datagram in arrived} == {24 + 12 + 4, 24 + 12 + 160}


def test_expected_audio_is_the_source_s_own(listener):
    _, (log,) = send(plan(listener.getsockname()))
    (piece,) = expected_audio(log).pieces
    own = expected_audio(log).pcm
    codes = VOICES[Direction.INBOUND].frames(0, 160)[: len(own) // 160].ravel()
    assert np.array_equal(piece.pcm, own)
    assert b"".join(log.payloads) == codes.tobytes()


def test_lost_packets_are_silence_in_the_expected_audio(listener):
    _, (log,) = send(plan(listener.getsockname(), network={"loss": 0.2}))
    (piece,) = expected_audio(log).pieces
    frames = piece.pcm[: len(piece.pcm) // 160 * 160].reshape(-1, 160)
    lost = log.columns["fate"][: len(frames)] == Fate.LOST
    assert lost.sum() > 10
    assert not frames[lost].any()


def test_tracks_share_one_sender(listener):
    to = listener.getsockname()
    sides = [plan(to, leg=leg, direction=direction) for leg in Leg for direction in Direction]
    media, logs = send(*sides, seconds=2.0)
    arrived = received(listener)
    assert contents(arrived) == sum(map(logged, logs), Counter())
    assert media.datagrams == len(arrived)
    assert [log.track for log in logs] == [1, 2, 3, 4]


def test_packets_leave_when_they_are_due_and_never_before(listener):
    async def run():
        clock = Clock(speed=2.0)
        media = Media(clock.now_s, speed=2.0, ledger=Ledger())
        running = asyncio.create_task(media.run())
        number = media.start(plan(listener.getsockname()))
        asyncio.get_running_loop().call_later(0.3, media.stop, number)
        await media.drain()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        log = media.log(number)
        due_s = np.array([clock.wall(s).timestamp() for s in log.columns["made_s"].tolist()])
        return log.columns["sent_unix_ns"] / 1e9 - due_s

    late_s = asyncio.run(run())
    assert len(late_s) >= 20
    assert late_s.min() > -0.002  # two clocks are read one after the other
    assert np.median(late_s) < 0.1


def test_delay_and_trace_move_packets_and_keep_their_order(listener):
    trace = DelayTrace(np.array([0.0, 0.5, 0.1]), np.array([False, False, True]))
    to = listener.getsockname()
    _, (log,) = send(plan(to, trace=trace, network={"delay_ms": 100}), seconds=2.0)
    arrived = [Datagram.parse(datagram).rtp.sequence for datagram in received(listener)]
    assert arrived == log.columns["sequence"][log.columns["fate"] == Fate.SENT].tolist()
    fates = log.columns["fate"][3:9].tolist()
    assert fates == [Fate.SENT, Fate.SENT, Fate.LOST] * 2


def test_stopped_track_makes_nothing_more(listener):
    studio = Studio()
    number = studio.media.start(plan(listener.getsockname(), network={"delay_ms": 500}))
    studio.to(1.0)
    assert studio.media.running == 1
    before = len(received(listener))
    assert 20 <= before <= 30
    (log,) = studio.finish([number])
    assert studio.media.running == 0
    assert 0.97 < log.columns["made_s"].max() < 1.0
    # what was under way has arrived
    assert set(log.columns["fate"].tolist()) == {Fate.SENT}
    assert before + len(received(listener)) == len(log.columns) == 50


def test_running_track_has_packets_whose_time_has_not_come(listener):
    studio = Studio()
    number = studio.media.start(plan(listener.getsockname()))
    studio.to(0.1)
    log = studio.media.log(number)
    assert log.running
    assert log.counts()["sent"] == 5
    assert log.counts()["pending"] > 5
    studio.finish([number])


def test_track_that_begins_later_goes_on_with_the_call_s_stream(listener):
    studio = Studio()
    logs = []
    for end_s in (1.0, 13.0):
        number = studio.media.start(plan(listener.getsockname()))
        studio.to(end_s)
        logs += studio.finish([number])
    first, second = logs
    assert set(first.columns["ssrc"].tolist()) == set(second.columns["ssrc"].tolist())
    for name, step in (("sequence", 1), ("timestamp", 160)):
        begins = [int(log.columns[name][0]) for log in logs]
        # the second began ten seconds, which all in the air was given, behind the end of the first
        modulus = 2**16 if name == "sequence" else 2**32
        assert (begins[1] - begins[0]) % modulus == 550 * step


def test_oldest_tracks_that_are_over_are_forgotten(listener, monkeypatch):
    monkeypatch.setattr("strep.simulator.media.MOST_TRACKS", 2)
    studio = Studio()
    first, second = (studio.media.start(plan(listener.getsockname())) for _ in range(2))
    studio.media.stop(second)
    third = studio.media.start(plan(listener.getsockname()))
    assert studio.media.numbers() == [first, third]
    with pytest.raises(KeyError):
        studio.media.log(second)
    studio.finish([first, third])


def test_address_that_cannot_be_sent_to_fails_and_is_counted(caplog):
    media, (log,) = send(plan(("127.0.0.1", 0)), seconds=0.2)
    assert media.failed == len(log.columns) > 5
    assert set(log.columns["fate"].tolist()) == {Fate.FAILED}
    assert caplog.text.count("media cannot be sent to 127.0.0.1:0") == 1


def test_log_of_a_long_track_says_what_it_has_forgotten(listener):
    _, (log,) = send(plan(listener.getsockname()), seconds=20.0, ledger=Ledger(most_rows=300))
    assert log.forgotten > 600
    with pytest.raises(ValueError, match=r"track 1 has forgotten its first \d+ packets"):
        expected_audio(log)
