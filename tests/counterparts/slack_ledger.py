"""What a Slack workspace keeps: its messages, every call and every delivery, and how a call may go wrong.

Instants are monotonic.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# -- how a call may go wrong -----------------------------------------------------------------------


@dataclass(frozen=True)
class Refuse:
    """``ok: false`` with an error."""

    error: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limited:
    """429: too many calls."""

    after_s: float = 1


@dataclass(frozen=True)
class Page:
    """A status and a body that is no answer of the Web API."""

    status: int = 500
    body: bytes = b"<html><body><h1>Server Error</h1></body></html>"
    content_type: str = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Cut:
    """The connection is closed instead of an answer; a WebSocket's in the middle of the handshake."""

    #: Do what was asked for before that.
    performed: bool = False
    #: Do it so many seconds after that, None: not at all.
    late_s: float | None = None


@dataclass(frozen=True)
class Mute:
    """No answer, until the client hangs up."""

    performed: bool = False


@dataclass(eq=False)
class Held:
    """The call waits for the test: before it is done, or ``performed``, before the answer."""

    performed: bool = False
    #: The call has come this far.
    reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    def release(self) -> None:
        """Go on as if nothing had been, whether the client is still there or not."""
        self._released.set()

    def lose(self) -> None:
        """Hang up; what wasn't performed never is."""
        self._lost = True
        self._released.set()

    def wait(self) -> bool:
        """Return whether to go on."""
        self.reached.set()
        self._released.wait(60.0)
        return not self._lost


Fault = Refuse | Limited | Page | Cut | Mute | Held


# -- what is kept ----------------------------------------------------------------------------------


@dataclass(eq=False)
class Message:
    """A message of a person or of the app."""

    channel: str
    ts: str
    user: str
    text: str
    at: float
    #: ``ts`` of the thread's first message, None for one that begins none or may begin one.
    thread_ts: str | None = None
    bot: bool = False
    #: Shown to this user alone, and no part of the channel.
    only_for: str = ""
    blocks: Sequence[Any] = ()
    metadata: Mapping[str, Any] | None = None
    #: Every text that it has had, with the instant, the first included.
    history: list[tuple[float, str]] = field(default_factory=list)
    deleted_at: float | None = None

    @property
    def thread(self) -> str:
        """``ts`` of the thread that answers to it go into."""
        return self.thread_ts or self.ts

    @property
    def edits(self) -> int:
        return len(self.history) - 1

    @property
    def buttons(self) -> list[dict[str, Any]]:
        elements = [e for block in self.blocks for e in block.get("elements", ())]
        elements += [b["accessory"] for b in self.blocks if "accessory" in b]
        return [e for e in elements if e.get("type") == "button"]

    def shown(self) -> dict[str, Any]:
        """Return it as the API shows it, without its metadata."""
        found: dict[str, Any] = {"type": "message", "user": self.user, "ts": self.ts}
        found["text"] = self.text
        if self.thread_ts is not None:
            found["thread_ts"] = self.thread_ts
        if self.blocks:
            found["blocks"] = list(self.blocks)
        if self.edits:
            found["edited"] = {"user": self.user, "ts": self.ts}
        return found


@dataclass(eq=False)
class WebCall:
    """A call of the Web API, or a handshake (method ``socket``)."""

    method: str
    arguments: Mapping[str, Any]
    token: str
    at: float
    fault: Fault | None = None
    #: What was answered; None while there is none.
    answer: Mapping[str, Any] | None = None
    #: ``ts`` of what it posted or edited.
    ts: str = ""


@dataclass(eq=False)
class Delivery:
    """An envelope that went over a socket."""

    envelope_id: str
    #: Empty for what is no event.
    event_id: str
    #: Number of the socket, from 1.
    socket: int
    envelope: Mapping[str, Any]
    at: float
    acknowledged_at: float | None = None
    #: Why it counts as lost: ``timeout``, ``connection_lost``; empty while it doesn't.
    lost: str = ""


@dataclass(eq=False)
class Event:
    """What the app is to hear of, until it has acknowledged it."""

    event_id: str
    payload: Mapping[str, Any]
    #: ``ts`` of the message that it tells of.
    ts: str
    due_at: float
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def acknowledged_at(self) -> float | None:
        instants = [d.acknowledged_at for d in self.deliveries if d.acknowledged_at is not None]
        return min(instants) if instants else None
