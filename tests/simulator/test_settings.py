from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from strep.simulator.faults import CommandFault, WebhookFault
from strep.simulator.scenario import (
    AudioPlan,
    CallPlan,
    CodecChange,
    Hold,
    NetworkPlan,
    Reinvite,
    Typing,
)
from strep.simulator.settings import Flag, Scenarios, Settings, check, load
from strep.specs import Address, ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "simulator.md"

FILE = """
seed = 7
speed = 20
webhook_url = "http://127.0.0.1:8080/webhooks"

[call]
talk_s = 12.5

[audio]
inbound = "voice.wav"
codec = "pcma"

[network]
loss = 0.02
trace = "trace.csv"

[[event]]
kind = "reinvite"
at_s = 8

[[event]]
kind = "hold"
at_s = 5
for_s = 2

[scenario.busy]
to = ["+1555012*"]
call = { outcome = "busy" }

[scenario.clean]
network = { loss = 0, trace = "" }
event = []

[traffic]
calls = 50
rate_per_s = 10
from = "+15550001"
fork = "127.0.0.1:9000"

[[fault]]
command = "fork_start"
status = 429
retry_after_s = 1

[[webhook_fault]]
event = "call.answered"
kind = "twice"
times = 0
"""


@pytest.fixture
def file(tmp_path):
    soundfile.write(tmp_path / "voice.wav", np.zeros(160, np.int16), 8000)
    (tmp_path / "trace.csv").write_text("relative_delay_ms\n1\n2\n")
    path = tmp_path / "scenario.toml"
    path.write_text(FILE)
    return path


def test_file_says_it_all(file):
    settings = load(file)
    assert (settings.seed, settings.speed) == (7, 20.0)
    assert settings.call.talk_s == 12.5
    assert settings.audio.codec == "PCMA"
    assert settings.event == (
        Hold(kind="hold", at_s=5.0, for_s=2.0),
        Reinvite(kind="reinvite", at_s=8.0),
    )
    assert settings.traffic.calls == 50
    assert settings.traffic.from_ == "+15550001"
    assert settings.traffic.fork == Address("127.0.0.1", 9000)
    assert settings.fault == (CommandFault(command="fork_start", status=429, retry_after_s=1),)
    assert settings.webhook_fault[0].times == 0


