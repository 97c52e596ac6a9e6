from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from pipeline.sinks.analyzers import AnalyzerSink
from pipeline.sinks.base import Analyzer, Sink, SinkError
from pipeline.sinks.load import load

if TYPE_CHECKING:
    from decimal import Decimal

    from pipeline.block import AudioBlock, Track


class Plain(Sink):
    def write(self, block: AudioBlock) -> None: ...


class Options(Plain):
    def __init__(
        self,
        *,
        directory: Path = Path("recordings"),
        layout: Literal["stereo", "mono"] = "stereo",
        rate: Literal[8000, 16000] = 8000,
        level: float = -40.0,
        count: Annotated[int, Field(ge=1)] = 1,
        loud: bool = False,
        note: str | None = None,
        tags: list[str] | None = None,
        anything=None,
        exact: Decimal | None = None,
        other: Plain | None = None,
        **_: Any,
    ) -> None:
        self.given = {key: value for key, value in locals().items() if key not in {"self", "_"}}
        self.given.pop("__class__", None)


class Needs(Plain):
    def __init__(self, model: Path, size: int) -> None:
        self.given = (model, size)


class Refuses(Plain):
    def __init__(self, flush_s: float = 1.0) -> None:
        raise SinkError(f"flush_s is {flush_s:g}, but must be more than 0")


class Breaks(Plain):
    def __init__(self) -> None:
        raise OSError("no device\nsecond line")


class Meter(Analyzer):
    made: ClassVar[list[tuple[Track, int, Path | None]]] = []

    def __init__(self, track: Track, window_ms: int = 20, *, folder: Path | None = None) -> None:
        super().__init__(track)
        self.made.append((track, window_ms, folder))

    def feed(self, pcm, position) -> None: ...


class Trackless(Analyzer):
    def __init__(self) -> None: ...

    def feed(self, pcm, position) -> None: ...


class NoWrite(Sink): ...


def name(cls: type) -> str:
    return f"{__name__}:{cls.__name__}"


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("directory", "a/b", Path("a/b")),
        ("layout", "mono", "mono"),
        ("rate", "16000", 16000),
        ("rate", 16000, 16000),
        ("level", "-30.5", -30.5),
        ("level", -30, -30.0),
        ("count", "3", 3),
        ("loud", "true", True),
        ("loud", "no", False),
        ("loud", True, True),
        ("note", "42", "42"),
        ("tags", ("a", "b"), ["a", "b"]),
        ("anything", "as it is", "as it is"),
    ],
)
def test_option_is_converted_by_its_annotation(option, given, expected):
    sink = load(name(Options), {option: given})
    assert isinstance(sink, Options)
    assert sink.given[option] == expected
    assert type(sink.given[option]) is type(expected)


def test_options_not_given_keep_the_defaults_of_the_constructor():
    sink = load(name(Options), {})
    assert isinstance(sink, Options)
    assert (sink.given["directory"], sink.given["layout"]) == (Path("recordings"), "stereo")


def test_default_of_the_caller_serves_where_the_sink_has_the_option_and_it_was_not_given():
    defaults = {"directory": Path("/calls")}
    sink = load(name(Options), {}, defaults)
    assert sink.given["directory"] == Path("/calls")
    sink = load(name(Options), {"directory": "mine"}, defaults)
    assert sink.given["directory"] == Path("mine")
    assert isinstance(load(name(Plain), {}, defaults), Plain)


def test_positional_parameters_are_options_too():
    assert load(name(Needs), {"model": "m.bin", "size": "3"}).given == (Path("m.bin"), 3)


def test_option_out_of_its_range_names_the_sink_once():
    message = "^sink 'vad': start_ms must be between 0 and 10000, not -1$"
    with pytest.raises(SinkError, match=message):
        load("vad", {"start_ms": "-1"})


def test_analyser_is_run_by_a_sink_with_converted_options(monkeypatch):
    monkeypatch.setattr(Meter, "made", [])
    sink = load(name(Meter), {"window_ms": "30"})
    assert isinstance(sink, AnalyzerSink)
    assert Meter.made == []
    assert sink._analyzer is Meter
    assert sink._options == {"window_ms": 30}


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            Options,
            {"layout": "quad"},
            "sink '{}': layout=quad is wrong: input should be 'stereo' or 'mono'",
        ),
        (
            Options,
            {"rate": "44100"},
            "sink '{}': rate=44100 is wrong: input should be 8000 or 16000",
        ),
        (
            Options,
            {"level": "loud"},
            (
                "sink '{}': level=loud is wrong: input should be a valid number, "
                "unable to parse string as a number"
            ),
        ),
        (
            Options,
            {"count": 0},
            "sink '{}': count=0 is wrong: input should be greater than or equal to 1",
        ),
        (
            Options,
            {"count": True},
            "sink '{}': count=True is wrong: input should be a valid integer",
        ),
        (Options, {"note": 3}, "sink '{}': note=3 is wrong: input should be a valid string"),
        (
            Options,
            {"exact": "1"},
            (
                "sink '{}': exact cannot be set, since its type Decimal | None "
                "is not known at run time or cannot be checked"
            ),
        ),
        (
            Options,
            {"other": "1"},
            (
                "sink '{}': other cannot be set, since its type Plain | None "
                "is not known at run time or cannot be checked"
            ),
        ),
        (Plain, {"layout": "mono"}, "sink '{}' has no option 'layout'; it has no options"),
        (
            Needs,
            {"modle": "m"},
            (
                "sink '{}' has no option 'modle'; "
                "its options are model (Path, required), size (int, required)"
            ),
        ),
        (Needs, {"model": "m"}, "sink '{}' needs the option size (int, required)"),
        (Refuses, {"flush_s": "0"}, "sink '{}': flush_s is 0, but must be more than 0"),
        (Breaks, {}, "sink '{}' cannot be made: OSError: no device"),
        (
            Meter,
            {"window": "30"},
            (
                "sink '{}' has no option 'window'; its options are "
                "window_ms (int, default 20), folder (Path | None, default None)"
            ),
        ),
        (
            Meter,
            {"window_ms": "long"},
            (
                "sink '{}': window_ms=long is wrong: input should be a valid integer, "
                "unable to parse string as an integer"
            ),
        ),
        (Trackless, {}, "analyser '{}' does not take the track as its first argument"),
        (NoWrite, {}, "sink '{}' is not complete: it does not implement write"),
        (Path, {}, "'{}' is no sink: it is not a subclass of Sink or Analyzer"),
        (
            str,
            {},
            "sink '{}' cannot be imported: AttributeError: module '{m}' has no attribute 'str'",
        ),
    ],
)
def test_wrong_option_or_class_is_told_in_one_sentence(cls, options, message):
    with pytest.raises(SinkError) as raised:
        load(name(cls), options)
    assert str(raised.value) == message.replace("{}", name(cls)).replace("{m}", __name__)


