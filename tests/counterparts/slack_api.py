"""The methods of Slack's Web API that an agent needs, on the state of a workspace.

They refuse what Slack refuses, by its words. Sources: docs.slack.dev/reference/methods.
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.counterparts.slack_ledger import Message, WebCall

if TYPE_CHECKING:
    from tests.counterparts.slack import Workspace

#: Characters of ``text`` in chat.postMessage and in chat.update.
POST_LIMIT, UPDATE_LIMIT = 40_000, 4_000
METADATA_LIMIT = 16_000


class RefusedError(Exception):
    """``ok: false``."""

    def __init__(self, error: str, *messages: str) -> None:
        super().__init__(error)
        self.error = error
        self.messages = messages


def arguments_of(content_type: str, query: str, body: bytes) -> dict[str, Any]:
    """Read the arguments of a call: of the query, and of a form or a JSON object."""
    found: dict[str, Any] = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if content_type.startswith("application/json"):
        try:
            more = json.loads(body or b"{}")
        except ValueError:
            raise RefusedError("invalid_json") from None
        if not isinstance(more, dict):
            raise RefusedError("json_not_object")
        return {**found, **more}
    if content_type.startswith("application/x-www-form-urlencoded") or not body:
        return {**found, **dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))}
    raise RefusedError("invalid_post_type")


def perform(workspace: Workspace, call: WebCall) -> dict[str, Any]:
    """Do what was asked for; return the answer."""
    method = METHODS.get(call.method)
    if method is None:
        return {"ok": False, "error": "unknown_method", "req_method": call.method}
    try:
        _authenticate(workspace, call)
        return {"ok": True, **method(workspace, call)}
    except RefusedError as error:
        messages = list(error.messages)
        more = {"response_metadata": {"messages": messages}} if messages else {}
        return {"ok": False, "error": error.error, **more}


def _authenticate(workspace: Workspace, call: WebCall) -> None:
    if not call.token:
        raise RefusedError("not_authed")
    known = {workspace.app_token: True, workspace.bot_token: False}
    if call.token not in known:
        raise RefusedError("invalid_auth")
    if known[call.token] != (call.method == "apps.connections.open"):
        raise RefusedError("not_allowed_token_type")


# -- arguments -------------------------------------------------------------------------------------


def _flag(arguments: Mapping[str, Any], name: str) -> bool:
    return arguments.get(name) in (True, 1, "1", "true", "True")


def _structure(arguments: Mapping[str, Any], name: str, error: str) -> Any:
    """Return an argument that is JSON, which forms have as a string; None without one."""
    value = arguments.get(name)
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise RefusedError(error) from None
    return value


def _metadata(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    found = _structure(arguments, "metadata", "invalid_metadata_format")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise RefusedError("invalid_metadata_format")
    if found:
        payload, kind = found.get("event_payload"), found.get("event_type")
        if not isinstance(kind, str) or not kind or not isinstance(payload, dict):
            raise RefusedError("invalid_metadata_schema")
        if len(json.dumps(found)) > METADATA_LIMIT:
            raise RefusedError("metadata_too_large")
    return found


def _blocks(arguments: Mapping[str, Any]) -> list[Any] | None:
    found = _structure(arguments, "blocks", "invalid_blocks_format")
    if found is None:
        return None
    if not isinstance(found, list):
        raise RefusedError("invalid_blocks_format")
    problems = [f"must be 50 or fewer [have {len(found)}]"] if len(found) > 50 else []
    for number, block in enumerate(found):
        problems += [f"{what} [json-pointer:/blocks/{number}]" for what in _objections(block)]
    if problems:
        raise RefusedError("invalid_blocks", *problems)
    return [{"block_id": f"b{n}", **block} for n, block in enumerate(found)]


def _objections(block: Any) -> list[str]:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return ["missing required field: type"]
    found = []
    text = block.get("text")
    match block["type"]:
        case "section" if not isinstance(text, dict) or not 1 <= len(text.get("text", "")) <= 3000:
            found.append("text must be between 1 and 3000 characters")
        case "markdown" if not isinstance(text, str) or not 1 <= len(text) <= 12_000:
            found.append("text must be between 1 and 12000 characters")
        case "actions":
            elements = block.get("elements", [])
            if not 1 <= len(elements) <= 25:
                found.append("must have 1 to 25 elements")
            if len({e.get("action_id") for e in elements}) != len(elements):
                found.append("action_id must be unique")
            found += [what for element in elements for what in _button_objections(element)]
        case "section" | "markdown" | "context" | "divider" | "header" | "rich_text":
            pass
        case other:
            found.append(f"unsupported type: {other}")
    if len(str(block.get("block_id", ""))) > 255:
        found.append("block_id must be at most 255 characters")
    return found


def _button_objections(element: Any) -> list[str]:
    if element.get("type") != "button":
        return []
    label = element.get("text", {})
    checks = {
        "text must be a plain_text object": label.get("type") == "plain_text",
        "text must be at most 75 characters": 1 <= len(label.get("text", "")) <= 75,
        "value must be at most 2000 characters": len(element.get("value", "")) <= 2000,
        "action_id must be at most 255 characters": len(element.get("action_id", "")) <= 255,
        "style must be primary or danger": element.get("style", "primary") in ("primary", "danger"),
    }
    return [what for what, right in checks.items() if not right]


def _text(arguments: Mapping[str, Any], limit: int) -> str:
    text = arguments.get("text", "")
    if not isinstance(text, str):
        raise RefusedError("invalid_arguments", "text must be a string")
    if len(text) > limit:
        raise RefusedError("msg_too_long")
    return text


def _channel(workspace: Workspace, call: WebCall, *, to_post: bool = True) -> str:
    given = str(call.arguments.get("channel", ""))
    if to_post and given in workspace.users.values():
        given = workspace.direct(given)
    if given not in workspace.channels:
        raise RefusedError("channel_not_found")
    if to_post and given in workspace.archived:
        raise RefusedError("is_archived")
    if given in workspace.left:
        raise RefusedError("not_in_channel")
    return given


# -- methods ---------------------------------------------------------------------------------------


def _connections_open(workspace: Workspace, _: WebCall) -> dict[str, Any]:
    return {"url": workspace.issue_url()}


def _auth_test(workspace: Workspace, _: WebCall) -> dict[str, Any]:
    return {
        "url": f"{workspace.root}/",
        "team": "Netclaw",
        "user": "netclaw",
        "team_id": workspace.team,
        "user_id": workspace.bot_user,
        "bot_id": workspace.bot_id,
        "is_enterprise_install": False,
    }


def _post(workspace: Workspace, call: WebCall) -> dict[str, Any]:
    channel = _channel(workspace, call)
    text, blocks = _text(call.arguments, POST_LIMIT), _blocks(call.arguments)
    if not text and not blocks:
        raise RefusedError("no_text")
    thread_ts = call.arguments.get("thread_ts") or None
    if thread_ts is not None:
        parent = workspace.channels[channel].get(str(thread_ts))
        if parent is None:
            raise RefusedError("thread_not_found")
        if parent.thread_ts not in (None, parent.ts):
            raise RefusedError("cannot_reply_to_message")
    message = workspace.post(
        channel, text, thread_ts=thread_ts, blocks=blocks or (), metadata=_metadata(call.arguments)
    )
    call.ts = message.ts
    return {"channel": channel, "ts": message.ts, "message": _shown(workspace, message)}


def _own_message(workspace: Workspace, call: WebCall, refusal: str) -> tuple[str, Message]:
    """Return the app's message that a call is about, and its channel."""
    channel = _channel(workspace, call)
    message = workspace.channels[channel].get(str(call.arguments.get("ts")))
    if message is None:
        raise RefusedError("message_not_found")
    if not message.bot:
        raise RefusedError(refusal)
    return channel, message


