"""Who may use the interface: everybody on loopback; elsewhere, and if wanted, who has the token."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from strep.credentials import check_credential, read_credential
from strep.specs import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from strep.specs import Address

TOKEN_VARIABLE = "STREP_HTTP_TOKEN"  # noqa: S105 -- the name of a variable
FILE_VARIABLE = "STREP_HTTP_TOKEN_FILE"
_WHAT = "a token"


def find_token(file: Path | None, environment: Mapping[str, str]) -> SecretStr | None:
    """Return the first token of: file, the variables above in their order. Raises ConfigError."""
    if file is not None:
        return read_credential(file, _WHAT)
    if text := environment.get(TOKEN_VARIABLE):
        return check_credential(text, _WHAT, TOKEN_VARIABLE)
    if name := environment.get(FILE_VARIABLE):
        return read_credential(Path(name), _WHAT, f"{FILE_VARIABLE}: {name}")
    return None


def check_exposure(address: Address, token: SecretStr | None) -> None:
    """Refuse to be served without a token where others than this host's can reach it.

    To be called before the address is bound. Raises ConfigError.
    """
    if token is None and not is_loopback(address.host):
        raise ConfigError(
            f"http: {address} can be reached from other hosts, which needs a token: set"
            f" {TOKEN_VARIABLE} to one or {FILE_VARIABLE} to a file that holds it, or serve on a"
            " loopback address such as 127.0.0.1:8080"
        )


def is_authorized(header: str | None, token: SecretStr) -> bool:
    """Tell whether the header `Authorization` brings the token (RFC 6750, section 2.1)."""
    scheme, _, credentials = (header or "").partition(" ")
    given = credentials.strip().encode(errors="surrogateescape")
    is_right = hmac.compare_digest(given, token.get_secret_value().encode())
    return is_right and scheme.lower() == "bearer"


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is this host's alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
