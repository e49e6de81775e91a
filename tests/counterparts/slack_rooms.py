"""Who and what is in a Slack workspace: people, channels, messages; and how the app posts and edits."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.counterparts.slack_ledger import Message


class Rooms(ABC):
    """The messages; what is to be heard of them goes to ``_emit_message``."""

    team, app_id, bot_user, bot_id = "T0NETCLAW", "A0NETCLAW", "U0NETCLAW", "B0NETCLAW"

    def __init__(self, on_change: Callable[[Message], None] | None) -> None:
        #: Ids by name.
        self.users: dict[str, str] = {}
        self.channel_ids: dict[str, str] = {}
        #: Messages by ``ts``, by id of the channel.
        self.channels: dict[str, dict[str, Message]] = {}
        self.archived: set[str] = set()
        #: Channels that the app isn't in.
        self.left: set[str] = set()
        #: What the app posted, in order; messages for one person too.
        self.posts: list[Message] = []
        self._on_change = on_change
        self._last_ts = 0
        #: Guards everything; told of all that the clock must look at.
        self._state = threading.Condition(threading.RLock())

    @abstractmethod
    def _emit_message(self, told: Mapping[str, Any], message: Message) -> None: ...

    def user(self, name: str) -> str:
        """Return the id of a user; a new name is a new user. An id is returned as it is."""
        with self._state:
            if name in self.users.values():
                return name
            number = len(self.users) + 1
            return self.users.setdefault(name, f"U{number:04}{name.upper()[:6]}")

    def channel(self, name: str) -> str:
        """Return the id of a channel with the app in it; a new name is a new channel."""
        with self._state:
            if name in self.channels:
                return name
            number = len(self.channels) + 1
            found = self.channel_ids.setdefault(name, f"C{number:04}{name.upper()[:6]}")
            self.channels.setdefault(found, {})
            return found

    def direct(self, user: str) -> str:
        """Return the id of the direct messages between a user and the app."""
        found = f"D{self.user(user)[1:]}"
        with self._state:
            self.channels.setdefault(found, {})
        return found

    def post(
        self,
        channel: str,
        text: str,
        *,
        thread_ts: str | None,
        blocks: Sequence[Any],
        metadata: Mapping[str, Any] | None,
    ) -> Message:
        """Post as the app."""
        with self._state:
            message = Message(channel, "", self.bot_user, text, 0.0, thread_ts, bot=True)
            message.blocks, message.metadata = blocks, metadata or None
            self.posts.append(self._add(message))
            self._emit_message(self._told(message), message)
        self._changed(message)
        return message

    def whisper(
        self, channel: str, user: str, text: str, *, thread_ts: str | None, blocks: Sequence[Any]
    ) -> Message:
        """Post as the app for one person alone."""
        with self._state:
            message = Message(channel, self._ts(), self.bot_user, text, time.monotonic(), thread_ts)
            message.bot, message.only_for, message.blocks = True, user, blocks
            message.history.append((message.at, text))
            self.posts.append(message)
        self._changed(message)
        return message

    def change(self, message: Message, text: str, blocks: Sequence[Any]) -> None:
        """Edit a message of the app."""
        with self._state:
            before = message.shown()
            message.text, message.blocks = text, blocks
            message.history.append((time.monotonic(), text))
            told = {
                "type": "message",
                "subtype": "message_changed",
                "message": {**message.shown(), "bot_id": self.bot_id},
                "previous_message": {**before, "bot_id": self.bot_id},
                "channel": message.channel,
                "hidden": True,
                "ts": self._ts(),
            }
            self._emit_message({**told, "event_ts": told["ts"]}, message)
        self._changed(message)

    def remove(self, message: Message) -> None:
        """Delete a message; the app hears of it."""
        with self._state:
            del self.channels[message.channel][message.ts]
            message.deleted_at = time.monotonic()
            told = {
                "type": "message",
                "subtype": "message_deleted",
                "previous_message": message.shown(),
                "deleted_ts": message.ts,
                "channel": message.channel,
                "hidden": True,
                "ts": self._ts(),
            }
            self._emit_message({**told, "event_ts": told["ts"]}, message)

    def _changed(self, message: Message) -> None:
        if self._on_change is not None:
            self._on_change(message)

    def _ts(self) -> str:
        self._last_ts = max(self._last_ts + 1, int(time.time() * 1e6))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06}"

    def _add(self, message: Message) -> Message:
        message.ts, message.at = self._ts(), time.monotonic()
        message.history.append((message.at, message.text))
        rows = self.channels[message.channel]
        if message.thread_ts is not None:
            rows[message.thread_ts].thread_ts = message.thread_ts
        rows[message.ts] = message
        return message

    def _told(self, message: Message) -> dict[str, Any]:
        found = {**message.shown(), "team": self.team, "channel": message.channel}
        found["event_ts"] = message.ts
        if message.thread_ts == message.ts:
            del found["thread_ts"]
        elif message.thread_ts is not None:
            parent = self.channels[message.channel][message.thread_ts]
            found["parent_user_id"] = parent.user
        if message.bot:
            found |= {"bot_id": self.bot_id, "app_id": self.app_id}
        return found
