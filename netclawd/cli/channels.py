"""Makes the channels that the settings ask for; names adapters only.

No channel is needed to serve, so what they import is imported here, behind serving, and only where a channel
is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from netclawd.core.settings import Settings

if TYPE_CHECKING:
    from netclawd.adapters.slack.channel import Spawn
    from netclawd.ports.channels import Channel


def find_slack_sdk() -> str:
    """Return the version of slack_sdk, empty when it isn't installed; imports none of it."""
    spec = find_spec("slack_sdk")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            path = os.path.join(folder, "version.py")
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(
                    r"""^__version__ = ["']([^"']{1,64})["']""", file.read(4096), re.M
                )
        except OSError:
            continue
        return found[1] if found is not None else "unknown"
    return ""


def make_channels(
    settings: Settings, resolve: Callable[[str], str], spawn: Spawn
) -> tuple[Channel, ...]:
    """Return the channels, none of them started; ConfigMeaningError when a token can't be had."""
    slack = settings.slack
    if slack is None:
        return ()
    from netclawd.adapters.clock import SystemClock
    from netclawd.adapters.slack.channel import SlackChannel

    app, bot = resolve(slack.app_token), resolve(slack.bot_token)
    return (SlackChannel(slack, app, bot, SystemClock(), spawn),)


def import_channels(settings: Settings) -> None:
    """Import all that the channels may ever use."""
    if settings.slack is not None and find_slack_sdk():
        import netclawd.adapters.slack.channel  # noqa: F401
