"""Why there is no connection, in the few words that an operator needs."""

from __future__ import annotations

import os
import socket
import ssl


def reason_of(error: Exception) -> str:
    """Say what the system, the resolver or TLS found wrong; `error` is theirs, or aiohttp's of it.

    aiohttp's own words tell the address once more and that TLS was `default`, but not always why.
    """
    certificate = getattr(error, "certificate_error", None)
    match certificate or getattr(error, "os_error", error):
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError() as cause:
            return f"its certificate is not trusted: {cause.verify_message}"
        case ssl.SSLError(reason=str() as fault):
            return f"TLS: {fault.replace('_', ' ').lower()}"
        case socket.gaierror() as cause:
            return cause.strerror or str(cause)
        case OSError() as cause if cause.errno and cause.errno > 0:
            return os.strerror(cause.errno)
    return str(error) or type(error).__name__
