"""TLS for the HTTP interface: a certificate and its key from files, which may be renewed."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from strep.specs import ConfigError

if TYPE_CHECKING:
    from strep.config import Settings


def load_tls(settings: Settings, into: ssl.SSLContext | None = None) -> ssl.SSLContext | None:
    """Return what HTTP is served with; None where no certificate is set. Raises `ConfigError`.

    With `into` the certificate is put there, for connections that come from now on.
    """
    certificate, key = settings.http_tls_certificate, settings.http_tls_key
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if into is None else into
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for what, file in (("http_tls_certificate", certificate), ("http_tls_key", key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{what}: {file}: cannot be read: {error.strerror}") from None
    try:
        # an empty password, so that nobody is asked for one on the terminal
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        reason = error.reason or "no PEM"
        raise ConfigError(
            f"http_tls_certificate: {certificate}: is no certificate in PEM of the key {key}:"
            f" {reason.lower().replace('_', ' ')}"
        ) from None
    return context
