"""Processes that are killed or suspended, and a network that stalls."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from faults.calls import RATE_HZ, Calls, channels, files_of, find, not_exact, whole_frames
from faults.outcome import Outcome
from faults.service import Service
from strep.config import DATABASE
from strep.receive.steering import worker_of

if TYPE_CHECKING:
    from pathlib import Path

    from faults.outcome import Say

FLUSH_S = 1.0
"""The sink's default: how long audio waits in memory."""
MARGIN_S = 0.5
"""For the sink's own clock of 0.1 s, and for a busy machine."""
FRAME_S = 0.02
FREEZE_S = 10.0


def kill_daemon(folder: Path, times: int, say: Say) -> Outcome:
    """Kill the daemon at random moments under load; read what it left."""
    choose, wrong, worst_s, files = random.Random(1), [], 0.0, 0  # noqa: S311 -- no secret
    bound_s = FLUSH_S + MARGIN_S
    for number in range(times):
        say(f"{number} of {times} kills, at most {worst_s:.2f} s lost")
        with Service(folder) as service, Calls(service.to, 20, seed=number + 1) as calls:
            time.sleep(choose.uniform(0.3, 3.5 if times > 10 else 2.0))
            killed_ns = time.monotonic_ns()
            service.kill()
        due_ns = killed_ns - round(bound_s * 1e9)
        for call, leg in enumerate(calls.legs):
            found = files_of(folder, leg)
            files += len(found)
            if not found:
                if calls.sent_of(2 * call, due_ns):
                    wrong.append(f"kill {number}: call {call} has no file")
                continue
            try:
                sides = channels(found[-1])
            except (OSError, RuntimeError, ValueError) as error:
                wrong.append(f"kill {number}: {error}")
                continue
            for side, channel in enumerate(sides):
                track = 2 * call + side
                sent, due = calls.sent_of(track, killed_ns), calls.sent_of(track, due_ns)
                frames = max(0, whole_frames(channel, calls.speech(track, sent), due))
                lost_s = (sent - frames) * FRAME_S
                worst_s = max(worst_s, lost_s)
                if frames < due:
                    wrong.append(f"kill {number}: call {call} side {side} lacks {lost_s:.2f} s")
    return Outcome(
        "SIGKILL to the daemon at random moments, 20 calls running",
        times,
        f"at most {worst_s:.2f} s at the end of a track; {files} files, all of them open",
        f"flush_s + {MARGIN_S} s = {bound_s} s; every file opens",
        wrong,
        {"worst_s": round(worst_s, 3), "files": files},
    )


def repair(folder: Path, times: int, say: Say) -> Outcome:
    """Kill the daemon and start it again: what it left is finished, and in the call list."""
    choose, wrong, files = random.Random(2), [], 0  # noqa: S311 -- no secret
    for number in range(times):
        say(f"{number} of {times} repairs")
        with Service(folder) as service, Calls(service.to, 20, seed=1000 + number) as calls:
            time.sleep(choose.uniform(1.5, 3.0))
            service.kill()
        left = [path for leg in calls.legs for path in files_of(folder, leg)]
        if not any(path.suffix == ".part" for path in left):
            wrong.append(f"kill {number}: nothing was left to be repaired")
        with Service(folder) as service:
            if not service.wait_until(lambda: not any(folder.glob("*.part"))):
                names = ", ".join(path.name for path in folder.glob("*.part"))
                wrong.append(f"kill {number}: not finished: {names}")
            service.stop()
        listed = _listed(folder / DATABASE)
        for call, leg in enumerate(calls.legs):
            found = files_of(folder, leg)
            files += len(found)
            of_call = f"kill {number}: call {call}"
            if len(found) != 1 or found[0].suffix != ".wav":
                wrong.append(f"{of_call} has {len(found)} files, expected a finished one")
                continue
            if not len(channels(found[0])[0]):
                wrong.append(f"{of_call} is empty")
            expected = {("inbound", found[0].name, "interrupted")}
            expected |= {("outbound", found[0].name, "interrupted")}
            if listed.get(str(leg)) != expected:
                wrong.append(f"{of_call} is in the call list as {listed.get(str(leg))}")
    return Outcome(
        "SIGKILL to the daemon with 20 calls, and another start in the same folder",
        times,
        f"nothing that was written: {files} files finished, and in the call list as interrupted"
        if not wrong
        else f"{len(wrong)} things",
        "every .part is finished and in the call list with its reason",
        wrong,
    )


def _listed(database: Path) -> dict[str, set[tuple[str, str, str]]]:
    """Return direction, file and reason of each track in the call list, by call leg."""
    found: dict[str, set[tuple[str, str, str]]] = {}
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT call_leg_id, direction, recording, reason FROM tracks")
        for leg, direction, recording, reason in rows:
            name = str(recording).rpartition("/")[2]
            found.setdefault(leg, set()).add((direction, name, str(reason)))
    return found


