"""The report in a browser: what its script draws."""

from __future__ import annotations

import json
import re

import matplotlib.image
import numpy as np
import pytest
from browser import BROWSER, HEIGHT, WIDTH, browse, facts
from reportcall import make_call

from strep.report import from_path, write_report

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium, found by its name or by the variable CHROMIUM"
)

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
INBOUND, OUTBOUND, OVER, LOST, KEY = (
    (0x2C, 0x6A, 0x9B), (0x23, 0x89, 0x7A), (0xD9, 0x85, 0x12), (0xD1, 0x35, 0x2B),
    (0x7A, 0x4F, 0xB5),
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The document and the picture of a call's page, which the browser has run."""
    folder = tmp_path_factory.mktemp("report")
    manifest = make_call(folder)
    document = json.loads(manifest.read_text())
    document["call"]["to"] = HOSTILE
    document["tracks"][1]["codec"] = HOSTILE
    document["tracks"][0]["concealed_at_s"] = [[41.0, 41.06], [44.2, 44.22]]
    document["tracks"][0]["changes"] = [
        {"kind": "codec", "at_s": 12.0, "codec": "PCMA"},
        {"kind": "source", "at_s": 14.0, "ssrc": "0x0000abcd"},
        {"kind": "hold", "at_s": 16.0, "gap_s": 90.0},
    ]
    manifest.write_text(json.dumps(document))
    sources, _ = from_path(manifest)
    out = write_report(sources, folder / "report.html").path
    picture = folder / "page.png"
    dom = browse(out.as_uri(), folder, "--dump-dom", f"--screenshot={picture}")
    if not dom or not picture.exists():  # browsers that do one thing at a time
        dom = browse(out.as_uri(), folder, "--dump-dom")
        browse(out.as_uri(), folder, f"--screenshot={picture}")
    return dom, matplotlib.image.imread(picture)[:, :, :3]


def test_both_lanes_are_drawn_with_all_that_happened(drawn):
    dom, _ = drawn
    lanes = facts(dom, "lane")
    assert [lane["lane"] for lane in lanes] == ["inbound", "outbound"]
    assert all(int(lane["wave-columns"]) > 900 for lane in lanes)
    assert all(int(lane["speech"]) >= 6 for lane in lanes)
    assert [lane["dtmf"] for lane in lanes] == ["5", "0"]
    assert [lane["concealed"] for lane in lanes] == ["2", "0"]
    assert [lane["paused"] for lane in lanes] == ["1", "1"]
    assert all(int(lane["lost"]) > 5 for lane in lanes)
    assert [net["net"] for net in facts(dom, "net")] == ["inbound", "outbound"]
    assert all(int(net["jitter-points"]) == 60 for net in facts(dom, "net"))
    (strip,) = facts(dom, "talk-over")
    assert int(strip["talk-over"]) >= 2
    assert int(strip["silence"]) >= 1
    (page,) = facts(dom, "ready")
    assert (page["view"], page["audio"]) == ("0", "embedded")


def test_changes_are_listed_and_drawn(drawn):
    dom, _ = drawn
    for told in ("The codec becomes PCMA", "Another source, 0x0000abcd", "for 1 min 30 s"):
        assert told in dom
    assert len(re.findall(r'<line class="cut" x1="[\d.]+" x2="[\d.]+" y1="8"', dom)) == 3


def test_hostile_names_are_text(drawn):
    dom, _ = drawn
    assert "<title>owned</title>" not in dom
    assert "&lt;/script&gt;&lt;script&gt;" in dom
    assert "<img" not in dom


def pixels(picture, colour, slack=0.08):
    return (np.abs(picture - np.array(colour) / 255) < slack).all(axis=2)


def test_colours_stand_where_they_should(drawn):
    _, picture = drawn
    assert picture.shape == (HEIGHT, WIDTH, 3)
    inbound, outbound = (
        np.flatnonzero(pixels(picture, c).sum(axis=1) > 40) for c in (INBOUND, OUTBOUND)
    )
    assert len(inbound) > 10
    assert len(outbound) > 10
    assert np.median(inbound) < np.median(outbound)  # the inbound lane is the upper one
    for colour in (OVER, LOST, KEY):
        assert pixels(picture, colour).sum() > 60


def test_keys_and_talk_over_stand_at_their_times(drawn):
    dom, picture = drawn
    over = re.search(r'class="over" d="M([\d.]+) ', dom)
    assert float(over[1]) / (WIDTH - 132) * 60 == pytest.approx(18.6, abs=0.3)
    rows, columns = np.nonzero(pixels(picture, KEY))
    keys = columns[rows < rows.min() + 17]  # further down there is one in the legend
    assert len(keys) > 500
    assert keys.min() == pytest.approx(WIDTH / 2, abs=40)
    assert keys.max() < WIDTH / 2 + 140


def test_list_of_calls_is_drawn(tmp_path):
    make_call(tmp_path / "one")
    other = make_call(tmp_path / "two")
    other.write_text(other.read_text().replace("428c31b6", "528c31b6"))
    sources, _ = from_path(tmp_path)
    out = write_report(sources, tmp_path / "report.html", title=HOSTILE, max_audio_mb=0).path
    dom = browse(out.as_uri(), tmp_path, "--dump-dom")
    (page,) = facts(dom, "ready")
    assert (page["view"], page["calls"]) == ("index", "2")
    assert len(re.findall(r'<a href="#/\d"', dom)) == 2
    assert "<title>owned</title>" not in dom
