"""Where worker processes come from: a process that forks them, and does nothing else.

It is forked from the daemon when everything is imported and all sockets are open, before there is
an event loop, and has one thread. So a worker is a plain fork of it: it starts within
milliseconds (a fresh interpreter takes half a second to import NumPy and the rest), inherits the
sockets without their being sent, and gets nothing of the daemon's loop, threads or connections.

The two sides talk over a socket that keeps the bounds of messages. The daemon sends a worker's
number, with one end of the worker's channel; the nursery answers in JSON when the process was
started (`{"number": 0, "pid": 71}`) and when it ended (`{"pid": 71, "exit_code": -9}`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

MESSAGE_BYTES = 1024


class NurseryLost(Exception):  # noqa: N818 -- it is what happened, not an error of the caller
    """The nursery is no more: no worker can be started."""


@dataclass(frozen=True, slots=True)
class Child:
    """A worker process."""

    pid: int
    channel: socket.socket
    """The daemon's end of a stream socket; it ends when the process does."""
    ended: asyncio.Future[int | None]
    """The exit code, negative for a signal; None where the nursery died before."""


class Nursery:
    """The daemon's side; `work(number, channel)` is run in each worker, for its exit code.

    To be made before the process has threads or an event loop.
    """

    def __init__(self, work: Callable[[int, socket.socket], int]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = _fork()
        if self._pid == 0:
            self._control.close()
            _end_with(partial(_serve, theirs, work))
        theirs.close()
        self._control.setblocking(False)
        self._born: dict[int, asyncio.Future[tuple[int, asyncio.Future[int | None]]]] = {}
        self._ended: dict[int, asyncio.Future[int | None]] = {}
        self._is_lost = False

    async def start(self, number: int) -> Child:
        """Start a worker; one of each number at a time. Raises `NurseryLost`."""
        if self._is_lost:
            raise NurseryLost
        born = self._born[number] = asyncio.get_running_loop().create_future()
        channel, theirs = socket.socketpair()
        with theirs, suppress(BrokenPipeError):  # which `listen` finds out, too
            socket.send_fds(self._control, [str(number).encode()], [theirs.fileno()])
        try:
            pid, ended = await born
        except BaseException:
            channel.close()
            raise
        return Child(pid, channel, ended)

    async def listen(self) -> None:
        """Hear of workers that started and ended, until the nursery itself is no more."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while message := await loop.sock_recv(self._control, MESSAGE_BYTES):
                news = json.loads(message)
                if "exit_code" in news:
                    self._ended.pop(news["pid"]).set_result(news["exit_code"])
                else:
                    ended = self._ended[news["pid"]] = loop.create_future()
                    self._born.pop(news["number"]).set_result((news["pid"], ended))
        self._is_lost = True
        for born in self._born.values():
            born.set_exception(NurseryLost())
        for unheard in self._ended.values():
            unheard.set_result(None)

    def close(self) -> None:
        """End the nursery; workers that still run find their channels closed with the daemon's."""
        self._control.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _serve(control: socket.socket, work: Callable[[int, socket.socket], int]) -> int:
    """Be the nursery until the daemon closes its side or is no more."""
    # a terminal and a service manager signal all processes at once; ours is the daemon's to end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    wakened, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()  # what is shared with the workers stays shared
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wakened, select.POLLIN)
    # a ConnectionError: the daemon died in the middle of a message
    with wakened, waker, suppress(ConnectionError):
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wakened.fileno() in ready:
                wakened.recv(MESSAGE_BYTES)
                _report_ended(control)
            if control.fileno() not in ready:
                continue
            message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
            if not message:
                break
            number, channel = int(message), socket.socket(fileno=fds[0])
            pid = _fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for sock in (control, wakened, waker):
                    sock.close()
                _end_with(partial(work, number, channel))
            channel.close()
            control.send(json.dumps({"number": number, "pid": pid}).encode())
    return 0


def _report_ended(control: socket.socket) -> None:
    with suppress(ChildProcessError):  # there is no worker left
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            exit_code = os.waitstatus_to_exitcode(status)
            control.send(json.dumps({"pid": pid, "exit_code": exit_code}).encode())


def _fork() -> int:
    # what is still buffered would be written twice
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads: those of NumPy's BLAS, which ends them before a fork itself
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _end_with(work: Callable[[], int]) -> NoReturn:
    """Run a forked process, and leave nothing of its parent's to be done at its exit."""
    exit_code = 1
    try:
        exit_code = work()
    except BaseException:  # noqa: BLE001 -- said, and ends here
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code)
