from __future__ import annotations

import json

import pytest
from rich.console import Console

from bench.__main__ import BENCHMARKS, main
from bench.report import Report, figure_of, median, plot

MIB = 2**20
COST = {"us_per_packet": 1.234, "user_us": 0.5, "system_us": 0.734, "drops": 0}
REPORTS = {
    "peers": Report(
        "peers",
        [
            {
                "load": "4,000 tracks in real time, 200,000 packets/s", "name": name,
                "us_per_packet": us, "least_us": us - 0.1, "most_us": us + 0.1,
                "of_floor": us / 0.8, "of_ours": us / 1.6, "of_ours_at_4000_tracks": None,
                "of_merged_at_4000_tracks": us / 0.8,
                "dropped_share": share, "does": f"what {name} does", "lacks": "the rest",
            }
            for name, us, share in (("floor", 0.8, 0.0), ("strep, VAD", 1.6, 0.0125))
        ],
    ),
    "throughput": Report(
        "throughput",
        [
            {
                "sinks": sinks, "tracks": tracks, "costs": {"100000": COST},
                "highest_pps": 412_345, "limit": "kernel",
            }
            for sinks in ("none", "vad")
            for tracks in (100, 4000)
        ],
    ),
    "analysis": Report(
        "analysis",
        [
            {
                "tracks": tracks, "sinks": sinks, "us_per_packet": us, "of_none": us / 1.2,
                "lost": lost,
            }
            for tracks, lost in ((1000, 0), (8000, 12))
            for sinks, us in (("none", 1.2), ("vad", 1.3), ("vad, dtmf", 1.4), ("all", 1.5))
        ],
    ),
    "merging": Report(
        "merging",
        [
            {"together": 1, "read": "one by one", "us_per_packet": 1.6, "of_one_by_one": 1.0,
                "lost": 0},
            {"together": 1, "read": "merged", "us_per_packet": 1.7, "of_one_by_one": 1.0625,
                "lost": 0},
            {"together": 16, "read": "one by one", "us_per_packet": 1.6, "of_one_by_one": 1.0,
                "lost": 12},
            {"together": 16, "read": "merged", "us_per_packet": 0.7, "of_one_by_one": 0.4375,
                "lost": 0},
        ],
    ),
    "realtime": Report(
        "realtime",
        [
            {"tracks": 0, "packets": 0, "core_share": 0.0012, "lost": 0},
            {"tracks": 1000, "packets": 3_000_000, "core_share": 0.0876, "lost": 7, **COST},
        ],
        {"seconds": 60.0},
    ),
    "latency": Report(
        "latency",
        [
            {"tracks": n, "p50_ms": 5.5, "p99_ms": 12.25, "max_ms": 19.0,
                "frames": 9000, "drops": 3}
            for n in (100, 4000)
        ],
    ),
    "memory": Report(
        "memory",
        [
            {
                "sinks": "vad", "tracks": 10_000, "rest_bytes": 60 * MIB, "open_bytes": 160 * MIB,
                "per_track_bytes": 10_486, "closed_bytes": 70 * MIB,
                "open_again_bytes": 161 * MIB, "closed_again_bytes": 71 * MIB,
            }
        ],
        {
            "churn": [
                {"minute": n, "tracks_open": 300, "tracks_opened": 200 * n,
                 "resident_bytes": 55 * MIB}
                for n in range(1, 61)
            ]
        },
    ),
    "workers": Report(
        "workers",
        [
            {
                "workers": n, "tracks": 1600 * n, "us_per_packet": 2.0 + n / 10,
                "of_one": 0.95 + n / 20, "kept": n / (0.95 + n / 20), "lost": n - 1, "runs": [],
            }
            for n in (1, 2)
        ],
    ),
    "stages": Report(
        "stages",
        [
            {"stage": "parse", "way": "compiled", "us_per_packet": 0.032, "least_us": 0.03,
                "most_us": 0.04},
            {"stage": "parse", "way": "NumPy", "us_per_packet": 0.1, "least_us": 0.09,
                "most_us": 0.2},
            {"stage": "ring", "way": "NumPy", "us_per_packet": 0.05, "least_us": 0.05,
                "most_us": 0.05},
        ],
        {"tracks": 4000},
    ),
    "codecs": Report(
        "codecs",
        [
            {"codec": "PCMU", "rate_hz": 8000, "us_per_packet": 0.08, "least_us": 0.07,
                "most_us": 0.1},
            {"codec": "L16", "rate_hz": 44_100, "us_per_packet": 4.5, "least_us": 4.25,
                "most_us": 5.0},
        ],
    ),
    "vad": Report(
        "vad",
        [
            {"detector": "vad", "balanced_accuracy": 0.9183, "tpr": 0.939, "tnr": 0.8976,
                "us_per_frame": 0.25, "least_us": 0.24, "most_us": 0.27},
            {"detector": "webrtcvad, mode 3", "balanced_accuracy": None, "tpr": None, "tnr": None,
                "us_per_frame": 2.9, "least_us": 2.8, "most_us": 3.1},
        ],
        {"tracks": 1000, "clips": 9},
    ),
}  # fmt: skip


