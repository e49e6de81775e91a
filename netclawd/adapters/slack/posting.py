"""Makes a conversation show a message of the outbox, and finds what it shows already.

A message is as many of Slack's as its length takes: its parts. Each carries its identity in its metadata, the
message's id and the part's number, by which :meth:`Poster.look_up` knows it again after a crash. A receipt is
Slack's name of a part, its ``ts``.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from netclawd.adapters.slack import faults
from netclawd.adapters.slack.envelopes import BLOCK, DENY, GRANT, Identity
from netclawd.adapters.slack.web import CallError, Web
from netclawd.core import mrkdwn
from netclawd.core.delivery import LANDING_S
from netclawd.core.outgoing import Outgoing, OutgoingKind
from netclawd.core.session import OutboxState
from netclawd.core.slack import Route, read_route
from netclawd.ports.channels import TryLaterError, UndeliverableError

#: How long a part may be, characters: what chat.update takes is 4,000. The smaller ones are for who says
#: that it is too long.
LIMITS = (3_900, 1_900, 900)
#: Text of a section of Block Kit: Slack takes 3,000.
SECTION = 2_900
#: The receipt of a part that somebody has deleted: it stays so.
DELETED = "deleted"
EVENT_TYPE = "netclawd_message"
#: Replies of one call, as Slack advises.
_PAGE = 200
#: A message of ours is there, without what says which.
_NAMELESS = (
    "Slack doesn't say which of our messages are in the thread, so this one may be there. Give the app the "
    "scope metadata.message:read; look into the thread, then retry or drop it."
)
#: Parts whose text is remembered, so that what shows it already isn't edited.
_REMEMBERED = 256


class _TooLongError(Exception):
    pass


class Poster:
    """Used by one thread."""

    def __init__(
        self, web: Web, me: Callable[[], Identity], on_refusal: Callable[[CallError], None]
    ) -> None:
        self._web = web
        self._me = me
        self._on_refusal = on_refusal
        self._shown: OrderedDict[str, dict[str, Any]] = OrderedDict()
        #: Parts of which a change that nobody heard the end of may land until this monotonic instant.
        self._landing: dict[str, float] = {}
        #: Monotonic instants before which Slack doesn't want these methods called.
        self._not_before: dict[str, float] = {}

    def deliver(
        self, message: Outgoing, record: Callable[[tuple[str, ...]], None]
    ) -> tuple[str, ...]:
        """Edit the parts that have a receipt, post the others; return all receipts. DeliveryError."""
        route, receipts = _route(message), list(message.receipts)
        for limit in LIMITS:
            try:
                return self._show(message, route, _render(message, limit), receipts, record)
            except _TooLongError:
                continue
        raise faults.after_edit(CallError("", "msg_too_long"))

    def _show(
        self,
        message: Outgoing,
        route: Route,
        parts: list[dict[str, Any]],
        receipts: list[str],
        record: Callable[[tuple[str, ...]], None],
    ) -> tuple[str, ...]:
        """Show the parts; ``receipts`` grows with each that is posted."""
        for number, part in enumerate(parts):
            if number < len(receipts):
                self._edit(route, receipts[number], part)
                left_s = self._landing.get(receipts[number], 0.0) - time.monotonic()
                if left_s > 0 and message.state is not OutboxState.STREAMING:
                    raise TryLaterError("An older change of it may still arrive.", left_s)
            else:
                receipts.append(self._post(message, route, number, part))
                record(tuple(receipts))
        if message.state is not OutboxState.STREAMING:
            while len(receipts) > len(parts):
                self._delete(route, receipts[-1])
                receipts.pop()
                record(tuple(receipts))
        return tuple(receipts)

    def _post(self, message: Outgoing, route: Route, number: int, part: dict[str, Any]) -> str:
        identity = {"id": message.id, "part": number}
        try:
            answer = self._ask(
                "chat.postMessage",
                channel=route.channel,
                thread_ts=route.thread,
                metadata={"event_type": EVENT_TYPE, "event_payload": identity},
                unfurl_links=False,
                unfurl_media=False,
                parse="none",
                link_names=False,
                **part,
            )
        except CallError as error:
            _raise_too_long(error)
            raise faults.after_post(error) from None
        ts = answer.get("ts")
        if not isinstance(ts, str) or not ts:
            raise faults.after_post(CallError("it names no message", maybe_done=True))
        self._remember(ts, part)
        return ts

    def _edit(self, route: Route, ts: str, part: dict[str, Any]) -> None:
        if ts == DELETED or self._shown.get(ts) == part:
            return
        try:
            self._ask(
                "chat.update",
                channel=route.channel,
                ts=ts,
                parse="none",
                link_names=False,
                **part,
            )
        except CallError as error:
            _raise_too_long(error)
            if error.code != "message_not_found":  # Somebody has deleted it: it stays so.
                if error.maybe_done:  # It may land late, over a newer one.
                    self._landing[ts] = time.monotonic() + LANDING_S
                    self._shown.pop(ts, None)
                raise faults.after_edit(error) from None
        if self._landing.get(ts, 0.0) <= time.monotonic():
            self._landing.pop(ts, None)
            self._remember(ts, part)

    def _delete(self, route: Route, ts: str) -> None:
        if ts == DELETED:
            return
        try:
            self._ask("chat.delete", channel=route.channel, ts=ts)
        except CallError as error:
            meaning = faults.after_edit(error)
            if isinstance(meaning, TryLaterError):  # Else it stays, or is gone already.
                raise meaning from None

    def _ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        if (left_s := self._not_before.get(method, 0.0) - time.monotonic()) > 0:
            raise CallError("Slack asks for a pause", "ratelimited", after_s=left_s)
        call = self._web.query if method == "conversations.replies" else self._web.ask
        try:
            return call(method, **arguments)
        except CallError as error:
            if error.after_s is not None:
                self._not_before[method] = time.monotonic() + error.after_s
            if faults.is_refusal(error):
                self._on_refusal(error)
            raise

    def _remember(self, ts: str, part: dict[str, Any]) -> None:
        self._shown[ts] = part
        self._shown.move_to_end(ts)
        if len(self._shown) > _REMEMBERED:
            self._shown.popitem(last=False)

    def look_up(self, message: Outgoing) -> tuple[str, ...]:
        """Return the receipts of the parts that the thread has, in order. DeliveryError."""
        route, me = _route(message), self._me()
        found: dict[int, str] = {}
        nameless = False
        arguments: dict[str, Any] = {
            "channel": route.channel,
            "ts": route.thread,
            "include_all_metadata": True,
            "limit": _PAGE,
        }
        while True:
            try:
                answer = self._ask("conversations.replies", **arguments)
            except CallError as error:
                raise faults.after_edit(error) from None
            for one in _dicts(answer.get("messages")):
                number = _part(one, message, me)
                if number is not None:
                    found.setdefault(number, str(one.get("ts", "")))
                nameless = nameless or (_is_ours(one, me) and "metadata" not in one)
            further = answer.get("response_metadata")
            cursor = further.get("next_cursor") if isinstance(further, dict) else None
            if not cursor:
                break
            arguments["cursor"] = cursor
        if nameless and not found:  # Then it may be there all the same.
            raise UndeliverableError(_NAMELESS)
        return tuple(found.get(number, DELETED) for number in range(max(found, default=-1) + 1))


def _route(message: Outgoing) -> Route:
    route = read_route(message.route)
    if route is None:
        raise UndeliverableError("Its conversation is none of Slack's. Drop it.")
    return route


def _raise_too_long(error: CallError) -> None:
    if error.code in ("msg_too_long", "msg_blocks_too_long"):
        raise _TooLongError from None


def _part(one: dict[str, Any], message: Outgoing, me: Identity) -> int | None:
    """Return which part of the message this is, None when it is none."""
    metadata = one.get("metadata")
    payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
    if not isinstance(payload, dict) or metadata is None:
        return None
    number = payload.get("part")
    named = metadata.get("event_type") == EVENT_TYPE and payload.get("id") == message.id
    return (
        number
        if _is_ours(one, me) and named and isinstance(number, int) and 0 <= number < 1000
        else None
    )


def _is_ours(one: dict[str, Any], me: Identity) -> bool:
    return one.get("user") == me.user or (me.bot != "" and one.get("bot_id") == me.bot)


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _render(message: Outgoing, limit: int) -> list[dict[str, Any]]:
    """Return what is sent of each part."""
    if message.kind is OutgoingKind.QUESTION:
        return _question(message, limit)
    texts = mrkdwn.split(mrkdwn.to_mrkdwn(message.text), limit) or ("(no text)",)
    if message.state is OutboxState.STREAMING:
        texts = texts[:1]
    return [{"text": text} for text in texts]


def _question(message: Outgoing, limit: int) -> list[dict[str, Any]]:
    """Show what is asked as it is, so that nothing in it can look like something else; with its buttons
    until it is decided, which is the first change of its text."""
    texts = mrkdwn.split(mrkdwn.literal(message.text), limit)
    parts = [
        {
            "text": text,
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": piece, "verbatim": True}}
                for piece in mrkdwn.split(text, min(SECTION, limit))
            ],
        }
        for text in texts
    ]
    if message.version <= 1:
        buttons = [
            _button(message, GRANT, "Grant", "primary"),
            _button(message, DENY, "Deny", "danger"),
        ]
        blocks: Any = parts[-1]["blocks"]
        if len(parts) > 1:  # Who sees the buttons may not see what is above them.
            words = f"This question is {len(parts)} messages long. Read all of them first."
            blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": words}]})
        blocks.append({"type": "actions", "block_id": BLOCK, "elements": buttons})
    return parts


def _button(message: Outgoing, action: str, label: str, style: str) -> dict[str, Any]:
    text = {"type": "plain_text", "text": label}
    return {
        "type": "button",
        "action_id": action,
        "text": text,
        "style": style,
        "value": message.id,
    }
