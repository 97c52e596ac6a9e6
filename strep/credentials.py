"""Keys and tokens, read from files and variables; none of the errors shows one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import SecretStr

from strep.specs import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read_credential(file: Path, what: str, where: str | None = None) -> SecretStr:
    """Return what a file holds, `what` being `an API key` or `a token`. Raises ConfigError."""
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read as {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not {what}, which is a line of ASCII") from None
    return check_credential(text, what, where or str(file))


def check_credential(text: str, what: str, where: str) -> SecretStr:
    """Return a credential without the blanks around it, such as a file's last newline.

    Raises ConfigError where an HTTP header cannot carry it.
    """
    credential = text.strip()
    if re.fullmatch(r"[!-~]+", credential):
        return SecretStr(credential)
    raise ConfigError(f"{where}: is not {what}, which is printable ASCII without blanks")
