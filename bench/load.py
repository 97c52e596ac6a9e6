"""The load generator: call audio over UDP, faster than a receiver can take it.

    python -m bench.load --to 127.0.0.1:9000 --tracks 4000 --seconds 10

Runs as a process of its own. Packets are written in NumPy, many at once, and sent by an absolute
schedule: short sleeps, then what is due, at most a millisecond's worth per burst. At the end one
JSON object on standard output says what was sent, how fast, how late and with which errors. It
gives up when it needs twice the planned time, and refuses to send to another machine unless told
that this is meant.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import numpy as np

from bench.arguments import Parser, between
from bench.sending import SEGMENTS, Method, Sender, is_loopback
from bench.traffic import REAL_TIME_PPS, SLAB_PACKETS, PacketWriter, Traffic, Wrapping, schedule
from strep.specs import ConfigError, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.traffic import Slab

BURST_NS = 1_000_000
"""Bursts leave on a grid of this period, and none has more than what is due in one."""
OVERTIME, LEAST_OVERTIME_NS = 2.0, 1_000_000_000
"""A sender that cannot keep up gives up after so many times the planned time."""
MOST_PACKETS = 10**12
MOST_PORT = 65_535


@dataclass(slots=True)
class Pace:
    """When bursts left."""

    packets: int = 0
    gave_up: bool = False
    first_ns: int = 0
    last_ns: int = 0
    late_ns: list[int] = field(default_factory=list)
    """For each burst, how long after its time its first packet left."""

    def as_dict(self) -> dict[str, float]:
        """Return seconds, the rate between the first and the last burst, and lateness."""
        seconds = (self.last_ns - self.first_ns) / 1e9
        late_ms = np.array(self.late_ns or [0]) / 1e6
        return {
            "seconds": round(seconds, 6),
            "rate_pps": round(self.packets / seconds, 1) if seconds else 0.0,
            "late_p50_ms": round(float(np.percentile(late_ms, 50)), 3),
            "late_p99_ms": round(float(np.percentile(late_ms, 99)), 3),
            "late_max_ms": round(float(late_ms.max()), 3),
        }


def pace(
    slabs: Iterable[Slab],
    send: Callable[[Slab, int, int], None],
    *,
    max_burst: int,
    give_up_ns: float = math.inf,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    sleep_s: Callable[[float], None] = time.sleep,
) -> Pace:
    """Send each packet at the first step of the grid at or after its time.

    `send(slab, first, stop)` sends packets of a slab, at most `max_burst`. What is overdue goes
    out without a pause, so that the whole stays on its schedule; after `give_up_ns` from the
    start nothing does.
    """
    done = Pace()
    start_ns = wake_ns = 0
    for slab in slabs:
        # the clock begins when the first packets are ready, not when they began to be made
        start_ns = start_ns or clock_ns()
        due_ns, first, count = slab.due_ns, 0, len(slab.index)
        while first < count:
            elapsed_ns = clock_ns() - start_ns
            if elapsed_ns > give_up_ns:
                done.gave_up = True
                return done
            if elapsed_ns < wake_ns:
                sleep_s((wake_ns - elapsed_ns) / 1e9)
                continue
            stop = int(due_ns.searchsorted(elapsed_ns, "right"))
            if stop > first + max_burst:
                stop = first + max_burst
            elif stop < count:
                # nothing is overdue: on at the step of the grid where something is
                wake_ns = -(-max(int(due_ns[stop]), elapsed_ns + 1) // BURST_NS) * BURST_NS
            if stop == first:
                continue
            if not done.packets:
                done.first_ns = elapsed_ns
            done.last_ns = elapsed_ns
            done.late_ns.append(elapsed_ns - int(due_ns[first]))
            send(slab, first, stop)
            done.packets += stop - first
            first = stop
    return done


def run(traffic: Traffic, sender: Sender, *, first: int = 0, packets: int) -> dict[str, Any]:
    """Send a stretch of a traffic and say what became of it.

    `first` and `packets` count all packets, those that the traffic loses included; `next` of the
    outcome is where the next stretch begins.
    """
    writer = PacketWriter(traffic)
    slab_bytes = np.empty((2 * SLAB_PACKETS, writer.datagram_bytes), np.uint8)
    sent, following = 0, first

    def written(slabs: Iterable[Slab]) -> Iterable[Slab]:
        nonlocal slab_bytes
        for slab in slabs:
            if len(slab.index) > len(slab_bytes):
                slab_bytes = np.empty((len(slab.index), writer.datagram_bytes), np.uint8)
            writer.write(slab.index, slab_bytes[: len(slab.index)])
            yield slab

    def send(slab: Slab, start: int, stop: int) -> None:
        nonlocal sent, following
        following = max(following, int(slab.index[start:stop].max()) + 1)
        ports = slab.index[start:stop] % traffic.tracks if len(sender.ports) > 1 else None
        sent += sender.send(slab_bytes[start:stop], ports)

    cpu_s = time.process_time()
    planned_ns = packets / traffic.total_pps * 1e9
    done = pace(
        written(schedule(traffic, first, first + packets)),
        send,
        max_burst=max(1, round(traffic.total_pps * BURST_NS / 1e9)),
        give_up_ns=planned_ns * OVERTIME + LEAST_OVERTIME_NS,
    )
    cpu_s = time.process_time() - cpu_s
    sender.close()
    return {
        "sent": sent,
        "left_out": 0 if done.gave_up else packets - done.packets,
        "unsent": packets - done.packets if done.gave_up else 0,
        "next": following if done.gave_up else first + packets,
        "errors": dict(sender.errors),
        "wanted_pps": round(traffic.total_pps, 1),
        **done.as_dict(),
        "cpu_s": round(cpu_s, 3),
        "method": sender.method,
    }


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        host, port = parse_address(arguments.to)
        traffic = Traffic(
            tracks=arguments.tracks,
            rate_pps=arguments.rate / arguments.tracks if arguments.rate else REAL_TIME_PPS,
            wrapping=arguments.wrapping,
            sides=arguments.sides,
            loss=arguments.loss,
            reorder=arguments.reorder,
            reorder_ms=arguments.reorder_ms,
            burst_ms=arguments.burst_ms,
            seed=arguments.seed,
            pause_samples=arguments.pause_samples,
        )
        if not arguments.anywhere and not is_loopback(host):
            parser.error(f"{host} is not on this machine; --anywhere sends there all the same")
        ports = [port]
        if arguments.port_step:
            ports = [port + arguments.port_step * track for track in range(traffic.tracks)]
            if ports[-1] > MOST_PORT:
                parser.error(f"the last track's port is {ports[-1]}, expected at most {MOST_PORT}")
        sender = Sender(host, ports, method=arguments.method, most_segments=arguments.most_segments)
        if arguments.cpu is not None:
            os.sched_setaffinity(0, {arguments.cpu})
    except (ConfigError, OSError, ValueError) as error:
        parser.error(str(error))
    packets = arguments.packets or max(1, round(traffic.total_pps * arguments.seconds))
    json.dump(run(traffic, sender, first=arguments.first, packets=packets), sys.stdout)
    print()
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bench.load",
        description="Send call audio over UDP at a constant rate, and say what was sent as JSON.",
        epilog="example:\n  python -m bench.load --to 127.0.0.1:9000 --tracks 4000 --seconds 10",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Traffic(tracks=1)
    add = parser.add_argument
    add("--to", required=True, metavar="HOST:PORT", help="where to send")
    add("--tracks", type=between(1, 1_000_000), required=True, metavar="N", help="how many tracks")
    add("--rate", type=between(0.001, 10_000_000.0), metavar="PPS",
        help="packets per second of all tracks (default 50 a track: real time)")  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=between(0.001, 86_400.0), default=10.0, metavar="S",
                        help="default 10")  # fmt: skip
    length.add_argument("--packets", type=between(1, MOST_PACKETS), metavar="N",
                        help="instead of a time")  # fmt: skip
    add("--first", type=between(0, MOST_PACKETS), default=0, metavar="N",
        help="number of the first packet: go on where an earlier run stopped")  # fmt: skip
    add("--rtp", dest="wrapping", action="store_const", const="rtp", default="strep",
        help=f"plain RTP (default: STREP; of {', '.join(get_args(Wrapping))})")  # fmt: skip
    add("--sides", type=int, choices=(1, 2, 4), default=usual.sides,
        help="tracks per call leg id (default 2: both directions)")  # fmt: skip
    add("--port-step", type=between(0, MOST_PORT), default=0, metavar="N",
        help="send track T to port PORT + N * T (default 0: all to one port)")  # fmt: skip
    add("--loss", type=float, default=0.0, metavar="P", help="fraction of packets left out")
    add("--reorder", type=float, default=0.0, metavar="P", help="fraction of packets held back")
    add("--reorder-ms", type=float, default=usual.reorder_ms, metavar="MS",
        help="how long (default 30)")  # fmt: skip
    add("--burst-ms", type=float, default=0.0, metavar="MS",
        help="send what is due within so long at once (default 0: do not)")  # fmt: skip
    add("--pause-samples", type=between(0, 2**32 - 1), default=0,
        help="silence before, told by timestamps")  # fmt: skip
    add("--seed", type=between(0, 2**32 - 1), default=usual.seed,
        help="of ids, voices, loss and order")  # fmt: skip
    add("--cpu", type=between(0, (os.cpu_count() or 1) - 1), metavar="N",
        help="run on this core only")  # fmt: skip
    add("--method", choices=get_args(Method), help="default: the fastest that there is")
    add("--most-segments", type=between(1, SEGMENTS), default=SEGMENTS, metavar="N",
        help="datagrams that leave together at most, by UDP_SEGMENT (default 64; 1 for a receiver "
             "of several workers, where what leaves together is steered together)")  # fmt: skip
    add("--anywhere", action="store_true", help="allow other machines than this one")
    return parser


if __name__ == "__main__":
    main()