def shown(name):
    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        for table in BENCHMARKS[name].tables(REPORTS[name]):
            console.print(table)
    return capture.get()


def row(text, start):
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell for cell in line.split("  ") if cell]


def cells(text, start):
    return [cell.strip() for cell in row(text, start)]


def test_every_benchmark_has_a_report_here():
    assert list(BENCHMARKS) == list(REPORTS)


def test_peers_are_shown_with_ratios_and_losses():
    text = shown("peers")
    assert "4,000 tracks in real time, 200,000 packets/s" in text
    assert cells(text, "floor  ") == [
        "floor", "0.80", "0.70 - 0.90", "1.00", "0.50", "-", "1.00", "none",
    ]  # fmt: skip
    assert cells(text, "strep, VAD  ")[-1] == "1.25%"
    assert "what floor does" in text
    assert "the rest" in text


def test_throughput_is_shown_with_the_split_and_the_limit():
    assert cells(shown("throughput"), "vad   4,000"[:3]) == [
        "vad", "100", "1.23 (0.50 + 0.73)", "412,345/s", "kernel",
    ]  # fmt: skip


def test_realtime_is_shown_in_shares_of_a_core():
    text = shown("realtime")
    assert cells(text, "idle") == ["idle", "0", "0.12%", "-", "none"]
    assert cells(text, "1,000") == ["1,000", "3,000,000", "8.76%", "1.23", "7"]


def test_latency_is_shown_with_drops():
    assert cells(shown("latency"), "4,000") == ["4,000", "5.50", "12.25", "19.00", "9,000", "3"]


def test_memory_is_shown_per_track_and_over_the_hour():
    text = shown("memory")
    assert cells(text, "vad") == [
        "vad", "10,000", "60.0", "160.0", "10.2", "70.0", "161.0", "71.0",
    ]  # fmt: skip
    assert cells(text, "    60") == ["60", "300", "12,000", "55.0"]


def test_workers_are_shown_beside_one():
    assert cells(shown("workers"), "2") == [
        "2", "3,200", "2.20", "1.05", "1.90 times one worker's", "1",
    ]  # fmt: skip


def test_analysis_is_shown_by_tracks_and_sinks():
    lines = shown("analysis").splitlines()
    assert cells(lines[-5], "1,000") == ["1,000", "all", "1.50", "1.25", "none"]
    assert cells(lines[-1], "8,000") == ["8,000", "all", "1.50", "1.25", "12"]


def test_merging_is_shown_by_how_many_come_together():
    lines = shown("merging").splitlines()
    assert [cell.strip() for cell in lines[-2].split("  ") if cell] == [
        "16", "one by one", "1.60", "1.00", "12",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[-1].split("  ") if cell] == [
        "16", "merged", "0.70", "0.44", "none",
    ]  # fmt: skip


def test_stages_are_shown_to_the_nanosecond():
    text = shown("stages")
    assert cells(text, "parse") == ["parse", "0.032", "0.030 - 0.040", "0.100", "0.090 - 0.200"]
    assert cells(text, "ring") == ["ring", "-", "-", "0.050", "0.050 - 0.050"]


def test_codecs_are_shown_with_their_rates():
    text = shown("codecs")
    assert cells(text, "PCMU") == ["PCMU", "8 kHz", "0.08", "0.07 - 0.10"]
    assert cells(text, "L16") == ["L16", "44.1 kHz", "4.50", "4.25 - 5.00"]


def test_detectors_are_shown_with_accuracy_and_cost():
    text = shown("vad")
    assert "9 labelled clips, cost with 1,000 tracks" in text
    assert cells(text, "vad") == ["vad", "0.918", "0.939", "0.898", "0.250", "0.240 - 0.270"]
    assert cells(text, "webrtcvad, mode 3")[1:4] == ["-", "-", "-"]


@pytest.mark.parametrize("name", REPORTS)
def test_report_is_drawn(name, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plots" / f"{name}.png"
    plot(BENCHMARKS[name], REPORTS[name], picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_report_is_written_as_json(tmp_path):
    path = tmp_path / "results" / "stages.json"
    REPORTS["stages"].write(path)
    document = json.loads(path.read_text())
    assert document["benchmark"] == "stages"
    assert document["rows"] == REPORTS["stages"].rows
    assert document["machine"]["cores"] >= 1


def test_median_and_figures():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert figure_of(median([])) == "-"
    assert figure_of(1234.5) == "1,234.50"


def test_unknown_benchmark_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["speed"])
    assert end.value.code == 2
    assert "there is no benchmark 'speed'; there are peers, throughput" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--json", "--plots", "--scratch"])
def test_folder_that_cannot_be_is_named_before_anything_is_measured(flag, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        main(["codecs", flag, str(tmp_path / "file" / "results")])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"python -m bench: error: cannot use {tmp_path}/file/results: Not a directory "
        "(see python -m bench --help)\n"
    )