def kill_worker(folder: Path, times: int, say: Say) -> Outcome:
    """Kill one of two workers again and again: calls of the other do not notice."""
    bound_s = FLUSH_S + MARGIN_S
    wrong: list[str] = []
    missing_s = 0.0
    with Service(folder, "--workers", "2") as service, Calls(service.to, 40) as calls:
        theirs = [i for i, leg in enumerate(calls.legs) if worker_of(leg, 2) == 0]
        others = [i for i in range(len(calls.legs)) if i not in theirs]
        time.sleep(1.0)
        for number in range(times):
            say(f"{number} of {times} kills")
            time.sleep(2.0)
            victim = service.workers()[0]
            os.kill(victim, signal.SIGKILL)
            if not service.wait_until(partial(_is_replaced, service, victim)):
                wrong.append(f"kill {number}: no other worker took its place")
        time.sleep(1.0)
        calls.stop()
        time.sleep(0.5)
        restarts = service.sum_of("strep_worker_restarts_total")
        service.stop()
    if restarts != times:
        wrong.append(f"{restarts:.0f} restarts were counted, expected {times}")
    wrong += not_exact(calls, folder, others)
    for call in theirs:
        found = sum(_seconds(channels(path)) for path in files_of(folder, calls.legs[call]))
        sent_s = calls.sent_of(2 * call) * FRAME_S
        missing_s = max(missing_s, (sent_s - found) / times)
        if sent_s - found > times * bound_s:
            wrong.append(f"call {call} lacks {sent_s - found:.2f} s after {times} kills")
    return Outcome(
        f"SIGKILL to one of two workers, {len(theirs)} calls on it, {len(others)} on the other",
        times,
        f"calls of the other: nothing, to the last bit; its own: {missing_s:.2f} s a kill at most",
        f"the other: nothing; its own: flush_s + {MARGIN_S} s a kill",
        wrong,
        {"missing_s_per_kill": round(missing_s, 3)},
    )


def _is_replaced(service: Service, victim: int) -> bool:
    try:
        return victim not in service.workers() and service.sum_of("strep_workers", state="up") == 2
    except (OSError, KeyError, TypeError):
        return False


def _seconds(sides: object) -> float:
    return len(sides[0]) / RATE_HZ  # type: ignore[index]


def suspend(folder: Path, times: int, say: Say) -> Outcome:
    """Suspend the daemon: what came meanwhile waits in the receive buffer."""
    seconds = FREEZE_S if times > 1 else 2.0
    with Service(folder) as service, Calls(service.to, 10) as calls:
        for number in range(times):
            say(f"{number} of {times} times {seconds:g} s")
            time.sleep(1.0)
            service.freeze(seconds)
        time.sleep(1.0)
        calls.stop()
        time.sleep(0.5)
        drops = service.sum_of("strep_kernel_drops_total")
        service.stop()
    wrong = not_exact(calls, folder)
    if drops:
        wrong.append(f"the kernel dropped {drops:.0f} datagrams")
    return Outcome(
        f"SIGSTOP for {seconds:g} s, 10 calls running",
        times,
        "nothing, to the last bit" if not wrong else f"{len(wrong)} things",
        "nothing, as long as the receive buffer holds what comes",
        wrong,
    )


def stall(folder: Path, times: int, say: Say) -> Outcome:
    """Let the network stall for a second and deliver all at once, again and again."""
    wrong: list[str] = []
    say("a second's packets at once, each second")
    with Service(folder) as service, Calls(service.to, 20, burst_ms=1000) as calls:
        time.sleep(times + 0.5)
        calls.stop()
        time.sleep(0.5)
        late = service.sum_of("strep_packets_late_total") + service.sum_of(
            "strep_packets_lost_total"
        )
        service.stop()
    for call, leg in enumerate(calls.legs):
        (path,) = files_of(folder, leg)
        for side, channel in enumerate(channels(path)):
            track = 2 * call + side
            sent = calls.sent_of(track)
            speech = calls.speech(track, sent)
            frames = whole_frames(channel, speech)
            if frames != sent:
                at = find(channel, speech)
                wrong.append(f"call {call} side {side}: {frames} of {sent} packets (from {at})")
    if late:
        wrong.append(f"{late:.0f} packets were called lost or late")
    return Outcome(
        "a network that stalls for 1 s and delivers all at once, 20 calls",
        times,
        "nothing, to the last bit" if not wrong else f"{len(wrong)} things",
        "nothing",
        wrong,
    )
