"""A page to look at calls: one HTML file with waveforms, what happened when, and a player.

`gather.py` finds the manifests, `view.py` makes of each call what there is to see, `sound.py` adds
waveforms and audio, and `page.py` puts all of it into a file that needs no network. What draws it
in the browser is in `page.html`, `page.css` and `page.js`.
"""

from __future__ import annotations

from strep.report.errors import ReportError
from strep.report.gather import Source, from_database, from_path
from strep.report.page import Outcome, write_report

__all__ = ["Outcome", "ReportError", "Source", "from_database", "from_path", "write_report"]