def test_file_of_the_documentation_is_right(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    settings = load(path)
    assert settings.traffic.calls == 50
    assert [type(event) for event in settings.event] == [Reinvite, Hold, Typing]


@pytest.mark.parametrize(
    "model", [Settings, CallPlan, AudioPlan, NetworkPlan, CommandFault, WebhookFault]
)
def test_every_key_is_documented(model):
    text = DOCS.read_text()
    tables = {"call", "audio", "network", "event", "traffic", "fault", "webhook_fault", "scenario"}
    keys = set(model.model_fields) - tables
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_named_scenarios_differ_in_what_they_say(file):
    scenarios = Scenarios(load(file), file.parent)
    busy, clean = scenarios.named("busy"), scenarios.named("clean")
    assert busy.call.outcome == "busy"
    assert busy.call.talk_s == 12.5
    assert busy.network.loss == 0.02
    assert len(busy.event) == 2
    assert clean.network.loss == 0
    assert clean.event == ()
    assert scenarios.trace(clean) is None
    assert scenarios.trace(busy).delay_s.tolist() == [0.001, 0.002]


def test_dialled_numbers_choose_their_scenario(file):
    scenarios = Scenarios(load(file), file.parent)
    assert scenarios.for_number("+15550123").call.outcome == "busy"
    assert scenarios.for_number("+15550199") == scenarios.default


def test_sounds_are_found_beside_the_file_and_loaded_once(file):
    scenarios = Scenarios(load(file), file.parent)
    assert scenarios.audio("voice.wav").samples == 160
    assert scenarios.audio("voice.wav") is scenarios.audio("voice.wav")


def test_without_anything_calls_are_answered_and_go_on():
    settings = load(None)
    assert (settings.call.outcome, settings.call.talk_s) == ("answer", 0.0)
    assert settings.network.impairments.loss == 0
    assert settings.traffic.calls == 0


def test_flags_go_before_the_file_and_events_behind_its_events(file):
    settings = load(
        file,
        [
            Flag("--loss", ("network", "loss"), "0.5"),
            Flag("--seed", ("seed",), "9"),
            Flag("--digits 3:12", ("event",), {"kind": "digits", "at_s": "3", "digits": "12"}),
            Flag("--change-codec 4:PCMU", ("event",),
                 {"kind": "codec", "at_s": "4", "codec": "PCMU"}),
        ],
    )  # fmt: skip
    assert settings.network.loss == 0.5
    assert settings.seed == 9
    assert [type(event) for event in settings.event] == [Typing, CodecChange, Hold, Reinvite]


def impairment(text):
    return f"[network]\n{text}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "not valid TOML: Invalid value (at end of document)"),
        ("sed = 1", "settings: unknown key 'sed'; did you mean seed?"),
        ("seed = -1", "seed: -1 is not a whole number from 0 to 2147483648"),
        ("speed = 0", "speed: 0 is not a number from 0.01 to 1000"),
        (impairment("loss = 2"), "network.loss: 2 is not a number from 0 to 0.99"),
        (impairment("lss = 2"), "network: unknown key 'lss'; did you mean loss?"),
        (impairment("loss = true"), "network.loss: True is not a number from 0 to 0.99"),
        (impairment("trace = 'x'\njitter_ms = 1"),
         "network: trace and jitter_ms are not given together"),
        (impairment("trace = 'nowhere.csv'"),
         "network.trace: {folder}/nowhere.csv: cannot be read: No such file or directory"),
        ("network = 3", "network: a table is expected"),
        ("[audio]\ncodec = 'G729'", "audio.codec: 'G729' is not PCMU or PCMA"),
        ("[audio]\nloop = 'maybe'", "audio.loop: 'maybe' is not true or false"),
        ("[audio]\ninbound = ''", "audio.inbound: '' is not caller, agent, silence or a file"),
        ("[audio]\noutbound = 'x.wav'",
         "audio.outbound: cannot read audio from {folder}/x.wav: no such file"),
        ("[call]\noutcome = 'maybe'",
         "call.outcome: 'maybe' is not answer, busy, reject or no_answer"),
        ("[call]\nlegs = 3", "call.legs: 3 is not a whole number from 1 to 2"),
        ("[event]\nkind = 'hold'",
         "event: a list of tables is expected: write [[...]], not [...]"),
        ("[[event]]\nkind = 'hodl'",
         "event[0]: kind is 'hodl', expected hold, reinvite, codec, digits"),
        ("[[event]]\nkind = 'hold'\nat_s = 1", "event[0]: for_s is missing"),
        ("[[event]]\nkind = 'digits'\nat_s = 1\ndigits = '1x'",
         "event[0].digits: '1x' is not a text of up to 128 digits of 0123456789*#ABCD"),
        ("[scenario.a.call]\nring_s = 999",
         "scenario.a.call.ring_s: 999 is not a number from 0 to 120"),
        ("[scenario.a]\nto = '+1'", "scenario.a.to: '+1' is not a list of numbers"),
        ("[scenario]\na = 1",
         "scenario: {{'a': 1}} is not a table of tables: write [scenario.NAME]"),
        ("[traffic]\nscenario = 'b'", "unknown scenario 'b'; there are none with names"),
        ("[traffic]\nscenario = 'bsy'\n[scenario.busy]",
         "unknown scenario 'bsy'; did you mean busy?"),
        ("[traffic]\nfork = 'nowhere:1'",
         "traffic.fork: 'nowhere:1' is not IP:PORT (such as 127.0.0.1:9000, ports 1 to 65535)"),
        ("[[fault]]\nstatus = 200", "fault[0].status: 200 is not a whole number from 400 to 599"),
        ("[[fault]]\ncommand = 'fork_strat'",
         "fault[0].command: unknown command 'fork_strat'; did you mean fork_start?"),
        ("[[webhook_fault]]\nevent = 'call.answer'",
         "webhook_fault[0].event: unknown event 'call.answer'; did you mean call.answered?"),
        ("[[webhook_fault]]\nkind = 'odd'",
         "webhook_fault[0].kind: 'odd' is not late, twice, swapped, bad_signature, stale or lost"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_one_line(text, message, tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value) == f"{path}: {message.format(folder=tmp_path)}"


def test_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"^nowhere\.toml: cannot be read: No such file"):
        load(Path("nowhere.toml"))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (Flag("--loss", ("network", "loss"), "x"), "--loss: 'x' is not a number from 0 to 0.99"),
        (Flag("--hold 5", ("event",), {"kind": "hold", "at_s": "5", "for_s": ""}),
         "--hold 5: for_s: '' is not a number from 0 to 14400"),
        (Flag("--fault dial:b", ("fault",), {"command": "dial", "status": "b"}),
         "--fault dial:b: status: 'b' is not a whole number from 400 to 599"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_flag_names_the_flag(flag, message, file):
    with pytest.raises(ConfigError) as error:
        load(file, [flag])
    assert str(error.value) == message


def test_flag_of_a_table_that_is_none_names_the_file(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text("network = 3")
    with pytest.raises(ConfigError, match=r"scenario\.toml: network: 3 is not a table"):
        load(path, [Flag("--loss", ("network", "loss"), "0.1")])


def test_json_documents_are_checked_in_the_same_words():
    with pytest.raises(ConfigError, match=r"^network\.loss: 2 is not a number from 0 to 0\.99$"):
        check({"network": {"loss": 2}}, Settings)
    with pytest.raises(ConfigError, match=r"^a table is expected$"):
        check([1], Settings)
