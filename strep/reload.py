"""What of the settings can change while the daemon runs, and what needs a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from strep.config import Settings
from strep.control.settings import ControlSettings
from strep.specs import ConfigError, fault

if TYPE_CHECKING:
    from collections.abc import Collection

LIVE = frozenset(
    {
        "log_format", "log_level", "drain_timeout_s", "keep_calls_days", "idle_timeout_s",
        "mouth_to_ear_ms", "allowed_sources", "new_tracks_per_s", "new_tracks_burst",
        "source_timeout_s",
    }
)  # fmt: skip
"""Settings that can change while the daemon runs."""
LIVE_OF_CONTROL = frozenset(
    {
        "fork_way", "stream_type", "media_target", "first_media_timeout_s", "retry_forks",
        "auto_fork", "max_forks", "admission",
    }
)  # fmt: skip
"""Those of the control plane; they hold for what comes, not for forks that are open."""


class Reloaded(NamedTuple):
    """What becomes of settings that were read again."""

    settings: Settings
    """Those that hold from now on."""
    taken: list[str]
    """The keys that have changed, as `control.auto_fork`."""
    restart: list[str]
    """The keys that would have to change, and cannot before a restart."""


def reloaded(old: Settings, new: Settings) -> Reloaded:
    """Take from the new settings what can change; raises `ConfigError` where nothing can.

    That is where what can change does not fit together with what cannot.
    """
    taken, restart = _differences(old, new, LIVE)
    values = {key: getattr(new if key in taken else old, key) for key in Settings.model_fields}
    if old.control is not None and new.control is not None:
        restart = [key for key in restart if key != "control"]
        of_control, not_of_control = _differences(old.control, new.control, LIVE_OF_CONTROL)
        values["control"] = {
            key: getattr(new.control if key in of_control else old.control, key)
            for key in ControlSettings.model_fields
        }
        taken += [f"control.{key}" for key in of_control]
        restart += [f"control.{key}" for key in not_of_control]
    try:
        return Reloaded(Settings.model_validate(values), taken, restart)
    except ValidationError as error:
        raise ConfigError(
            f"{fault(error)[1]}, and {', '.join(restart)} cannot change before a restart"
        ) from None


def _differences(
    old: BaseModel, new: BaseModel, live: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return the keys that differ: those that are `live`, and the others."""
    keys = [key for key in type(old).model_fields if _get(old, key) != _get(new, key)]
    return [key for key in keys if key in live], [key for key in keys if key not in live]


def _get(model: BaseModel, key: str) -> Any:
    return getattr(model, key)