def _update(workspace: Workspace, call: WebCall) -> dict[str, Any]:
    channel, message = _own_message(workspace, call, "cant_update_message")
    text, blocks = _text(call.arguments, UPDATE_LIMIT), _blocks(call.arguments)
    if not text and not blocks:
        raise RefusedError("no_text")
    metadata = _metadata(call.arguments)
    if metadata is not None:
        message.metadata = metadata or None
    # Blocks stay only where neither blocks nor a text were given.
    workspace.change(message, text, blocks or ())
    call.ts = message.ts
    shown = _shown(workspace, message)
    return {"channel": channel, "ts": message.ts, "text": text, "message": shown}


def _delete(workspace: Workspace, call: WebCall) -> dict[str, Any]:
    channel, message = _own_message(workspace, call, "cant_delete_message")
    workspace.remove(message)
    call.ts = message.ts
    return {"channel": channel, "ts": message.ts}


def _post_ephemeral(workspace: Workspace, call: WebCall) -> dict[str, Any]:
    channel = _channel(workspace, call)
    user = str(call.arguments.get("user", ""))
    if user not in workspace.users.values():
        raise RefusedError("user_not_in_channel")
    text, blocks = _text(call.arguments, POST_LIMIT), _blocks(call.arguments)
    if not text and not blocks:
        raise RefusedError("no_text")
    thread_ts = call.arguments.get("thread_ts") or None
    message = workspace.whisper(channel, user, text, thread_ts=thread_ts, blocks=blocks or ())
    call.ts = message.ts
    return {"message_ts": message.ts}


