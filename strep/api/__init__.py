"""The daemon's HTTP interface: health, metrics, calls, forks and webhooks."""

from strep.api.access import check_exposure, find_token
from strep.api.problems import refusal
from strep.api.routes import application
from strep.api.source import Forks, Source

__all__ = ["Forks", "Source", "application", "check_exposure", "find_token", "refusal"]
