"""Reads what Slack sends over the socket: each envelope becomes one value that says what is to be done.

Pure. Nothing in an envelope is trusted to be there or to be of its type: what can't be read is
:class:`Nothing`, and is acknowledged, so that it doesn't come again.
"""

from __future__ import annotations

from typing import Any

from netclawd.core.mrkdwn import from_mrkdwn
from netclawd.core.session import ApprovalId
from netclawd.core.slack import Route, name_person
from netclawd.core.values import frozen
from netclawd.ports.channels import Incoming, Press

#: Names of the buttons under a question, and of the block that has them.
GRANT = "netclawd_grant"
DENY = "netclawd_deny"
BLOCK = "netclawd_question"
#: Subtypes of messages that people write; every other one is about something else.
_WRITTEN = frozenset({"", "file_share", "thread_broadcast", "me_message"})
#: What the agent is told where a person has written nothing.
NO_TEXT = "(a message without text)"
_NAME_LENGTH = 64


@frozen
class Identity:
    """Who we are in the workspace."""

    team: str
    user: str
    #: Empty when Slack doesn't tell.
    bot: str


@frozen
class Said:
    """A person has written something."""

    incoming: Incoming
    #: It was written to the agent; else only if the agent is in that thread already.
    addressed: bool


@frozen
class Pressed:
    press: Press


@frozen
class Nothing:
    """Nothing is to be done; ``why`` is a word for the log, of Slack's or ours."""

    why: str
    #: Slack has sent something that we don't know.
    unknown: bool = False


def read_envelope(envelope: dict[str, Any], me: Identity) -> Said | Pressed | Nothing:
    """Say what an envelope that is to be acknowledged asks for."""
    kind, payload = _text(envelope, "type"), _table(envelope, "payload")
    if kind == "events_api":
        return _event(payload, me)
    if kind == "interactive":
        return _press(payload, me)
    return Nothing(name_of(kind), unknown=True)


def name_of(kind: object) -> str:
    """Return a word of Slack's as the log may have it."""
    return "".join(c for c in str(kind) if c.isalnum() or c in "_.-")[:_NAME_LENGTH] or "no type"


def _event(payload: dict[str, Any], me: Identity) -> Said | Nothing:
    event = _table(payload, "event")
    kind = _text(event, "type")
    if kind not in ("app_mention", "message"):
        return Nothing(name_of(kind), unknown=True)
    user, channel, ts = (_text(event, key) for key in ("user", "channel", "ts"))
    if _text(event, "subtype") not in _WRITTEN:
        return Nothing("subtype")
    if event.get("bot_id") or user in (me.user, "USLACKBOT"):
        return Nothing("bot")
    thread, event_id = _text(event, "thread_ts"), _text(payload, "event_id")
    team = _team_of(payload, event, me)
    names = user + team + channel + ts + thread + event_id
    if not (user and channel and ts and event_id and _plain(names)):
        return Nothing("incomplete")
    if not _ours(payload, me):
        return Nothing("another workspace")
    route = Route(me.team, channel, thread or ts)
    addressed = kind == "app_mention" or route.direct or f"<@{me.user}>" in _text(event, "text")
    if not addressed and not thread:
        return Nothing("not for us")
    said = from_mrkdwn(_text(event, "text"), me.user) or NO_TEXT
    place = f"{me.team}/{channel}"
    who = name_person(user, team, me.team)
    return Said(Incoming(event_id, str(route), f"{channel}:{ts}", who, said, place), addressed)


def _team_of(payload: dict[str, Any], event: dict[str, Any], me: Identity) -> str:
    """Return the author's workspace; a message with a file doesn't name it: where the channel is shared it
    may be any."""
    named = [team for key in ("user_team", "source_team", "team") if (team := _text(event, key))]
    shared = payload.get("is_ext_shared_channel") is True
    return named[0] if named else "unknown" if shared else me.team


def _ours(payload: dict[str, Any], me: Identity) -> bool:
    """Whether the event was sent for our workspace: an app may be in several."""
    teams = payload.get("authorizations")
    if isinstance(teams, list) and teams:
        return any(isinstance(team, dict) and team.get("team_id") == me.team for team in teams)
    return True


def _press(payload: dict[str, Any], me: Identity) -> Pressed | Nothing:
    if payload.get("type") != "block_actions":
        return Nothing(name_of(payload.get("type")), unknown=True)
    actions = payload.get("actions")
    found = [a for a in actions if isinstance(a, dict)] if isinstance(actions, list) else []
    action = next((a for a in found if a.get("action_id") in (GRANT, DENY)), None)
    if action is None:
        return Nothing("another button")
    container, message = _table(payload, "container"), _table(payload, "message")
    user = _text(_table(payload, "user"), "id")
    channel = _text(_table(payload, "channel"), "id") or _text(container, "channel_id")
    ts = _text(container, "message_ts") or _text(message, "ts")
    thread = _text(container, "thread_ts") or _text(message, "thread_ts") or ts
    asked = _text(action, "value")
    team = _text(_table(payload, "user"), "team_id") or me.team
    names = user + team + channel + thread + asked
    if not (user and channel and thread and asked and _plain(names)):
        return Nothing("incomplete")
    granted = action["action_id"] == GRANT
    route = str(Route(me.team, channel, thread))
    return Pressed(Press(route, name_person(user, team, me.team), ApprovalId(asked), granted))


def _plain(text: str) -> bool:
    """Whether it has only what Slack's ids and ours are made of."""
    return len(text) <= 512 and all(c.isascii() and (c.isalnum() or c in "._-:") for c in text)


def _text(table: dict[str, Any], key: str) -> str:
    found = table.get(key)
    return found if isinstance(found, str) else ""


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key)
    return found if isinstance(found, dict) else {}
