"""A real daemon on loopback, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from strep.receive.steering import SteeringError, bind_group

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 20.0


def free_port(kind: socket.SocketKind) -> int:
    with closing(socket.socket(socket.AF_INET, kind)) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def needs_steering(workers: int = 2) -> None:
    """Skip the test where the kernel cannot steer packets to so many workers."""
    try:
        for sock in bind_group("127.0.0.1", 0, workers):
            sock.close()
    except SteeringError as error:
        pytest.skip(f"no steering here: {error}")


class Serve:
    """`strep serve` with these arguments, ready when entered; its log in `folder/serve.log`."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.media = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.http = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
        self.log = folder / "serve.log"
        self._command = [
            sys.executable, "-m", "strep", "serve", "--media", self.media, "--http", self.http,
            "--recordings", str(folder), "--log-format", "json", *arguments,
        ]  # fmt: skip
        self._env = os.environ | (env or {})

    @property
    def to(self) -> tuple[str, int]:
        host, port = self.media.split(":")
        return host, int(port)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stderr=log, env=self._env)
        self.wait_until(self._is_ready, "the daemon is ready")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def readiness(self) -> tuple[int, list[str]]:
        """What `/readyz` answers: the status, and what speaks against it."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=5) as answer:
                return answer.status, json.load(answer)["reasons"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["reasons"]

    def metrics(self) -> dict[str, float]:
        """All samples; labelled ones as `name{label}` with the label's value."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def wait_for(self, metric: str, value: float) -> None:
        self.wait_until(
            lambda: self.metrics()[metric] >= value, f"{metric} is {value}: {self.metrics()}"
        )

    def wait_until(self, condition, what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def _is_ready(self) -> bool:
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://{self.http}/healthz", timeout=1) as answer,
        ):
            return answer.status == 200
        return False
