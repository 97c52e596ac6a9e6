"""A browser without a window, for pages that draw themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

BROWSER = next(
    filter(
        None,
        map(
            shutil.which,
            (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"),
        ),
    ),
    None,
)
WIDTH, HEIGHT = 1280, 1400


def browse(page, tmp_path, *arguments):
    process = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--force-device-scale-factor=1",
            f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=3000", *arguments, page,
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )  # fmt: skip
    return process.stdout.decode()


def facts(dom, kind):
    """The data attributes of the elements that have `data-kind`."""
    return [
        dict(re.findall(r'data-([\w-]+)="([^"]*)"', tag))
        for tag in re.findall(rf"<[a-z]+ [^>]*data-{kind}=[^>]*>", dom)
    ]
