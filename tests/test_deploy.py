"""What is meant to be copied by operators is right, as far as that can be told here."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_metrics import PLANE

from pipeline.distributions import Distributions
from pipeline.sinks.wav import WavSink
from strep.config import load
from strep.control.figures import MemoryFigures
from strep.control.webhooks import WebhookReceiver
from strep.figures import Figures, Overview, WorkerView
from strep.http import ConnectionsClosed
from strep.metrics import exposition
from strep.wire import DropReason

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RULES = (DEPLOY / "alerts.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)\n +expr: (.+)\n", RULES)
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
REASONS = {reason.label for reason in DropReason}


def metric_names():
    """Return every name that a sample of the daemon can have."""
    figures = Figures(
        datagrams={"accepted": 1},
        tracks_closed={"idle": 1},
        sink_frames={"wav": 1},
        sink_dropped_frames={"wav": 1},
        sink_errors={"wav": 1},
        sink_restarts={"wav": 1},
        sink_queue_bytes={"wav": 1},
        sink_off={"wav": 0},
        sink_counters={"wav": WavSink().counters()},
        sink_gauges={"wav": WavSink().gauges()},
        tracks_distributed=Distributions().as_dict(),
        rtcp={"matched": 1},
    )
    text = exposition(
        Overview([WorkerView(0, 1, "up", figures)]),
        0,
        memory=MemoryFigures(0, 0, 0),
        plane=PLANE,
        webhooks=WebhookReceiver(print, public_key=None, allow_unsigned=True),
        rescued={"finished": 1},
        http=ConnectionsClosed(1, 2),
    ).decode()
    return {
        sample.name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


NAMES = metric_names()


def test_there_are_alerts_and_each_name_once():
    names = [name for name, _ in ALERTS]
    assert len(names) == len(set(names)) == RULES.count("- alert:") > 20


@pytest.mark.parametrize(("alert", "expression"), ALERTS)
def test_alert_asks_for_metrics_that_there_are(alert, expression):
    without_labels = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    asked = set(re.findall(r"\b(?:strep|process)_\w+", without_labels))
    assert asked <= NAMES
    assert asked or "up" in expression
    assert without_labels.count("(") == without_labels.count(")")
    assert f"`{alert}`" in OPERATIONS


def metrics_told():
    """Return the metrics in the tables of the documents: of each, all that it may stand for.

    `_ending` stands for the name before it in its row, with another end.
    """
    told = []
    for name in ("operations", "control"):
        text = (ROOT / "docs" / f"{name}.md").read_text()
        for cell in re.findall(r"^\| (`strep_.*?) \|", text, re.MULTILINE):
            first, *others = re.findall(r"`(\w+)(?:\{[^}]*\})?`", cell)
            if first in REASONS:
                continue
            stems = [first[: each.start()] for each in re.finditer("_", first)]
            told.append({first})
            told += [{f"{stem}{each}" for stem in stems} | {each} for each in others]
    return told


def test_every_metric_is_explained_and_no_other():
    own = {name for name in NAMES if name.startswith("strep_")} - {"strep_info"}
    own = {re.sub(r"(_bucket|_count|_sum)$", "", name) for name in own}  # of histograms
    told = metrics_told()
    assert own - set().union(*told) == set()
    assert [each for each in told if not each & own] == []


@pytest.mark.parametrize("document", ["operations", "control", "security", "http", "audio"])
def test_documents_name_metrics_that_there_are(document):
    text = (ROOT / "docs" / f"{document}.md").read_text()
    histograms = {name.removesuffix("_bucket") for name in NAMES}
    told = set(re.findall(r"\bstrep_[a-z][a-z_]*[a-z]\b", text))
    assert told - NAMES - histograms - REASONS - {"strep_kernel"} == set()


def test_every_reason_of_a_drop_is_explained():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", OPERATIONS, re.MULTILINE)
    told = {reason for row in rows for reason in re.findall(r"\w+", row)}
    assert REASONS - told == set()


def test_example_of_settings_is_right_and_so_is_what_it_leaves_out():
    text = (DEPLOY / "strep.toml").read_text()
    assert load(DEPLOY / "strep.toml", {}, {}).workers == "auto"
    whole = re.sub(r"^#(?=\[|\w+ = )", "", text, flags=re.MULTILINE)
    settings = tomllib.loads(whole)
    assert settings["keep_calls_days"] == 90
    assert set(settings["control"]) == {
        "webhook_public_key", "media_target", "admission", "auto_fork",
    }  # fmt: skip


def test_unit_is_notified_hardened_and_starts_what_there_is():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(DEPLOY / "strep.service")
    service = dict(unit["Service"])
    assert service["Type"] == "notify"
    assert service["ExecStart"].startswith("/opt/strep/bin/strep serve --config ")
    assert service["CapabilityBoundingSet"] == ""
    for key in ("NoNewPrivileges", "PrivateUsers", "MemoryDenyWriteExecute", "PrivateDevices"):
        assert service[key] == "yes"
    assert service["ProtectSystem"] == "strict"


def test_firewall_is_balanced_and_names_the_default_ports():
    rules = (DEPLOY / "nftables.conf").read_text()
    assert rules.count("{") == rules.count("}")
    assert "udp dport { 9000," in rules
    assert "tcp dport 8080" in rules


def locked(name):
    """Return the versions that a lock has, by name, and how many hashes each has."""
    text = (ROOT / name).read_text()
    pin = r"^([a-z0-9._-]+)==(\S+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)"
    found = re.findall(pin, text, re.MULTILINE)
    assert len(found) == text.count("==")
    assert "://" not in text, "an index's address does not belong here"
    return {name: (version, hashes.count("sha256:")) for name, version, hashes in found}


def wanted(requirement):
    """Return the name of a requirement and the least version that it asks for."""
    name, least = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement).groups()
    return name.lower(), tuple(map(int, least.split(".")))


@pytest.mark.parametrize(
    ("lock", "section", "key"),
    [
        ("requirements.lock", "project", "dependencies"),
        ("requirements-build.lock", "build-system", "requires"),
    ],
)
def test_container_installs_what_the_project_asks_for(lock, section, key):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = locked(lock)
    assert all(hashes for _, hashes in pinned.values())
    for requirement in project[section][key]:
        name, least = wanted(requirement)
        version = tuple(map(int, pinned[name][0].split(".")))
        assert version >= least, requirement
    commands = (ROOT / "Dockerfile").read_text().replace("\\\n", "").split("RUN ")
    assert re.search(rf"--require-hashes [^&]*-r {lock}\b", "".join(commands))


def test_container_is_nobody_and_writes_one_folder():
    image = (ROOT / "Dockerfile").read_text()
    assert "\nUSER 10001:10001\n" in image
    assert re.findall(r"^VOLUME (.*)$", image, re.MULTILINE) == ["/recordings"]
    for option in ("--read-only", "--cap-drop ALL", "no-new-privileges"):
        assert option in image