def test_unknown_name_lists_the_known_ones(installed):
    installed({"wav": "somewhere:Wav", "meter": "meters:Meter"}, "")
    with pytest.raises(SinkError) as raised:
        load("waf", {})
    sentence = str(raised.value)
    assert sentence.startswith("there is no sink 'waf'; there are ")
    assert {"meter", "wav"} <= set(
        sentence[len("there is no sink 'waf'; there are ") :].split(", ")
    )
    assert sentence.endswith(", and others as package.module:Class")


def test_option_without_a_value_is_not_taken_for_a_class(installed):
    installed({"meter": "meters:Meter"}, "")
    with pytest.raises(SinkError) as raised:
        load("meter:loud", {})
    assert str(raised.value) == "'meter:loud' is no sink: options are written as in meter:key=value"


@pytest.mark.parametrize("text", ["", "wav ", "a b:C", ":C", "m:", "a:b:c"])
def test_name_of_no_form_is_unknown(text):
    with pytest.raises(SinkError, match=f"^there is no sink {text!r}; "):
        load(text, {})


GOOD = """
from pipeline.sinks import Sink

class Counter(Sink):
    def __init__(self, start: int = 0):
        self.start = start
    def write(self, block): ...

not_a_class = 3
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution with entry points and one module, `strep_test_plugin`."""

    def install(points: dict[str, str], source: str) -> None:
        info = tmp_path / "strep_test_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: strep-test-plugin\nVersion: 1.0\n"
        )
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[strep.sinks]", *lines]))
        (tmp_path / "strep_test_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("strep_test_plugin", None)


def test_sink_of_another_distribution_is_found_by_its_entry_point(installed):
    installed({"counter": "strep_test_plugin:Counter"}, GOOD)
    sink = load("counter", {"start": "5"})
    assert type(sink).__name__ == "Counter"
    assert sink.start == 5


@pytest.mark.parametrize(
    ("value", "source", "message"),
    [
        (
            "strep_test_plugin:Gone",
            GOOD,
            (
                "sink 'broken' cannot be imported: AttributeError: "
                "module 'strep_test_plugin' has no attribute 'Gone'"
            ),
        ),
        (
            "strep_test_gone:Counter",
            GOOD,
            (
                "sink 'broken' cannot be imported: ModuleNotFoundError: "
                "No module named 'strep_test_gone'"
            ),
        ),
        (
            "strep_test_plugin:Counter",
            "import strep_test_gone",
            (
                "sink 'broken' cannot be imported: ModuleNotFoundError: "
                "No module named 'strep_test_gone'"
            ),
        ),
        (
            "strep_test_plugin:Counter",
            "class Counter(",
            (
                "sink 'broken' cannot be imported: SyntaxError: "
                "'(' was never closed (strep_test_plugin.py, line 1)"
            ),
        ),
        (
            "strep_test_plugin:Counter",
            "raise RuntimeError",
            "sink 'broken' cannot be imported: RuntimeError: ",
        ),
        (
            "strep_test_plugin:not_a_class",
            GOOD,
            "'broken' is no sink: it is not a subclass of Sink or Analyzer",
        ),
    ],
)
def test_broken_entry_point_is_told_in_one_sentence(installed, value, source, message):
    installed({"broken": value}, source)
    with pytest.raises(SinkError) as raised:
        load("broken", {})
    assert str(raised.value) == message


def test_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "strep_test_local.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = list(sys.path)
    try:
        sink = load("strep_test_local:Counter", {})
    finally:
        sys.modules.pop("strep_test_local", None)
    assert type(sink).__name__ == "Counter"
    assert sys.path == before


def test_module_in_the_current_directory_never_hides_an_installed_one(tmp_path, monkeypatch):
    (tmp_path / "colorsys.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(SinkError, match="module 'colorsys' has no attribute 'Counter'"):
        load("colorsys:Counter", {})


def test_path_that_holds_the_current_directory_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "strep_test_local.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = list(sys.path)
    try:
        load("strep_test_local:Counter", {})
    finally:
        sys.modules.pop("strep_test_local", None)
    assert sys.path == before
