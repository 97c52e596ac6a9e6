"""Where the API key comes from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from strep.specs import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_VARIABLE = "STREP_API_KEY"
FILE_VARIABLE = "STREP_API_KEY_FILE"
CARRIER_VARIABLE = "TELNYX_API_KEY"
"""The variable of the carrier's own libraries, read last."""


def find_key(
    key: str | SecretStr | None, key_file: Path | None, environment: Mapping[str, str]
) -> SecretStr:
    """Return the first key of: argument, file, the variables above in their order.

    Blanks around it (a file's last newline) are dropped. Raises ConfigError where there is none, or
    none that an HTTP header can carry; the key stands in no error.
    """
    if isinstance(key, SecretStr):
        key = key.get_secret_value()
    if key is not None:
        return _checked(key, "the key")
    if key_file is not None:
        return _checked(_read(key_file), str(key_file))
    if text := environment.get(KEY_VARIABLE):
        return _checked(text, KEY_VARIABLE)
    if name := environment.get(FILE_VARIABLE):
        return _checked(_read(Path(name)), f"{FILE_VARIABLE}: {name}")
    if text := environment.get(CARRIER_VARIABLE):
        return _checked(text, CARRIER_VARIABLE)
    raise ConfigError(
        f"there is no API key: set {KEY_VARIABLE} to it or {FILE_VARIABLE} to a file that holds it"
    )


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read as an API key: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not an API key, which is a line of ASCII") from None


def _checked(text: str, where: str) -> SecretStr:
    key = text.strip()
    if re.fullmatch(r"[!-~]+", key):
        return SecretStr(key)
    raise ConfigError(f"{where}: is not an API key, which is printable ASCII without blanks")
