"""The table of commands in docs/control.md is that of the code."""

from __future__ import annotations

from pathlib import Path

from strep.control.commands import COMMANDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "control.md"


def table():
    """Return a line for each command: what is required in bold, defaults behind an equals sign."""
    yield "| command | request | parameters |"
    yield "|---|---|---|"
    for name, command in COMMANDS.items():
        words = []
        for field in command.model_fields.values():
            if field.is_required():
                words.append(f"**{field.alias}**")
            elif field.default is None:
                words.append(f"{field.alias}")
            else:
                words.append(f"{field.alias}={field.default}")
        path = command.path.replace("/calls/{call_control_id}/actions/", ".../")
        yield f"| `{name}` | {command.method} {path} | {', '.join(words)} |"


def test_commands_are_documented_with_their_parameters():
    assert "\n".join(table()) in DOCUMENT.read_text()
