"""The channel of Slack beside a workspace, and a daemon that only notes what it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from netclawd.adapters.clock import SystemClock
from netclawd.adapters.slack.channel import Pace, SlackChannel
from netclawd.core.outgoing import Outgoing, OutgoingId, OutgoingKind, Reception
from netclawd.core.session import OutboxState
from netclawd.core.settings import SlackSettings
from netclawd.daemon.signals import spawn
from netclawd.errors import StoreClosedError
from netclawd.ports.channels import ChannelPhase, ChannelState, Incoming, Press
from tests.counterparts.slack import Workspace
from tests.waiting import wait_for

#: Everything in tenths of what people wait for.
QUICK = Pace(ping_s=0.1, deaf_s=0.5, hello_s=2.0, first_s=0.05, refused_s=0.3, leave_s=1.0)


class PaperHost:
    """Notes what it is given; :attr:`known` are the conversations that it has."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.received: list[Incoming] = []
        self.refused: list[tuple[Incoming, str]] = []
        self.presses: list[Press] = []
        self.known: set[str] = set()
        self.phases: list[ChannelPhase] = []
        self.state: Callable[[], ChannelState] | None = None
        #: The store is closed: nothing is taken.
        self.closed = False

    def _check(self) -> None:
        if self.closed:
            raise StoreClosedError("The store is closed.", "Wait for the restart.")

    def receive(self, incoming: Incoming) -> Reception:
        self._check()
        with self.lock:
            self.received.append(incoming)
            self.known.add(incoming.route)
        return Reception(repeat=False)

    def refuse(self, incoming: Incoming, sentence: str) -> None:
        self._check()
        self.refused.append((incoming, sentence))

    def press(self, press: Press) -> str:
        self._check()
        self.presses.append(press)
        return "Granted." if press.granted else "Denied."

    def knows(self, route: str) -> bool:
        self._check()
        return route in self.known

    def changed(self) -> None:
        assert self.state is not None
        self.phases.append(self.state().phase)


def make_channel(slack: Workspace, pace: Pace = QUICK, **more: Any) -> SlackChannel:
    table = slack.settings(**more)
    lists = {key: tuple(table[key]) for key in ("allow_users", "allow_channels")}
    settings = SlackSettings("env:APP", "env:BOT", **lists, base_url=table["base_url"])
    app, bot = table["app_token"], table["bot_token"]
    return SlackChannel(settings, app, bot, SystemClock(), spawn, pace)


@contextmanager
def started(
    slack: Workspace, pace: Pace = QUICK, *, wait: bool = True, **more: Any
) -> Iterator[tuple[SlackChannel, PaperHost]]:
    """Start a channel, wait until it is connected, and stop it in the end."""
    channel, host = make_channel(slack, pace, **more), PaperHost()
    host.state = channel.state
    channel.start(host)
    try:
        if wait:
            await_phase(channel, ChannelPhase.CONNECTED)
        yield channel, host
    finally:
        channel.stop(5.0)


def await_phase(channel: SlackChannel, phase: ChannelPhase) -> ChannelState:
    wait_for(lambda: channel.state().phase is phase, 10.0, lambda: f"{phase}: {channel.state()}")
    return channel.state()


def outgoing(route: str, text: str, **more: Any) -> Outgoing:
    """Return a message of the outbox that is to be sent."""
    values: dict[str, Any] = {
        "id": OutgoingId("t-1"),
        "channel": "slack",
        "route": route,
        "kind": OutgoingKind.REPLY,
        "state": OutboxState.SENDING,
        "text": text,
        "version": 1,
        "receipts": (),
        "session_id": None,
        "turn_id": None,
        "requester": "",
        "error": "",
        "attempts": 0,
        "at": 0.0,
        "changed_at": 0.0,
        "due_at": 0.0,
        "expires_at": None,
    }
    return Outgoing(**{**values, **more})
