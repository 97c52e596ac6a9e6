from __future__ import annotations

import numpy as np
import pytest

from bench.peers.datagrams import DatagramReceiver, ThoroughReceiver
from bench.traffic import PacketWriter, Traffic

TRAFFIC = Traffic(tracks=2, seed=4)


def datagrams(count):
    writer = PacketWriter(TRAFFIC)
    out = np.empty((count, writer.datagram_bytes), np.uint8)
    writer.write(np.arange(count), out)
    return [bytes(row) for row in out]


@pytest.fixture(params=[DatagramReceiver, ThoroughReceiver])
def receiver(request):
    return request.param()


def take(receiver, packets):
    for packet in packets:
        receiver.datagram_received(packet, None)
    return receiver.totals()


def test_every_packet_in_order_is_released(receiver):
    assert take(receiver, datagrams(100)) == {
        "packets": 100, "lost": 0, "late": 0, "malformed": 0,
    }  # fmt: skip


def test_packets_out_of_order_are_put_in_order(receiver):
    sent = datagrams(12)
    sent[2], sent[6] = sent[6], sent[2]
    assert take(receiver, sent)["packets"] == 12


def test_hole_is_given_up_and_what_was_behind_it_released(receiver):
    sent = datagrams(12)
    del sent[4]
    assert take(receiver, sent)["packets"] == 6 + 2
    (waiting,) = receiver._waiting
    assert not waiting.give_up(before=float("inf"))
    assert receiver.totals() == {"packets": 11, "lost": 1, "late": 0, "malformed": 0}


def test_packet_after_its_time_is_late(receiver):
    sent = datagrams(4)
    assert take(receiver, [*sent, sent[0]])["late"] == 1


def test_what_is_no_strep_is_counted(receiver):
    assert take(receiver, [b"", bytes(100), datagrams(1)[0][24:]])["malformed"] == 3


def test_thorough_receiver_finds_the_speech():
    receiver = ThoroughReceiver()
    take(receiver, datagrams(2 * 1094))
    for track in receiver._tracks.values():
        assert track.position == 1094 * 160
        spoken = sum(end - start for start, end in track.segments)
        assert 0.2 < spoken / track.position < 0.9
