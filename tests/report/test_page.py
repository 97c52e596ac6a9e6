"""The file: what stands in it, and what must not."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from reportcall import make_call

from strep.report import ReportError, from_path, write_report
from strep.report.page import json_block
from strep.report.sound import encoded, link
from strep.report.view import Placed

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\u2028'\"`${1}{title}"


class Reader(HTMLParser):
    """Lists the elements of a page, and the text of its scripts by id."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.scripts = {}
        self._script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id", "own") if tag == "script" else None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def handle_endtag(self, _tag):
        self._script = None


@pytest.fixture
def call(tmp_path):
    return make_call(tmp_path)


def report(manifest, **options):
    sources, _ = from_path(manifest)
    outcome = write_report(sources, manifest.with_name("report.html"), **options)
    return outcome, Reader(outcome.path.read_text(encoding="utf-8"))


def data(page):
    return json.loads(page.scripts["data"])


def test_page_holds_waveforms_and_audio(call):
    outcome, page = report(call)
    assert (outcome.views, outcome.embedded, outcome.linked, outcome.problems) == (1, 1, 0, [])
    assert outcome.bytes == outcome.path.stat().st_size < 1_000_000
    (view,) = data(page)["views"]
    for lane in view["lanes"]:
        (wave,) = lane["waves"]
        assert (wave["start_s"], wave["column_s"]) == (0.0, 0.01)
        assert len(wave["columns"]) == 4 * 6000  # three bytes for each of 100 columns a second
    assert page.scripts["audio-0"].startswith("T2dnUw")  # OggS
    assert not list(call.parent.glob("*.part"))


def test_audio_in_the_page_is_the_call_in_stereo(call):
    _, page = report(call)
    content = io.BytesIO(base64.b64decode(page.scripts["audio-0"]))
    decoded, rate_hz = soundfile.read(content, dtype="float32")
    original, _ = soundfile.read(call.with_name("call.wav"), dtype="float32")
    assert decoded.shape[1] == 2
    assert len(decoded) / rate_hz == pytest.approx(60.0, abs=0.1)
    # speech is where it was: levels of tenths of a second go together
    levels = [
        np.sqrt((each[: 600 * hz // 10].reshape(600, -1, 2) ** 2).mean(axis=1))
        for each, hz in ((decoded, rate_hz), (original, 8000))
    ]
    for channel in (0, 1):
        assert np.corrcoef(levels[0][:, channel], levels[1][:, channel])[0, 1] > 0.98


def test_audio_beyond_the_limit_is_linked(call):
    outcome, page = report(call, max_audio_mb=0.01)
    assert (outcome.embedded, outcome.linked) == (0, 1)
    (view,) = data(page)["views"]
    assert view["audio"] == {
        "kind": "linked",
        "sources": {"both": [{"href": "call.wav", "start_s": 0.0}]},
    }
    assert "audio-0" not in page.scripts


def test_link_names_a_file_as_seen_from_the_page(tmp_path):
    recording = tmp_path / "a b" / "100%?#.wav"
    assert link(recording, tmp_path / "report.html") == "a%20b/100%25%3F%23.wav"
    assert link(recording, tmp_path / "pages" / "report.html") == "../a%20b/100%25%3F%23.wav"


def test_recording_that_is_missing_is_told_and_the_rest_is_shown(call):
    call.with_name("call.wav").unlink()
    outcome, page = report(call)
    assert len(outcome.problems) == 1
    assert "call.wav" in outcome.problems[0]
    (view,) = data(page)["views"]
    assert view["audio"] is None
    assert "call.wav could not be read" in view["note"]
    assert view["lanes"][0]["speech"]


def test_nothing_from_the_network_is_markup(call):
    manifest = json.loads(call.read_text())
    manifest["call_leg_id"] = HOSTILE
    manifest["call"] = dict.fromkeys(("from", "to", "direction", "hangup_cause"), HOSTILE)
    manifest["marks"] = [{"kind": HOSTILE, "at_s": 1.0}]
    for track in manifest["tracks"]:
        track.update(dict.fromkeys(("codec", "source", "ssrc", "reason"), HOSTILE))
        track["dtmf"] = [{"digit": HOSTILE, "start_s": 1.0, "kind": HOSTILE}]
    call.write_text(json.dumps(manifest))
    _, page = report(call, title=HOSTILE)
    assert [tag for tag, _ in page.elements] == [
        "html", "head", "meta", "meta", "meta", "meta", "meta", "title", "style", "body", "main",
        "noscript", "p", "script", "script", "script",
    ]  # fmt: skip
    assert data(page)["title"] == HOSTILE
    assert data(page)["views"][0]["from"] == HOSTILE


def test_page_lets_nothing_else_run_nor_load(call):
    _, page = report(call)
    text = call.with_name("report.html").read_text()
    policy = next(
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy)
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+", text)) - {"http://www.w3.org"}
    assert not {each for each in addresses if each.startswith(("http", "//"))}
    assert not [tag for tag, attributes in page.elements if {"src", "href"} & attributes.keys()]


def test_json_in_a_script_closes_nothing():
    block = json_block({"a": HOSTILE, "b": "\ud800"})
    assert not set("<>&\u2028") & set(block)
    assert json.loads(block) == {"a": HOSTILE, "b": "\ud800"}


def test_folder_is_a_list_of_its_calls(tmp_path):
    make_call(tmp_path / "01")
    make_call(tmp_path / "2026" / "02")
    (tmp_path / "other.json").write_text('{"no": "manifest"}')
    (tmp_path / "broken.json").write_text('{"tracks": [')
    sources, others = from_path(tmp_path)
    assert [path.name for path in others] == ["broken.json", "other.json"]
    told = []
    outcome = write_report(sources, tmp_path / "all.html", max_audio_mb=0, progress=told.append)
    assert outcome.linked >= 1
    assert told[0] == 0


def test_audio_that_will_not_fit_is_given_up_after_a_quarter(tmp_path):
    noise = np.random.default_rng(1).normal(0, 3000, (40 * 8000, 2)).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, 8000)
    placed = [Placed(tmp_path / "noise.wav", channel, channel, 0.0) for channel in (0, 1)]
    told: list[float] = []
    whole = encoded(placed, 10**9, told.append)
    assert told == pytest.approx([n / 20 for n in range(1, 21)])
    told.clear()
    assert encoded(placed, len(whole) * 3 // 4, told.append) is None
    assert max(told) < 0.3
    assert encoded(placed, len(whole)) is not None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "cannot read .*gone.json: No such file"),
        ("call.json", b"{", "call.json is not a manifest of a recorded call"),
        ("call.json", b"\xff", "call.json is not a manifest of a recorded call"),
        ("call.json", b"[" * 100_000, "call.json is not a manifest of a recorded call"),
        ("call.json", b'{"tracks": []}', "call.json is not a manifest of a recorded call"),
        ("", None, "holds no manifest of a recorded call"),
    ],
)
def test_what_is_no_call_is_said(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ReportError, match=message):
        from_path(tmp_path / name)


