"""The manifest of the Slack app in the README asks for what the adapter uses, and for nothing else."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.packaging.units import ROOT

ADAPTER = ROOT / "netclawd/adapters/slack"
#: The scope that each method needs, and the one of each event.
METHODS = {
    "auth.test": set(),
    "apps.connections.open": set(),  # By the app-level token.
    "chat.postMessage": {"chat:write"},
    "chat.postEphemeral": {"chat:write"},
    "chat.update": {"chat:write"},
    "chat.delete": {"chat:write"},
    "conversations.replies": {
        "channels:history",
        "groups:history",
        "im:history",
        "metadata.message:read",
    },
}
EVENTS = {
    "app_mention": "app_mentions:read",
    "message.channels": "channels:history",
    "message.groups": "groups:history",
    "message.im": "im:history",
}


def manifest() -> dict[str, Any]:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_its_scopes_are_those_of_the_methods_and_events() -> None:
    source = "".join(path.read_text() for path in ADAPTER.glob("*.py"))
    called = set(
        re.findall(r'"((?:auth|apps|chat|conversations|users|reactions)\.[\w.]+)"', source)
    )
    assert called <= METHODS.keys()
    events = manifest()["settings"]["event_subscriptions"]["bot_events"]
    needed = set().union(*(METHODS[name] for name in called), (EVENTS[name] for name in events))
    scopes = manifest()["oauth_config"]["scopes"]["bot"]
    assert sorted(scopes) == sorted(needed)


def test_it_speaks_socket_mode_and_has_buttons_and_lasting_tokens() -> None:
    settings = manifest()["settings"]
    assert settings["socket_mode_enabled"] is True
    assert settings["interactivity"] == {"is_enabled": True}
    assert settings["token_rotation_enabled"] is False
    assert set(settings["event_subscriptions"]["bot_events"]) == set(EVENTS)
    home = manifest()["features"]["app_home"]
    assert home["messages_tab_enabled"]
    assert not home["messages_tab_read_only_enabled"]
