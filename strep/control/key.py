"""Where the API key comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from strep.credentials import check_credential, read_credential
from strep.specs import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_VARIABLE = "STREP_API_KEY"
FILE_VARIABLE = "STREP_API_KEY_FILE"
CARRIER_VARIABLE = "TELNYX_API_KEY"
"""The variable of the carrier's own libraries, read last."""
_WHAT = "an API key"


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
        return check_credential(key, _WHAT, "the key")
    if key_file is not None:
        return read_credential(key_file, _WHAT)
    if text := environment.get(KEY_VARIABLE):
        return check_credential(text, _WHAT, KEY_VARIABLE)
    if name := environment.get(FILE_VARIABLE):
        return read_credential(Path(name), _WHAT, f"{FILE_VARIABLE}: {name}")
    if text := environment.get(CARRIER_VARIABLE):
        return check_credential(text, _WHAT, CARRIER_VARIABLE)
    raise ConfigError(
        f"there is no API key: set {KEY_VARIABLE} to it or {FILE_VARIABLE} to a file that holds it"
    )
