"""Real captures: PCM bit for bit, counts and jitter as three other implementations have them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import soundfile
from loopback import Serve
from material import MATERIAL, needs_material, table

from pipeline.sinks.load import load
from strep.analyze import analyze
from strep.cli import main
from strep.wire import DropReason

pytestmark = needs_material
both_ways = pytest.mark.usefixtures("kernel")

CAPTURES = MATERIAL / "captures"
FILES = sorted(p.relative_to(CAPTURES).as_posix() for p in CAPTURES.rglob("*.*cap*"))
GOLDEN = table("captures/GOLDEN_PCM.csv")
# RTP headers quoted inside ICMP errors are no RTP of the capture
STREAMS = [row for row in table("captures/STREAMS.csv") if row["tshark_flag"] != "NOT LISTED"]
JITTER = [row for row in table("captures/JITTER_REF.csv") if row["max_agrees_0.01ms"] == "True"]
GOLDEN_FILES = sorted({row["file"] for row in GOLDEN})
SPEED = "40"

_reports = {}


def report_of(name):
    if name not in _reports:
        _reports[name] = analyze(CAPTURES / name, {})
    return _reports[name]


def track_of(tracks, row):
    ssrc = f"{int(row['ssrc'], 16):#010x}"
    wanted = [t for t in tracks if t["ssrc"] == ssrc]
    if row.get("src"):
        wanted = [t for t in wanted if (t["source"], t["destination"]) == (row["src"], row["dst"])]
    assert len(wanted) == 1, f"{len(wanted)} tracks of {row['file']} {ssrc}"
    return wanted[0]


def named(rows):
    return [pytest.param(r, id=f"{r['file']}-{r['ssrc']}") for r in rows]


@both_ways
@pytest.mark.parametrize("name", FILES)
def test_every_datagram_of_any_capture_is_accounted_for(name):
    report = report_of(name)
    reasons = {reason.label for reason in DropReason}
    assert set(report.datagrams) == reasons
    assert report.datagrams["accepted"] == sum(t["packets"] for t in report.tracks)
    assert report.cut is None


@both_ways
@pytest.mark.parametrize("row", named(r for r in STREAMS if int(r["packets"])))
def test_counts_equal_those_of_the_reference(row):
    track = track_of(report_of(row["file"]).tracks, row)
    # the reference's own columns count what ICMP errors quote as duplicates; tshark's do not
    quoted = int(row["packets"]) - int(row["tshark_pkts"])
    assert track["packets"] == int(row["tshark_pkts"])
    assert track["duplicate"] == int(row["dup"]) - quoted
    assert track["lost"] - track["late"] == int(row["missing_seq"])
    expected = dict(entry.split(":") for entry in row["pts"].split())
    if not quoted:
        assert {k: str(n) for k, n in track["payload_types"].items()} == expected


@both_ways
@pytest.mark.parametrize("row", named(JITTER))
def test_jitter_agrees_with_the_reference(row):
    track = track_of(report_of(row["file"]).tracks, row)
    assert track["jitter_mean_ms"] == pytest.approx(float(row["ref_mean_ms"]), abs=0.02)
    assert track["jitter_max_ms"] == pytest.approx(float(row["ref_max_ms"]), abs=0.05)


def assert_golden(track, row, folder):
    assert track["late"] == 0, row["file"]
    pcm, rate_hz = soundfile.read(folder / Path(track["recording"]).name, dtype="int16")
    assert rate_hz == 8000
    if int(row["overlap_samples"]) == 0:
        assert len(pcm) == int(row["samples"]), row["file"]
        assert hashlib.sha256(pcm.tobytes()).hexdigest() == row["sha256_s16le"], row["file"]


@both_ways
@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_recording_of_a_capture_is_bit_exact(name, tmp_path):
    sinks = {"wav": load("wav", {"layout": "mono", "directory": str(tmp_path)})}
    report = analyze(CAPTURES / name, sinks)
    for row in (r for r in GOLDEN if r["file"] == name):
        assert_golden(track_of(report.tracks, row), row, tmp_path)


# Two captures with the same stream in them would be one call: neighbours are kept apart.
@pytest.mark.parametrize("names", [GOLDEN_FILES[::2], GOLDEN_FILES[1::2]], ids=["even", "odd"])
def test_recordings_of_captures_replayed_as_strep_over_a_socket_are_bit_exact(
    names, tmp_path, capsys
):
    sent = 0
    # sent faster than it was spoken, silence does not pass before it is told
    with Serve(tmp_path, "--sink", "wav:layout=mono", "--max-ahead-s", "3600") as serve:
        for name in names:
            how = ["--strep", "--to", serve.media, "--speed", SPEED, "--json"]
            with pytest.raises(SystemExit, match=r"^0$"):
                main(["replay", str(CAPTURES / name), *how])
            sent += json.loads(capsys.readouterr().out)["sent"]
        serve.wait_for("strep_datagrams_read_total", sent)
        assert serve.metrics()["strep_kernel_drops_total"] == 0
        assert serve.stop() == 0
    manifests = {m["call_leg_id"]: m for m in map(_read, tmp_path.glob("*.json"))}
    for row in (r for r in GOLDEN if r["file"] in names):
        direct = track_of(report_of(row["file"]).tracks, row)
        (track,) = manifests[direct["call_leg_id"]]["tracks"]
        for figure in ("packets", "duplicate", "payload_types"):
            assert track[figure] == direct[figure], (row["file"], figure)
        assert track["lost"] - track["late"] == int(row["missing_seq"]), row["file"]
        assert_golden(track, row, tmp_path)


def _read(path):
    return json.loads(path.read_text())
