"""What the daemon tells the service manager that started it, as systemd's sd_notify(3) does.

A datagram of lines `KEY=value` to the socket that the variable NOTIFY_SOCKET names: a path, or a
name of Linux's abstract namespace, written with `@` for its leading zero. Where there is no such
variable nobody is told anything.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = structlog.get_logger("strep")

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
BEATS = 3
"""Signs of life in the time after which the service manager believes that there is none."""
TELL_EVERY_S = 5.0
"""How often the status is told where no sign of life is asked for."""
EXTEND_S = 75
"""How much time each status asks for while the daemon stops: more than the workers may take to
finish their recordings."""


class ServiceManager:
    """Tells the service manager at `address`; nobody with None.

    `watchdog_s` is the time without a sign of life after which the daemon is ended; None for no
    such time. What cannot be sent is not: a service manager that is no more needs nothing.
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return the one that the environment names."""
        address = environment.get(SOCKET_VARIABLE) or None
        if address is not None and address[0] not in "/@":
            logger.warning(
                "the service manager's socket is of a kind that is not known", socket=address
            )
            address = None
        return cls(address, _watchdog_s(environment))

    @property
    def is_there(self) -> bool:
        """Whether there is somebody to tell."""
        return self._socket is not None

    @property
    def period_s(self) -> float:
        """How often to tell that the daemon is well, and how it is."""
        return TELL_EVERY_S if self.watchdog_s is None else self.watchdog_s / BEATS

    def ready(self, status: str) -> None:
        """Tell that the daemon receives, or has read its settings again."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that the settings are read again; `ready` is to follow."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self, status: str, *, is_well: bool) -> None:
        """Tell how the daemon is, with a sign of life where all is well."""
        beats = ["WATCHDOG=1"] if is_well and self.watchdog_s is not None else []
        self._tell(*beats, f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """Tell that the daemon stops, and that it needs more time for that."""
        more = [f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}"]
        if self.watchdog_s is not None:
            more.append("WATCHDOG=1")
        self._tell("STOPPING=1", *more, f"STATUS={status}")

    def close(self) -> None:
        """Tell nobody anything more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is None or self._address is None:
            return
        # a leading @ stands for the zero byte of the abstract namespace
        name = self._address
        target = "\0" + name[1:] if name.startswith("@") else name
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), target)
        except OSError as error:
            logger.debug("the service manager cannot be told", error=error.strerror)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return the time within which this process has to give a sign of life, if it has to."""
    microseconds = environment.get(WATCHDOG_VARIABLE, "")
    whose = environment.get(WATCHDOG_PID_VARIABLE) or str(os.getpid())
    if not microseconds.isdecimal() or int(microseconds) == 0 or whose != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