def _replies(workspace: Workspace, call: WebCall) -> dict[str, Any]:
    channel = _channel(workspace, call, to_post=False)
    arguments = call.arguments
    parent = workspace.channels[channel].get(str(arguments.get("ts")))
    if parent is None:
        raise RefusedError("thread_not_found")
    try:
        limit = min(max(int(arguments.get("limit") or 1000), 1), 1000)
        oldest, latest = (
            float(arguments.get("oldest") or 0),
            float(arguments.get("latest") or "inf"),
        )
        after = base64.b64decode(str(arguments.get("cursor") or ""), validate=True).decode()
    except (ValueError, binascii.Error):
        raise RefusedError(
            "invalid_cursor" if arguments.get("cursor") else "invalid_arguments"
        ) from None
    inclusive = _flag(arguments, "inclusive")
    rest = [
        m
        for m in workspace.channels[channel].values()
        if m.thread_ts == parent.ts and m is not parent and _between(m, oldest, latest, inclusive)
    ]
    rest = [m for m in rest if not after or m.ts > after.removeprefix("next_ts:")]
    # Each page begins with the thread's first message.
    page, more = rest[: max(limit - 1, 1)], len(rest) > max(limit - 1, 1)
    with_metadata = _flag(arguments, "include_all_metadata")
    cursor = base64.b64encode(f"next_ts:{page[-1].ts}".encode()).decode() if more else ""
    return {
        "messages": [_shown(workspace, m, with_metadata=with_metadata) for m in (parent, *page)],
        "has_more": more,
        **({"response_metadata": {"next_cursor": cursor}} if more else {}),
    }


def _between(message: Message, oldest: float, latest: float, inclusive: bool) -> bool:
    ts = float(message.ts)
    return oldest <= ts <= latest if inclusive else oldest < ts < latest


def _shown(
    workspace: Workspace, message: Message, *, with_metadata: bool = False
) -> dict[str, Any]:
    found = {**message.shown(), "team": workspace.team}
    if message.bot:
        found |= {"bot_id": workspace.bot_id, "app_id": workspace.app_id}
    if with_metadata and message.metadata is not None:
        found["metadata"] = dict(message.metadata)
    return found


METHODS: Mapping[str, Callable[[Any, WebCall], dict[str, Any]]] = {
    "apps.connections.open": _connections_open,
    "auth.test": _auth_test,
    "chat.delete": _delete,
    "chat.postEphemeral": _post_ephemeral,
    "chat.postMessage": _post,
    "chat.update": _update,
    "conversations.replies": _replies,
}
