"""What ``[slack]`` must be like to be served, and the names that Slack's adapter gives its conversations.

Pure. A route is ``TEAM/CHANNEL/THREAD_TS``: a thread is a session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from netclawd.core.values import frozen
from netclawd.errors import ConfigMeaningError

#: The oldest slack_sdk whose client of Socket Mode is known to us.
OLDEST_SDK = (3, 45)
_KINDS = {
    "slack.app_token": ("xapp-", "an app-level token", "Basic Information, App-Level Tokens"),
    "slack.bot_token": ("xoxb-", "a bot token", "OAuth & Permissions, Bot User OAuth Token"),
}
_INSTALL = (
    "Install it for the Python of the daemon: pip install 'slack_sdk>=3.45'; with the Debian package, as"
    " root: apt install python3-pip; (umask 022; pip install --break-system-packages 'slack_sdk>=3.45'). Or"
    " remove the tokens of [slack]."
)


@frozen
class Route:
    team: str
    channel: str
    thread: str

    @property
    def direct(self) -> bool:
        """Whether it is a conversation with one person."""
        return self.channel.startswith("D")

    def __str__(self) -> str:
        return f"{self.team}/{self.channel}/{self.thread}"


def read_route(text: str) -> Route | None:
    """Return the parts of a route, None when it is none of Slack's."""
    parts = text.split("/")
    return Route(*parts) if len(parts) == 3 and all(parts) else None


def name_person(user: str, team: str, ours: str) -> str:
    """Return what a person is called here: their id, and the workspace with it where that isn't ours."""
    return user if team == ours else f"{user}@{team}"


def read_person(name: str) -> tuple[str, bool]:
    """Return a person's id, and whether they are of another workspace."""
    user, _, team = name.partition("@")
    return user, bool(team)


def judge_slack(table: Mapping[str, Any], secrets: Mapping[str, str], sdk: str | None) -> None:
    """Raise ConfigMeaningError for what can't be served.

    ``secrets``: values by the dotted key. ``sdk``: the version of slack_sdk, empty when it isn't there,
    None when nobody has looked.
    """
    tokens = [key for key in ("app_token", "bot_token") if table.get(key)]
    if not tokens:
        return
    if len(tokens) == 1:
        (missing,) = {"app_token", "bot_token"} - set(tokens)
        raise ConfigMeaningError(
            f"slack.{tokens[0]} is set and slack.{missing} isn't: Slack needs both.",
            f"Set slack.{missing}, or remove slack.{tokens[0]}.",
        )
    _judge_address(str(table.get("base_url", "")))
    for key, (prefix, kind, place) in _KINDS.items():
        if not secrets.get(key, prefix).startswith(prefix):
            raise ConfigMeaningError(
                f"{key}: The secret is not {kind}: such a one begins with {prefix}.",
                f"Store the one of the app's page {place}.",
            )
    if sdk is not None:
        _judge_sdk(sdk)


def _judge_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or parts.query or parts.fragment or parts.username is not None:
        raise ConfigMeaningError(
            "slack.base_url is no address of a Web API.",
            "Write https://slack.com/api/, or https://slack-gov.com/api/.",
        )
    if parts.scheme != "https" and not is_local(host):
        raise ConfigMeaningError(
            "slack.base_url begins with http:// and leads to another host: the tokens would go there in the"
            " clear.",
            "Begin it with https://.",
        )


def _judge_sdk(version: str) -> None:
    if not version:
        raise ConfigMeaningError("[slack] is set and slack_sdk isn't installed.", _INSTALL)
    numbers = re.match(r"(\d{1,6})\.(\d{1,6})", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_SDK:
        shown = version if re.fullmatch(r"[\w.+-]{1,32}", version) else "of an unknown version"
        raise ConfigMeaningError(
            f"[slack] needs slack_sdk 3.45 or newer, and {shown} is installed.",
            _INSTALL.replace("pip install ", "pip install --upgrade "),
        )


def is_local(host: str) -> bool:
    """Whether a host is this one, by its name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
