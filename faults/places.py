"""Sinks that misbehave; disks, folders and descriptors that run out; and a soak."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from faults.calls import Calls, channels, files_of, not_exact
from faults.outcome import CannotRunError, Outcome
from faults.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from faults.outcome import Say

DISK_MB = 8
FEW_FILES = 96
STOP_BOUND_S = 30.0
"""How long the end may take with sinks that are slow or hang."""
SOAK_CALLS = 100
SOAK_MEMORY_MB = 16


def bad_sinks(folder: Path, times: int, say: Say) -> Outcome:
    """Run sinks that sleep, raise and leak beside the recordings."""
    wrong: list[str] = []
    names = ["faults.sinks:Sleeps", "faults.sinks:Raises", "faults.sinks:Leaks"]
    dropped = errors = 0.0
    for number in range(times):
        say(f"{number} of {times}")
        place = folder / str(number)
        sinks = ("wav", *names)
        with Service(place, sinks=sinks) as service, Calls(service.to, 20) as calls:
            time.sleep(4.0)
            metrics = service.metrics()
            calls.stop()
            time.sleep(0.5)
            began_s = time.monotonic()
            service.stop()
        if time.monotonic() - began_s > STOP_BOUND_S:
            wrong.append(f"it took {time.monotonic() - began_s:.0f} s to stop")
        wrong += not_exact(calls, place)
        if not metrics.get(f'strep_sink_errors_total{{sink="{names[1]}"}}'):
            wrong.append("no errors of the sink that raises were counted")
        if metrics.get(f'strep_sink_up{{sink="{names[1]}"}}'):
            wrong.append("the sink that raises was not switched off")
        if metrics.get('strep_sink_dropped_frames_total{sink="wav"}'):
            wrong.append("the recordings missed frames")
        errors += metrics.get(f'strep_sink_errors_total{{sink="{names[1]}"}}', 0)
        dropped += metrics.get(f'strep_sink_dropped_frames_total{{sink="{names[0]}"}}', 0)
    return Outcome(
        "sinks that sleep, raise and leak 256 MB, beside 20 recorded calls",
        times,
        f"nothing recorded; {errors:.0f} errors counted, {dropped:.0f} frames late"
        if not wrong
        else f"{len(wrong)} things",
        "nothing recorded; errors counted; the sink that raises is switched off; stopped within"
        f" {STOP_BOUND_S:.0f} s",
        wrong,
    )


def unruly_processes(folder: Path, times: int, say: Say) -> Outcome:
    """Run sinks that exit and leak in processes of their own."""
    wrong: list[str] = []
    names = ["faults.sinks:Exits", "faults.sinks:Leaks"]
    sinks = ("wav", f"{names[0]}:run=process", f"{names[1]}:run=process,max_memory_mb=64")
    ends = 0.0
    for number in range(times):
        say(f"{number} of {times}")
        place = folder / str(number)
        with Service(place, sinks=sinks) as service, Calls(service.to, 20) as calls:
            time.sleep(4.0)
            metrics = service.metrics()
            calls.stop()
            time.sleep(0.5)
            began_s = time.monotonic()
            service.stop()
        if time.monotonic() - began_s > STOP_BOUND_S:
            wrong.append(f"it took {time.monotonic() - began_s:.0f} s to stop")
        wrong += not_exact(calls, place)
        for name in names:
            errors = metrics.get(f'strep_sink_errors_total{{sink="{name}"}}', 0)
            if not errors:
                wrong.append(f"no end of the process of {name} was counted")
            ends += errors
        if metrics.get('strep_sink_dropped_frames_total{sink="wav"}'):
            wrong.append("the recordings missed frames")
    return Outcome(
        "sinks that os._exit and that allocate, in processes of their own, beside 20 calls",
        times,
        f"nothing recorded; {ends:.0f} ends of processes counted"
        if not wrong
        else f"{len(wrong)} things",
        f"nothing recorded; each end counted; stopped within {STOP_BOUND_S:.0f} s",
        wrong,
    )


@contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    place.mkdir(parents=True)
    mounted = shutil.which("mount") and os.geteuid() == 0
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "strep-faults", str(place)]
        mounted = not subprocess.run(command, capture_output=True, check=False).returncode
    if not mounted:
        raise CannotRunError("a small disk can be mounted by root only")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def full_disk(folder: Path, times: int, say: Say) -> Outcome:
    """Fill the disk under running recordings, and make room again."""
    wrong: list[str] = []
    with _small_disk(folder / "small"):
        place, filler = folder / "small", folder / "small" / "filler"
        flags, sinks = ("--database", "none"), ("wav:min_free_bytes=0", "vad")
        with (
            Service(place, *flags, sinks=sinks) as service,
            Calls(service.to, 10) as calls,
        ):
            for number in range(times):
                say(f"{number} of {times}")
                time.sleep(1.5)
                _fill(filler)
                time.sleep(2.0)
                _goes_on(service, wrong, f"full {number}")
                filler.unlink(missing_ok=True)
                if not service.wait_until(lambda: not service.sum_of("strep_recordings_put_off")):
                    wrong.append(f"full {number}: recordings do not go on with space back")
            calls.stop()
            with Calls(service.to, 5, seed=77) as later:
                time.sleep(1.0)
            time.sleep(0.5)
            said = [line for line in service.complaints() if "No space" in line or "disk" in line]
            counted = service.sum_of("strep_recording_attempts_failed_total")
            service.stop()
        wrong += [f"after the disk was full: {each}" for each in not_exact(later, place)]
        opened = _all_open(place, calls.legs, wrong)
        wrong += not_exact(calls, place, may_miss=True)
        if not said:
            wrong.append("the log does not say that the disk is full")
    return Outcome(
        f"a disk of {DISK_MB} MB filled for 2 s under 10 recordings",
        times,
        f"what did not fit; {opened} files, all of them open; {counted:.0f} attempts counted"
        if not wrong
        else f"{len(wrong)} things",
        "what did not fit, as the manifests say: all else is right, in the same files; it is said",
        wrong,
    )


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65536)) == 65536:
                pass
            while file.write(b"\0"):
                pass
        except OSError:
            pass


def _goes_on(service: Service, wrong: list[str], when: str) -> None:
    """Check that packets are released and analysed while recordings fail."""
    if not service.is_alive:
        wrong.append(f"{when}: the daemon is gone")
        return
    try:
        before = service.metrics()
        time.sleep(0.5)
        after = service.metrics()
    except OSError as error:
        wrong.append(f"{when}: no figures are served: {error}")
        return
    names = ("strep_packets_released_total", 'strep_sink_frames_total{sink="vad"}')
    wrong += [
        f"{when}: {name} stands still"
        for name in names
        if after.get(name, 0) <= before.get(name, 0)
    ]


def _all_open(place: Path, legs: list[UUID], wrong: list[str]) -> int:
    count = 0
    for leg in legs:
        for path in files_of(place, leg):
            count += 1
            try:
                channels(path)
            except (OSError, RuntimeError, ValueError) as error:
                wrong.append(f"{path.name} does not open: {error}")
    return count


def read_only(folder: Path, times: int, say: Say) -> Outcome:
    """Mount the disk read-only between calls, and writable again under the next ones."""
    wrong: list[str] = []
    with _small_disk(folder / "small"):
        place = folder / "small"
        flags, sinks = ("--database", "none"), ("wav:min_free_bytes=0", "vad")
        for number in range(times):
            say(f"{number} of {times}")
            with Service(place, *flags, sinks=sinks) as service:
                _remount(place, "ro")
                with Calls(service.to, 10, seed=number + 1) as calls:
                    time.sleep(2.0)
                    _goes_on(service, wrong, f"read-only {number}")
                    if not service.sum_of("strep_recordings_put_off"):
                        wrong.append(f"read-only {number}: no recording waits")
                    _remount(place, "rw")
                    if not service.wait_until(
                        lambda: not service.sum_of("strep_recordings_put_off")
                    ):
                        wrong.append(f"read-only {number}: recordings do not begin")
                    time.sleep(1.0)
                time.sleep(0.5)
                said = any("Read-only" in line for line in service.complaints())
                service.stop()
            if not said:
                wrong.append("the log does not say that the disk is read-only")
            wrong += not_exact(calls, place, may_miss=True)
            for path in place.glob("*-a.*"):
                path.unlink()
    return Outcome(
        "the disk mounted read-only, and writable again 2 s after 10 calls began",
        times,
        "what came before it was writable" if not wrong else f"{len(wrong)} things",
        "what came meanwhile, as the manifests say; analysis goes on; it is said",
        wrong,
    )


def _remount(place: Path, how: str) -> None:
    command = ["mount", "-o", f"remount,{how}", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise CannotRunError(f"the disk cannot be remounted {how} here")


def vanishing_folder(folder: Path, times: int, say: Say) -> Outcome:
    """Take the folder of recordings away under running calls."""
    wrong: list[str] = []
    for number in range(times):
        say(f"{number} of {times}")
        place = folder / f"recordings-{number}"
        flags = ("--database", "none")
        with (
            Service(place, *flags, sinks=("wav", "vad")) as service,
            Calls(service.to, 10) as calls,
        ):
            time.sleep(1.5)
            shutil.rmtree(place)
            time.sleep(1.5)
            _goes_on(service, wrong, f"vanished {number}")
            calls.stop()
            with Calls(service.to, 5, seed=77) as later:
                time.sleep(1.5)
            time.sleep(0.5)
            is_alive = service.is_alive
            service.stop()
        if not is_alive:
            wrong.append(f"vanished {number}: the daemon is gone")
        else:
            wrong += [f"in the folder made again: {each}" for each in not_exact(later, place)]
    return Outcome(
        "the folder of recordings removed under 10 calls",
        times,
        "the recordings that were in it" if not wrong else f"{len(wrong)} things",
        "what was in it; daemon lives, analysis goes on, the next calls are recorded",
        wrong,
    )


def few_files(folder: Path, times: int, say: Say) -> Outcome:
    """Let more calls come than files may be open."""
    wrong: list[str] = []
    recorded = 0
    for number in range(times):
        say(f"{number} of {times}")
        place = folder / str(number)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with Service(place, sinks=("wav", "vad")) as service:
            for pid in service.pids:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (FEW_FILES, most))
            with Calls(service.to, 2 * FEW_FILES) as calls:
                time.sleep(2.0)
                _goes_on(service, wrong, f"limit {number}")
            time.sleep(0.5)
            service.stop()
        found = [leg for leg in calls.legs if files_of(place, leg)]
        recorded += len(found)
        if not found:
            wrong.append(f"limit {number}: nothing was recorded")
        which = [i for i, leg in enumerate(calls.legs) if leg in found]
        wrong += not_exact(calls, place, which, may_miss=True)
    return Outcome(
        f"{2 * FEW_FILES} calls where {FEW_FILES} files may be open",
        times,
        f"{recorded} calls recorded whole, the others not" if not wrong else f"{len(wrong)} things",
        "daemon lives, analysis goes on; what is recorded is whole from where its manifest says",
        wrong,
    )


def soak(folder: Path, times: int, say: Say) -> Outcome:
    """Open and close calls in fast motion; what they took is given back."""
    wrong: list[str] = []
    waves = max(3, times // SOAK_CALLS)
    flags = ("--idle-timeout-s", "0.4", "--max-ahead-s", "60", "--database", "none")
    first: dict[str, int] = {}
    peak: dict[str, int] = {}
    with Service(folder, *flags, sinks=("wav", "vad")) as service:
        for number in range(waves):
            with Calls(service.to, SOAK_CALLS, seed=number + 1):
                time.sleep(0.3)
            if not service.wait_until(lambda: not service.sum_of("strep_tracks_open")):
                wrong.append(f"wave {number}: tracks stay open")
                break
            if not service.wait_until(lambda: not any(folder.glob("*.part"))):
                wrong.append(f"wave {number}: recordings stay unfinished")
                break
            now = service.resources()
            if number == max(1, waves // 10):
                first = now
            peak = (
                {key: max(value, peak.get(key, 0)) for key, value in now.items()} if first else {}
            )
            for path in folder.glob("*-a.*"):
                path.unlink(missing_ok=True)
            say(f"{(number + 1) * SOAK_CALLS:,} calls, {now['memory_mb']} MB, {now['files']} files")
        closed = service.sum_of("strep_tracks_closed_total")
        service.stop()
    if closed != 2 * SOAK_CALLS * waves:
        wrong.append(f"{closed:.0f} tracks were closed, expected {2 * SOAK_CALLS * waves}")
    grown = {key: peak.get(key, 0) - first.get(key, 0) for key in first}
    if grown.get("memory_mb", 0) > SOAK_MEMORY_MB:
        wrong.append(f"memory grew by {grown['memory_mb']} MB")
    wrong += [
        f"{key} grew by {grown[key]}" for key in ("files", "threads") if grown.get(key, 0) > 5
    ]
    told = ", ".join(f"{key} +{value}" for key, value in grown.items())
    return Outcome(
        "calls opened, recorded and closed in fast motion",
        waves * SOAK_CALLS,
        told or "nothing measured",
        f"memory +{SOAK_MEMORY_MB} MB, descriptors and threads +5, after the first tenth",
        wrong,
        dict(grown),
    )