def test_report_that_cannot_be_written_is_said(call):
    sources, _ = from_path(call)
    with pytest.raises(ReportError, match=r"cannot write .*missing"):
        write_report(sources, call.parent / "missing" / "report.html", max_audio_mb=0)


def test_files_of_a_split_recording_are_one_sound(call):
    sound, rate_hz = soundfile.read(call.with_name("call.wav"), dtype="int16")
    manifest = json.loads(call.read_text())
    manifest["files"] = []
    for n, first in enumerate(range(0, len(sound), 20 * rate_hz)):
        name = f"call-{n}.wav"
        soundfile.write(call.with_name(name), sound[first : first + 20 * rate_hz], rate_hz)
        manifest["files"].append({"recording": name, "start_s": 20.0 * n, "duration_s": 20.0})
    for track in manifest["tracks"]:
        track["recording"] = "call-0.wav"
    call.write_text(json.dumps(manifest))
    _, page = report(call, max_audio_mb=0)
    (view,) = data(page)["views"]
    assert [wave["start_s"] for wave in view["lanes"][1]["waves"]] == [0.0, 20.0, 40.0]
    assert view["audio"]["sources"] == {
        "both": [{"href": f"call-{n}.wav", "start_s": 20.0 * n} for n in range(3)]
    }
    _, page = report(call)
    content = io.BytesIO(base64.b64decode(page.scripts["audio-0"]))
    decoded, rate_hz = soundfile.read(content, dtype="float32")
    assert len(decoded) / rate_hz == pytest.approx(60.0, abs=0.1)
    assert np.abs(decoded[48 * rate_hz : 50 * rate_hz]).max() > 0.05
