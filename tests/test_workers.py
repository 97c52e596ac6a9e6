"""`strep serve` with several workers: real processes, real packets, real deaths."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import soundfile
from controlled import post
from loopback import DEADLINE_S, Serve, free_port, needs_steering

from pipeline.codecs import PCMU
from strep.media import packetize
from strep.receive.steering import bind_group, worker_of
from strep.sender import send_paced
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader
from strep.workplace import CALLS_WITHIN_S

CALLER, AGENT = load_voice("caller"), load_voice("agent")
SIDES = {"inbound": 0, "outbound": 1}


@pytest.fixture(autouse=True)
def _steering():
    needs_steering()


def call_ids(count):
    """Call leg ids, each worker of two getting half of them in turn."""
    random = np.random.default_rng(5)
    ids = []
    while len(ids) < count:
        call_leg_id = UUID(bytes=random.bytes(16), version=4)
        if worker_of(call_leg_id, 2) == len(ids) % 2:
            ids.append(call_leg_id)
    return ids


class Call:
    """A call of two directions, each with audio of its own."""

    def __init__(self, number, call_leg_id, packets):
        self.id = call_leg_id
        self.worker = worker_of(call_leg_id, 2)
        start, samples = 800 * number, 160 * packets
        self.codes = {
            "inbound": CALLER[start : start + samples],
            "outbound": AGENT[start : start + samples],
        }
        self.datagrams = {
            direction: packetize(
                codes,
                payload_type=0,
                ssrc=2 * number + SIDES[direction],
                first_sequence=65_530,
                first_timestamp=2**32 - 800,
                strep=StrepHeader(call_leg_id, direction=Direction[direction.upper()]),
            )
            for direction, codes in self.codes.items()
        }


def send(calls, to, first, last, *, speed=np.inf):
    """Send packets `first` to `last` of all calls, 20 ms apart."""
    datagrams = [
        bytes(call.datagrams[direction][i])
        for i in range(first, last)
        for call in calls
        for direction in SIDES
    ]
    due_s = np.repeat(np.arange(last - first) * 0.02, 2 * len(calls))
    asyncio.run(send_paced(datagrams, due_s, to, speed=speed))


@contextmanager
def sending(*arguments, **options):
    thread = threading.Thread(target=send, args=arguments, kwargs=options)
    thread.start()
    yield
    thread.join()


def get(serve, path):
    with urllib.request.urlopen(f"http://{serve.http}{path}", timeout=5) as answer:
        return json.load(answer)


def workers(serve):
    return get(serve, "/healthz")["workers"]


def recordings(folder, call, suffix=".wav"):
    return sorted(folder.glob(f"*{call.id}*{suffix}"))


def assert_recorded(path, call, first, last):
    """The stereo file holds packets `first` to `last` of both directions, sample for sample."""
    manifest = json.loads(path.with_suffix(".json").read_text())
    pcm, _ = soundfile.read(path, dtype="int16")
    tracks = {track["direction"]: track for track in manifest["tracks"]}
    assert set(tracks) == set(SIDES)
    for direction, channel in SIDES.items():
        track = tracks[direction]
        assert (track["packets"], track["lost"]) == (last - first, 0)
        expected = PCMU.table[call.codes[direction][first * 160 : last * 160]]
        start = round(track["offset_s"] * 8000)
        assert np.array_equal(pcm[start : start + len(expected), channel], expected)


def is_running(pid):
    """Tell whether a process runs: what nobody has reaped yet (state Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_calls_are_shared_and_each_is_recorded_whole_by_one_worker(tmp_path):
    calls = [Call(i, call_leg_id, 50) for i, call_leg_id in enumerate(call_ids(20))]
    with Serve(tmp_path, "--workers", "2") as serve:
        send(calls, serve.to, 0, 50)
        serve.wait_for("strep_packets_total", 2000)
        metrics = serve.metrics()
        health = get(serve, "/healthz")
        listed = get(serve, "/v1/calls")
        assert serve.stop() == 0
    assert metrics["strep_datagrams_read_total"] == 2000
    assert metrics["strep_datagrams_total{accepted}"] == 2000
    assert metrics["strep_packets_released_total"] == 2000
    assert metrics["strep_packets_lost_total"] == 0
    assert metrics["strep_kernel_drops_total"] == 0
    assert metrics["strep_tracks_open"] == metrics["strep_tracks_opened_total"] == 40
    assert metrics["strep_sink_frames_total{vad}"] == 2000
    assert metrics["strep_sink_up{wav}"] == 1
    assert metrics["strep_workers{up}"] == 2
    assert metrics["strep_workers{silent}"] == metrics["strep_workers{down}"] == 0
    assert metrics["strep_worker_restarts_total"] == 0
    assert metrics["strep_worker_cpu_seconds_total{0}"] > 0
    assert (health["status"], health["tracks_open"], health["datagrams_read"]) == ("ok", 40, 2000)
    assert [w["tracks_open"] for w in health["workers"]] == [20, 20]
    assert [w["datagrams_read"] for w in health["workers"]] == [1000, 1000]
    assert listed["missing_workers"] == []
    assert {c["call_leg_id"]: c["worker"] for c in listed["calls"]} == {
        str(call.id): call.worker for call in calls
    }
    assert not list(tmp_path.glob("*.part"))
    for call in calls:
        (path,) = recordings(tmp_path, call)
        assert_recorded(path, call, 0, 50)


@pytest.mark.parametrize("count", [1, 2])
def test_list_of_calls_says_of_each_track_who_what_and_how_well(tmp_path, count):
    call = Call(3, call_ids(2)[1], 51)
    call.datagrams["outbound"] = np.delete(call.datagrams["outbound"], 20, axis=0)
    with Serve(tmp_path, "--workers", str(count), "--reorder-ms", "0") as serve:
        assert get(serve, "/v1/calls") == {"calls": [], "missing_workers": []}
        send([call], serve.to, 0, 50)
        serve.wait_for("strep_packets_total", 100)
        (entry,) = get(serve, "/v1/calls")["calls"]
        media = serve.media
    tracks = entry.pop("tracks")
    assert entry == {"call_leg_id": str(call.id), "worker": call.worker if count == 2 else 0}
    for track, (direction, channel) in zip(tracks, SIDES.items(), strict=True):
        assert track.pop("source").startswith("127.0.0.1:")
        assert time.strptime(track.pop("opened_at")[:19], "%Y-%m-%dT%H:%M:%S")
        assert 0 < track.pop("jitter_mean_ms") < 20
        assert track == {
            "leg": "A",
            "direction": direction,
            "destination": media,
            "ssrc": f"0x0000000{6 + channel}",
            "codec": "PCMU",
            "sample_rate_hz": 8000,
            "duration_s": 1.0 + 0.02 * channel,
            "packets": 50,
            "lost": channel,
        }


def reasons_of(path):
    """Why the tracks of a recording ended, as its manifest says."""
    tracks = json.loads(path.with_suffix(".json").read_text())["tracks"]
    return {track["reason"] for track in tracks}


def test_killed_worker_is_replaced_at_once_and_other_calls_do_not_notice(tmp_path):
    calls = [Call(i, call_leg_id, 75) for i, call_leg_id in enumerate(call_ids(20))]
    arguments = ("--workers", "2", "--sink", "wav:flush_s=0.1")
    at_once = {"STREP_SOURCE_TIMEOUT_S": "0"}  # the calls go on from another socket
    with Serve(tmp_path, *arguments, env=at_once) as serve:
        send(calls, serve.to, 0, 25)
        serve.wait_for("strep_packets_total", 1000)
        serve.wait_until(
            lambda: (
                [p.stat().st_size >= 94 + 25 * 160 * 4 for p in tmp_path.glob("*.part")]
                == [True] * 20
            ),
            "half a second of each call is on disk",
        )
        victim, other = workers(serve)
        os.kill(victim["pid"], signal.SIGKILL)
        killed_s = time.monotonic()
        with sending(calls, serve.to, 25, 75, speed=4):
            reads = []
            while True:
                health = get(serve, "/healthz")
                reads.append(health["datagrams_read"])
                now = health["workers"][0]
                if now["state"] == "up" and now["pid"] != victim["pid"]:
                    break
                assert time.monotonic() - killed_s < DEADLINE_S, health
        # what came while nobody read waited in the socket
        serve.wait_for("strep_packets_total", 3000)
        metrics = serve.metrics()
        assert workers(serve)[1]["pid"] == other["pid"]
        assert serve.stop() == 0
    assert reads[0] >= 1000
    assert reads == sorted(reads)
    assert metrics["strep_datagrams_read_total"] == 3000
    assert metrics["strep_kernel_drops_total"] == metrics["strep_packets_lost_total"] == 0
    assert metrics["strep_worker_restarts_total"] == 1
    assert metrics["strep_workers{up}"] == 2
    assert metrics["strep_tracks_opened_total"] == 60
    assert metrics["strep_tracks_closed_total{worker_died}"] == 20
    assert metrics["strep_tracks_open"] == 40
    log = [json.loads(line) for line in serve.log.read_text().splitlines()]
    (ended,) = (line for line in log if line["event"] == "a worker has ended and is replaced")
    assert (ended["why"], ended["delay_s"]) == ("killed by SIGKILL", 0.0)
    for call in calls:
        assert recordings(tmp_path, call, ".part") == []
        paths = recordings(tmp_path, call)
        reasons = {path: reasons_of(path) for path in paths}
        (path,) = [path for path in paths if reasons[path] == {"end"}]
        if call.worker == 1:
            assert_recorded(path, call, 0, 75)
        else:
            assert_recorded(path, call, 25, 75)
        first_segments = [path for path in paths if reasons[path] == {"interrupted"}]
        assert len(first_segments) == len(paths) - 1 == (call.worker == 0)
        for first in first_segments:
            pcm, _ = soundfile.read(first, dtype="int16")
            assert np.array_equal(pcm[:4000, 0], PCMU.table[call.codes["inbound"][:4000]])


def test_worker_that_does_not_answer_is_left_out_and_holds_nobody_up(tmp_path):
    calls = [Call(i, call_leg_id, 10) for i, call_leg_id in enumerate(call_ids(4))]
    with Serve(tmp_path, "--workers", "2") as serve:
        send(calls, serve.to, 0, 10)
        serve.wait_for("strep_packets_total", 80)
        victim, _ = workers(serve)
        os.kill(victim["pid"], signal.SIGSTOP)
        asked_s = time.monotonic()
        health = get(serve, "/healthz")
        metrics = serve.metrics()
        listed = get(serve, "/v1/calls")
        took_s = time.monotonic() - asked_s
        os.kill(victim["pid"], signal.SIGCONT)
        serve.wait_for("strep_workers{up}", 2)
        assert len(get(serve, "/v1/calls")["calls"]) == 4
        assert serve.stop() == 0
    assert took_s < CALLS_WITHIN_S
    assert (health["status"], health["workers"][0]["state"]) == ("degraded", "silent")
    assert metrics["strep_workers{silent}"] == 1
    assert metrics["strep_packets_total"] == 80  # the last that is known
    assert listed["missing_workers"] == [0]
    assert {c["call_leg_id"] for c in listed["calls"]} == {
        str(call.id) for call in calls if call.worker == 1
    }


def test_worker_that_did_not_read_for_long_is_told_again_what_it_has_to_know(tmp_path):
    calls = [Call(i, call_leg_id, 1) for i, call_leg_id in enumerate(call_ids(10))]
    deaf = [call for call in calls if call.worker == 0]
    unsigned = {
        "STREP_API_KEY": "KEY",
        "STREP_CONTROL_ALLOW_UNSIGNED_WEBHOOKS": "true",
        "STREP_CONTROL_ADMISSION": "known",
    }
    serve = Serve(tmp_path, "--workers", "2", env=unsigned)
    impatient = "from strep import cli, workplace; workplace.MAX_UNREAD_BYTES = 0; cli.main()"
    serve._command[1:3] = ["-c", impatient]
    with serve:
        victim, _ = workers(serve)
        os.kill(victim["pid"], signal.SIGSTOP)
        for call in deaf:  # more than the channel holds
            event = {
                "event_type": "call.answered",
                "id": str(call.id),
                "occurred_at": "2026-01-31T12:00:00Z",
                "payload": {
                    "call_control_id": f"v3:{call.id}",
                    "call_leg_id": str(call.id),
                    "client_state": "YWJj" * 30_000,
                },
            }
            assert post(serve, "/webhooks", json.dumps({"data": event}).encode()) == 200
        serve.wait_for("strep_events_total{call.answered}", len(deaf))
        send(deaf, serve.to, 0, 1)
        os.kill(victim["pid"], signal.SIGCONT)
        serve.wait_for("strep_tracks_open", 2 * len(deaf))
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_packets_total"] == 2 * len(deaf)
    assert metrics["strep_datagrams_total{unknown_leg}"] == 0


def test_worker_that_does_not_finish_is_killed_and_the_exit_code_tells(tmp_path):
    calls = [Call(i, call_leg_id, 25) for i, call_leg_id in enumerate(call_ids(2))]
    serve = Serve(tmp_path, "--workers", "2")
    patient = "from strep import cli, workers; workers.STOP_WITHIN_S = 2; cli.main()"
    serve._command[1:3] = ["-c", patient]
    with serve:
        send(calls, serve.to, 0, 25)
        serve.wait_for("strep_packets_total", 100)
        victim, _ = workers(serve)
        os.kill(victim["pid"], signal.SIGSTOP)
        assert serve.stop() == 1
    assert not is_running(victim["pid"])
    log = [json.loads(line) for line in serve.log.read_text().splitlines()]
    (error,) = (line for line in log if line["level"] == "error")
    assert error["event"] == "a worker did not finish its recordings in time and is killed"
    assert (error["worker"], error["pid"]) == (0, victim["pid"])
    (path,) = recordings(tmp_path, calls[1])
    assert_recorded(path, calls[1], 0, 25)


def test_workers_of_a_killed_parent_finish_their_recordings_and_free_the_port(tmp_path):
    calls = [Call(i, call_leg_id, 25) for i, call_leg_id in enumerate(call_ids(4))]
    with Serve(tmp_path, "--workers", "2") as serve:
        send(calls, serve.to, 0, 25)
        serve.wait_for("strep_packets_total", 200)
        pids = [worker["pid"] for worker in workers(serve)]
        serve.process.kill()
        serve.process.wait()
        deadline_s = time.monotonic() + DEADLINE_S
        while any(map(is_running, pids)):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        for sock in bind_group(*serve.to, 2):
            sock.close()
    for call in calls:
        (path,) = recordings(tmp_path, call)
        assert_recorded(path, call, 0, 25)


def test_signal_to_all_processes_at_once_stops_as_one_to_the_parent(tmp_path):
    """A terminal's Ctrl-C and a service manager reach the workers, too."""
    call = Call(0, call_ids(1)[0], 25)
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name
        folder.mkdir()
        with Serve(folder, "--workers", "2") as serve:
            send([call], serve.to, 0, 25)
            serve.wait_for("strep_packets_total", 50)
            for worker in workers(serve):
                os.kill(worker["pid"], number)
            assert serve.stop(number) == 0
        (path,) = recordings(folder, call)
        assert_recorded(path, call, 0, 25)


@pytest.fixture
def fragile(tmp_path):
    """A sink that ends its process at its start while the file `die` is there."""
    (tmp_path / "fragile.py").write_text(
        "import os\nfrom pathlib import Path\nfrom pipeline import Sink\n"
        "class Fragile(Sink):\n"
        "    def start(self):\n"
        f"        if Path({str(tmp_path / 'die')!r}).exists():\n"
        "            os._exit(3)\n"
        "    def write(self, block):\n"
        "        pass\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


def test_worker_that_dies_again_and_again_is_started_ever_more_rarely(tmp_path, fragile):
    arguments = ("--workers", "2", "--sink", "fragile:Fragile")
    with Serve(tmp_path, *arguments, env=fragile) as serve:
        (tmp_path / "die").touch()
        for worker in workers(serve):
            os.kill(worker["pid"], signal.SIGKILL)
        serve.wait_for("strep_worker_restarts_total", 5)
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(serve, "/healthz")
        assert refused.value.code == 503
        assert json.load(refused.value)["status"] == "down"
        (tmp_path / "die").unlink()
        serve.wait_for("strep_workers{up}", 2)
        restarts = serve.metrics()["strep_worker_restarts_total"]
        assert serve.stop() == 0
    log = [json.loads(line) for line in serve.log.read_text().splitlines()]
    ended = [line for line in log if line["event"] == "a worker has ended and is replaced"]
    assert restarts == len(ended) <= 8
    for number in range(2):
        mine = [line for line in ended if line["worker"] == number]
        assert [line["delay_s"] for line in mine] == [0, 0.25, 0.5, 1][: len(mine)]
        assert [line["why"] for line in mine[:2]] == ["killed by SIGKILL", "exit code 3"]


def test_what_no_worker_can_begin_with_is_said_in_one_line(tmp_path, fragile):
    blocked = tmp_path / "file"
    blocked.write_text("")
    (tmp_path / "die").touch()
    for sink, words in (
        (f"wav:directory={blocked}/out", f"recordings cannot be written to the folder {blocked}"),
        ("fragile:Fragile", "exit code 3 at its start"),
        ("wavv", "there is no sink 'wavv'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "strep", "serve", "--workers", "2", "--sink", sink,
             "--media", f"127.0.0.1:{free_port(2)}", "--http", "none",
             "--recordings", str(tmp_path)],
            capture_output=True, text=True, check=False, timeout=30, env=os.environ | fragile,
        )  # fmt: skip
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_daemon_whose_workers_cannot_be_replaced_any_more_ends_with_1(tmp_path):
    call = Call(0, call_ids(1)[0], 25)
    with Serve(tmp_path, "--workers", "2") as serve:
        send([call], serve.to, 0, 25)
        serve.wait_for("strep_packets_total", 50)
        status = Path(f"/proc/{workers(serve)[0]['pid']}/status").read_text()
        nursery = int(status.partition("PPid:")[2].split()[0])
        assert nursery != serve.process.pid
        os.kill(nursery, signal.SIGKILL)
        assert serve.process.wait(5) == 1
    (path,) = recordings(tmp_path, call)
    assert_recorded(path, call, 0, 25)
