"""The parameters of Call Commands as flags, made from the commands' models."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import textwrap
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, WrapValidator

from strep.cli.errors import WrongInputError
from strep.validation import Between

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strep.control.base import Command

UNLIMITED = 2**31 - 1
"""A range up to here has no other end than the carrier's integers."""
REPEATED = "to"
"""The parameter that is a text or a list of texts."""
SECRET = "sip_auth_password"  # noqa: S105 -- a parameter's name
"""The parameter that is nobody else's business."""
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "from_display_name": "the caller's name (default: as --from)",
        "time_limit_secs": "the longest that the call may take",
    }
)
"""What the models' words would not say here."""
OTHERWISE: Mapping[str, str] = MappingProxyType(
    {
        "answering_machine_detection": "whether to find out who answers",
        "answering_machine_detection_config": "limits of that detection",
        "audio_url": "WAV or MP3",
        "billing_group_id": "a UUID",
        "cache_audio": "keep the file for the next time",
        "client_state": "state for every further webhook of the call; it is encoded in Base64 here",
        "command_id": "the carrier obeys an id once (default: a random one)",
        "custom_headers": 'SIP headers: [{"name": "X-Ticket", "value": "17"}]',
        "dialogflow_config": "how Dialogflow listens",
        "enable_dialogflow": "let Dialogflow listen to the call",
        "from": "the caller's number, such as +18005550101",
        "initial_timeout_millis": "for the first digit",
        "inter_digit_timeout_millis": "for each further digit",
        "invalid_media_name": "an uploaded file, played when the digits are not valid",
        "language": "of the voice",
        "max_wait_time_secs": "how long it may wait in the queue",
        "maximum_digits": "how many are gathered at most",
        "maximum_tries": "how often the digits are asked for",
        "media_name": "an uploaded file",
        "minimum_digits": "how many are gathered at least",
        "payload": "what is spoken, text or SSML",
        "payload_type": "what the payload is",
        "queue": "bridge with the first call of this queue",
        "queue_name": "the queue's name",
        "record": "record at the carrier's",
        "record_channels": "of the recording",
        "record_format": "of the recording",
        "send_silence_when_idle": "send packets of silence when there is nothing to send",
        "sip_auth_password": "@FILE holds it; what is written here others on this host can see",
        "sip_auth_username": "for the other side's SIP challenge",
        "sip_headers": 'standard SIP headers: [{"name": "User-to-User", "value": "..."}]',
        "sound_modifications": 'sound effects: {"pitch": 0.8}',
        "stop": "the file that is being played, or all that wait too",
        "stream_track": "what is sent to the stream",
        "stream_url": "a WebSocket to stream the call to",
        "target_legs": "who hears it",
        "terminating_digit": "ends the digits early",
        "to": "the number or SIP URI to call; repeat for several",
        "valid_digits": "which are taken",
        "voice": "the voice's gender",
        "webhook_url": "where the call's webhooks go",
        "webhook_url_method": "of these webhooks",
    }
)
"""What the models leave to their names."""


def add_parameters(parser: argparse.ArgumentParser, command: type[Command]) -> None:
    """Add a flag for each parameter, and one for what the carrier's reference does not name."""
    needed = parser.add_argument_group("needed parameters")
    others = parser.add_argument_group("parameters")
    texts = _docstrings(command)
    hints = get_type_hints(command, include_extras=True)
    for name, field in command.model_fields.items():
        parameter = field.alias or name
        leaves = set(_leaves(hints[name]))
        text = INSTEAD.get(parameter) or texts.get(name) or OTHERWISE[parameter]
        if choices := _choices(leaves):
            text += f": {', '.join(choices)}"
        text += "".join(f", {limits}" for limits in _ranges(hints[name]))
        if not (field.is_required() or field.default is None):
            text += f" (default {_shown(field.default)})"
        (needed if field.is_required() else others).add_argument(
            f"--{parameter.replace('_', '-')}",
            dest=_dest(parameter),
            help=text.replace("%", "%%"),
            **_kind(leaves, parameter),
        )
    others.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter that has no flag; VALUE is JSON or else a text; can be repeated",
    )


def read_parameters(arguments: argparse.Namespace, command: type[Command]) -> dict[str, Any]:
    """Return the parameters that were given, by name. Raises `WrongInputError`."""
    given = {}
    for name, field in command.model_fields.items():
        parameter = field.alias or name
        value = getattr(arguments, _dest(parameter))
        if value is not None:
            given[parameter] = value[0] if parameter == REPEATED and len(value) == 1 else value
    for item in arguments.set:
        name, equals, text = item.partition("=")
        if not (name and equals):
            raise WrongInputError(f"--set: {item!r} is not NAME=VALUE")
        if name in given:
            raise WrongInputError(f"--set: {name} is given twice")
        given[name] = _json_or_text(text)
    return given


def _kind(leaves: set[Any], parameter: str) -> dict[str, Any]:
    """Return how a value is read, by the types that it may have."""
    if bool in leaves:
        return {"action": argparse.BooleanOptionalAction}
    if any(isinstance(leaf, type) and issubclass(leaf, BaseModel) for leaf in leaves):
        return {"metavar": "JSON|@FILE", "type": _json_argument}
    if bytes in leaves:
        return {"metavar": "TEXT|@FILE", "type": _bytes_argument}
    if parameter == SECRET:
        return {"metavar": "PASSWORD|@FILE", "type": _secret_argument}
    return {
        "metavar": parameter.rsplit("_", 1)[-1].upper(),
        "action": "append" if parameter == REPEATED else "store",
    }


def _choices(leaves: set[Any]) -> list[str]:
    """Return the texts that a parameter may have, where there are but some."""
    return sorted(leaf for leaf in leaves if isinstance(leaf, str))


def _leaves(annotation: Any) -> Iterator[Any]:
    """Give out the types and the choices that an annotation is made of."""
    inside = get_args(annotation)
    if get_origin(annotation) is Annotated:
        inside = inside[:1]
    if not inside:
        yield annotation
    for each in inside:
        yield from _leaves(each)


def _ranges(annotation: Any) -> Iterator[Between]:
    """Give out the ranges of an annotation that mean something."""
    for inside in get_args(annotation):
        match inside:
            case WrapValidator(func=Between() as limits) if limits.high < UNLIMITED:
                yield limits
        yield from _ranges(inside)


def _docstrings(command: type[Command]) -> dict[str, str]:
    """Return what stands below the fields in the source, as phrases without a full stop."""
    module = ast.parse(textwrap.dedent(inspect.getsource(command)))
    source = next(node for node in module.body if isinstance(node, ast.ClassDef))
    texts = {}
    for statement, following in zip(source.body, source.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                phrase = " ".join(str(text).split()).removesuffix(".")
                texts[name] = phrase[0].lower() + phrase[1:] if phrase[1:2].islower() else phrase
    return texts


def _dest(parameter: str) -> str:
    return f"parameter {parameter}"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json_argument(text: str) -> Any:
    source = _file(text).decode(errors="replace") if text.startswith("@") else text
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None


def _bytes_argument(text: str) -> str | bytes:
    return _file(text) if text.startswith("@") else text


def _secret_argument(text: str) -> str:
    """Return a password: a file's without the blanks around it, such as its last newline."""
    return _file(text).decode(errors="replace").strip() if text.startswith("@") else text


def _file(text: str) -> bytes:
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[1:]} cannot be read: {error.strerror}") from None


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
