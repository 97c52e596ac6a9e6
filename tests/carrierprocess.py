"""The stand-in carrier as a process of its own, asked over HTTP as others would."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from loopback import DEADLINE_S

from strep.simulator import LocalCarrier, TrackLog

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CarrierProcess:
    """`strep simulate` with these arguments; has what tests need of `LocalCarrier`, and as there.

    Its log is `folder/carrier.log`.
    """

    wait_for = LocalCarrier.wait_for

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder / "carrier.log"
        self._command = [
            sys.executable, "-m", "strep", "simulate", "--http", "127.0.0.1:0", "--json", *arguments
        ]  # fmt: skip

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        ready = json.loads(self.process.stdout.readline())
        self.base_url, self.control_url = ready["base_url"], ready["control_url"]
        self.api_key, self.public_key = ready["api_key"], ready["public_key"]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE_S)

    @property
    def webhook_url(self) -> str | None:
        return self._own("GET")["webhook_url"]

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        self._own("PUT", "/webhook_url", {"webhook_url": url})

    def place_call(self, from_: str, to: str, scenario: object = None) -> dict[str, Any]:
        body = {"from": from_, "to": to, "scenario": scenario}
        return self._own("POST", "/calls", body)["data"]

    def command(self, name: str, call_control_id: str | None = None, /, **body: Any) -> Any:
        path = "/calls" if name == "dial" else f"/calls/{call_control_id}/actions/{name}"
        return _asked("POST", self.base_url + path, body, self.api_key)["data"]

    def hang_up(self, call_control_id: str) -> None:
        self._own("POST", f"/calls/{call_control_id}/hangup")

    def fail(self, **fault: Any) -> None:
        self._own("POST", "/faults", fault)

    def spoil(self, **fault: Any) -> None:
        self._own("POST", "/webhook_faults", fault)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self._own("DELETE", "/faults")

    def calls(self) -> list[dict[str, Any]]:
        return self._own("GET", "/calls")["calls"]

    def commands(self) -> list[dict[str, Any]]:
        return self._own("GET", "/commands")["commands"]

    def webhooks(self) -> list[dict[str, Any]]:
        return self._own("GET", "/webhooks")["webhooks"]

    def logs(self) -> list[TrackLog]:
        return [
            TrackLog.from_json(self._own("GET", f"/sent/{track['track']}"))
            for track in self._own("GET", "/sent")["tracks"]
        ]

    def drain(self) -> None:
        """Wait until all tracks are over and sent, and no webhook is on its way."""
        self.wait_for(
            lambda: not any(track["running"] for track in self._own("GET", "/sent")["tracks"])
        )
        self.wait_for(lambda: all(each["fate"] != "pending" for each in self.webhooks()))

    def _own(self, method: str, path: str = "", body: object = None) -> Any:
        return _asked(method, self.control_url + path, body)


def _asked(method: str, url: str, body: object, key: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310 -- http
    with LOOPBACK.open(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)
