"""Finds a sink by name and makes it, its options converted and checked.

A name is either that of an entry point of the group `strep.sinks`, or `package.module:Class`,
which is looked for where Python finds its modules and at last in the current directory; there it
never stands before an installed module. The class is a `Sink`, or an `Analyzer`, which is run by
an `AnalyzerSink`.

Options are the named parameters of the constructor (of an analyser, those after the track);
`*args` and `**kwargs` are none. Each is checked by its annotation, which therefore has to be
importable at run time. Text is converted (`20`, `0.5`, `true`, a path, a choice of a Literal),
numbers and truth values have to be of the right type already.
"""

from __future__ import annotations

import inspect
import re
import sys
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from pipeline.sinks.analyzers import AnalyzerSink
from pipeline.sinks.base import Analyzer, Place, Sink, SinkError
from pipeline.sinks.process import ProcessSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GROUP = "strep.sinks"
_OF_ALL = ("run", "max_memory_mb")


def load(
    name: str, options: Mapping[str, object], defaults: Mapping[str, object] | None = None
) -> Sink:
    """Make the sink `name` with `options`.

    Two options are not the sink's: `run` says where it runs (`inline`, `thread`, `process`), and
    `max_memory_mb` how much memory it may take in a process of its own; there it is made later.
    `defaults` are values for options that the sink has and that were not given. Raises SinkError
    with one sentence: no such sink, not a sink, an unknown, missing or wrong option.
    """
    place, max_memory_mb = _place(name, options)
    options = {key: value for key, value in options.items() if key not in _OF_ALL}
    cls, values = _checked(name, options, defaults or {})
    if place == "process":
        if issubclass(cls, Sink) and not cls.own_process:
            raise SinkError(f"sink {name!r} cannot run in a process of its own")
        return ProcessSink(name, options, defaults or {}, max_memory_mb=max_memory_mb)
    sink = _made(name, cls, values)
    if place is not None:
        sink.runs_in = place
    return sink


def _place(name: str, options: Mapping[str, object]) -> tuple[Place | None, int]:
    """Return where the sink is told to run, and how much memory it may take there."""
    place: Place | None
    match options.get("run"):
        case None:
            place = None
        case "inline" | "thread" | "process" as place:
            pass
        case other:
            raise SinkError(f"sink {name!r}: run={other} is none of inline, thread and process")
    given = options.get("max_memory_mb", 0)
    limit = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise SinkError(f"sink {name!r}: max_memory_mb={given} is no whole number from 0 on")
    if limit and place != "process":
        raise SinkError(f"sink {name!r}: max_memory_mb needs run=process")
    return place, limit


def _checked(
    name: str, options: Mapping[str, object], defaults: Mapping[str, object]
) -> tuple[type[Sink | Analyzer], dict[str, object]]:
    """Return the class and the converted values of its options."""
    cls = _find(name)
    parameters = _parameters(name, cls)
    for key in options:
        if key not in parameters:
            raise SinkError(f"sink {name!r} has no option {key!r}; {_listed(parameters)}")
    given = {key: value for key, value in defaults.items() if key in parameters}
    given |= options
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in given:
            raise SinkError(f"sink {name!r} needs the option {_described(parameter)}")
    return cls, {key: _converted(name, cls, parameters[key], given[key]) for key in given}


def _made(name: str, cls: type[Sink | Analyzer], values: dict[str, object]) -> Sink:
    if issubclass(cls, Analyzer):
        return AnalyzerSink(cls, values)
    try:
        return cls(**values)
    except SinkError as error:
        raise SinkError(f"sink {name!r}: {str(error).removeprefix(f'{name}: ')}") from error
    except Exception as error:
        raise SinkError(f"sink {name!r} cannot be made: {_brief(error)}") from error


def _find(name: str) -> type[Sink | Analyzer]:
    known, colon, _ = name.partition(":")
    if colon and known in entry_points(group=GROUP).names:
        raise SinkError(f"{name!r} is no sink: options are written as in {known}:key=value")
    try:
        if re.fullmatch(r"[\w.]+:[\w.]+", name):
            with _current_directory():
                found = EntryPoint(name, name, GROUP).load()
        else:
            found = _entry_point(name).load()
    except SinkError:
        raise
    except Exception as error:
        raise SinkError(f"sink {name!r} cannot be imported: {_brief(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Sink | Analyzer)):
        raise SinkError(f"{name!r} is no sink: it is not a subclass of Sink or Analyzer")
    if inspect.isabstract(found):
        missing = " and ".join(sorted(found.__abstractmethods__))
        raise SinkError(f"sink {name!r} is not complete: it does not implement {missing}")
    return found


def _entry_point(name: str) -> EntryPoint:
    points = entry_points(group=GROUP)
    if name in points.names:
        return points[name]
    raise SinkError(
        f"there is no sink {name!r}; there are {', '.join(sorted(points.names))}, "
        "and others as package.module:Class"
    )


@contextmanager
def _current_directory() -> Iterator[None]:
    """Look for modules in the current directory, too, but after everything else."""
    here = ""
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _parameters(name: str, cls: type[Sink | Analyzer]) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(cls).parameters.values())
    if issubclass(cls, Analyzer):
        if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise SinkError(f"analyser {name!r} does not take the track as its first argument")
        del parameters[0]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in named}


def _converted(
    name: str, cls: type[Sink | Analyzer], parameter: inspect.Parameter, value: object
) -> object:
    if parameter.annotation is parameter.empty:
        return value
    # One at a time: other annotations, an analyser's `Track` for one, may be there for type
    # checkers only.
    annotated = SimpleNamespace(__annotations__={"option": parameter.annotation})
    module = getattr(cls.__init__, "__globals__", {})
    try:
        hint = get_type_hints(annotated, module, include_extras=True)["option"]
        if get_origin(hint) is Literal:
            choices = {str(choice): choice for choice in get_args(hint)}
            value = choices.get(value, value) if isinstance(value, str) else value
        exact = isinstance(value, bool | int | float)
        return TypeAdapter[object](hint).validate_python(value, strict=exact)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise SinkError(
            f"sink {name!r}: {parameter.name}={value} is wrong: {message[:1].lower()}{message[1:]}"
        ) from None
    except (NameError, PydanticUserError):
        raise SinkError(
            f"sink {name!r}: {parameter.name} cannot be set, since its type "
            f"{_annotation(parameter)} is not known at run time or cannot be checked"
        ) from None


def _listed(parameters: Mapping[str, inspect.Parameter]) -> str:
    if not parameters:
        return "it has no options"
    return f"its options are {', '.join(map(_described, parameters.values()))}"


def _described(parameter: inspect.Parameter) -> str:
    kind = "" if parameter.annotation is parameter.empty else f"{_annotation(parameter)}, "
    if parameter.default is parameter.empty:
        return f"{parameter.name} ({kind}required)"
    return f"{parameter.name} ({kind}default {parameter.default})"


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _brief(error: Exception) -> str:
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"
