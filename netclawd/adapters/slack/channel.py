"""The channel of Slack: it keeps one connection alive, and lets nothing of it outlive its stop.

One thread connects, pings and judges. How a connection is replaced: the new one is open and greeted before
the old one is left, and the old one is left once what it had brought is acknowledged. What fails for now is
tried again with growing, jittered pauses; what Slack refuses (a token, a right) only every few minutes.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from netclawd.adapters.slack import faults
from netclawd.adapters.slack.envelopes import Identity
from netclawd.adapters.slack.link import Link
from netclawd.adapters.slack.posting import Poster
from netclawd.adapters.slack.receiving import Receiving
from netclawd.adapters.slack.web import CALL_S, CallError, Web
from netclawd.adapters.slack.wire import WireError, Wires
from netclawd.core.outgoing import Outgoing
from netclawd.core.settings import SlackSettings
from netclawd.core.slack import read_person, read_route
from netclawd.core.values import frozen
from netclawd.ports import Clock
from netclawd.ports.channels import (
    ChannelHost,
    ChannelPhase,
    ChannelState,
    Press,
    TryLaterError,
)

_log = logging.getLogger("netclawd.slack")

_NOT_YOU = "I'm not set up to talk with you. Ask whoever runs me to allow it."
_NOT_HERE = "I'm not set up to answer in this channel. Ask whoever runs me to allow it."

Spawn = Callable[[str, Callable[[], None]], threading.Thread]


@frozen
class Pace:
    """How often and how long, seconds."""

    #: Between two pings.
    ping_s: float = 5.0
    #: A connection of which nothing was heard for so long is dead.
    deaf_s: float = 20.0
    #: Slack's hello must come within this.
    hello_s: float = 10.0
    #: The first pause before another try, and the longest.
    first_s: float = 0.5
    longest_s: float = 60.0
    #: A connection that lived for so long makes the next pause the first one again.
    healthy_s: float = 30.0
    #: Between two tries where Slack refuses us.
    refused_s: float = faults.REFUSED_S
    #: An old connection is left after this, whatever it still has to acknowledge.
    leave_s: float = 3.0


class SlackChannel:
    """Implements :class:`netclawd.ports.channels.Channel`."""

    def __init__(
        self,
        settings: SlackSettings,
        app_token: str,
        bot_token: str,
        clock: Clock,
        spawn: Spawn,
        pace: Pace | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._spawn = spawn
        self._pace = pace or Pace()
        self._wires = Wires()
        self._app = Web(self._wires, app_token, settings.base_url)
        self._bot = Web(self._wires, bot_token, settings.base_url)
        self._poster = Poster(self._bot, self._identity, self._on_refusal)
        self._me: Identity | None = None
        self._host: ChannelHost | None = None
        self._receiving: Receiving | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._phase = ChannelPhase.CONNECTING
        self._trouble = ""
        self._connected_since: float | None = None
        self._last_event_at: float | None = None
        #: The connection that counts, and those that are being left with the instant of their end.
        self._link: Link | None = None
        self._since = 0.0
        self._left: list[tuple[float, Link]] = []
        #: Tries that failed in a row, and the monotonic instant of the next one.
        self._failures = 0
        self._again_at = 0.0
        #: Slack doesn't take the bot token any more, and the instant at which it is asked again.
        self._bot_trouble = ""
        self._ask_again_at = 0.0

    @property
    def name(self) -> str:
        return "slack"

    def start(self, host: ChannelHost) -> None:
        """Begin to connect and to receive, on threads of its own; returns at once."""
        self._host = host
        self._receiving = Receiving(host, self.refusal, self._tell, self._spawn)
        self._threads += self._receiving.threads
        self._threads.append(self._spawn("slack", self._run))

    # -- what the daemon asks --

    def state(self) -> ChannelState:
        with self._lock:
            link, phase = self._link, self._phase
            alive = (
                None if link is None else self._clock.wall() - (time.monotonic() - link.heard_at)
            )
            return ChannelState(
                phase, self._connected_since, self._last_event_at, alive, self._trouble
            )

    def unreachable(self, route: str) -> str:
        """Say why the conversation can't be reached with this configuration; empty when it can."""
        parts = read_route(route)
        if parts is None:
            return "It is no conversation of Slack's."
        if self._me is not None and parts.team != self._me.team:
            return "It is in another Slack workspace than the one that the tokens are for."
        return ""

    def refusal(self, route: str, requester: str) -> str:
        """Say why this person may not talk in this conversation now; empty when they may."""
        parts, settings = read_route(route), self._settings
        users, channels = settings.allow_users, settings.allow_channels
        user, outsider = read_person(requester)
        if user and user not in users and (outsider or "*" not in users):
            return _NOT_YOU  # Everybody is nobody of another workspace that shares the channel.
        if parts is not None and (parts.direct or "*" in channels or parts.channel in channels):
            return ""
        return _NOT_HERE

    def deliver(
        self, message: Outgoing, record: Callable[[tuple[str, ...]], None]
    ) -> tuple[str, ...]:
        """Make the conversation show the message's text. DeliveryError."""
        self._check()
        return self._poster.deliver(message, record)

    def look_up(self, message: Outgoing) -> tuple[str, ...]:
        """Return the receipts of the parts that the conversation has. DeliveryError."""
        self._check()
        return self._poster.look_up(message)

    def on_gate(self, is_open: bool) -> None:
        """What comes is offered in either case: the daemon judges it."""

    def pause(self) -> None:
        """Take nothing more and hang up; does not wait."""
        self._stopping = True
        self._set(ChannelPhase.STOPPED)
        self._wake.set()
        if self._receiving is not None:
            self._receiving.stop()
        self._wires.cut()

    def stop(self, timeout_s: float) -> None:
        """Pause, and wait until no thread and no connection of it is left."""
        deadline = time.monotonic() + timeout_s
        self.pause()
        while self.working and (left := deadline - time.monotonic()) > 0:
            # A connection in the making may have been missed.
            self._wires.cut()
            self._wake.set()
            alive = [thread for thread in self._threads if thread.is_alive()]
            if alive:
                alive[0].join(min(left, 0.02))
            else:
                time.sleep(min(left, 0.005))

    @property
    def working(self) -> bool:
        """Whether a thread or a connection of it is left."""
        return self._wires.any or any(thread.is_alive() for thread in list(self._threads))

    # -- delivering --

    def _identity(self) -> Identity:
        if self._me is None:
            raise TryLaterError("Slack is not connected yet.", everything=True)
        return self._me

    def _check(self) -> None:
        if self._stopping:
            raise TryLaterError("The channel is at rest.", everything=True)

    def _on_refusal(self, error: CallError) -> None:
        """Note, on any thread, that Slack doesn't take the bot token any more."""
        trouble = faults.trouble(error, faults.BOT_TOKEN)
        with self._lock:
            fresh, self._bot_trouble = not self._bot_trouble, trouble
            self._ask_again_at = time.monotonic() + self._pace.refused_s
        self._set(ChannelPhase.REFUSED, trouble)
        if fresh:
            self._tell_host()

    def _tell(self, press: Press, sentence: str) -> None:
        """Show a sentence to the one who has pressed a button."""
        route = read_route(press.route)
        if route is None:
            return
        try:
            self._bot.ask(
                "chat.postEphemeral",
                channel=route.channel,
                user=read_person(press.requester)[0],
                thread_ts=route.thread,
                text=sentence,
            )
        except CallError:
            pass  # The question says it too, once it is decided.

    # -- the connection --

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._attend()
            except Exception as error:  # noqa: BLE001 - the thread that reconnects must not end
                _log.exception("the connection could not be attended to")
                self._fail(f"An error of netclawd ({type(error).__name__}); see its log.", None)
            self._wake.wait(self._pause())

    def _attend(self) -> None:
        """Do what is due: notice an end, replace, connect, ping."""
        now = time.monotonic()
        self._leave(now)
        if self._bot_trouble and now >= self._ask_again_at:
            self._ask_again()
        link = self._link
        if link is not None and link.ended.is_set():
            self._lose(link, now)
            link = None
        if link is not None and now - link.heard_at > self._pace.deaf_s:
            link.why = "it has not been heard for a while"
            link.cut()
            self._wake.set()
            return
        if link is not None:
            link.say_ping()
        if (link is None or link.leaving) and now >= self._again_at:
            self._connect()

    def _pause(self) -> float:
        waits = [self._pace.ping_s] if self._link is not None else []
        if self._link is None or self._link.leaving:
            waits.append(self._again_at - time.monotonic())
        if self._bot_trouble:
            waits.append(self._ask_again_at - time.monotonic())
        if self._left:
            waits.append(0.05)
        return max(0.0, min(waits))

    def _connect(self) -> None:
        """Make a connection, and put it in the place of the one before."""
        try:
            link = self._make()
        except CallError as error:
            if not self._stopping:
                # Who we are is known once the bot token was taken.
                token = faults.BOT_TOKEN if self._me is None else faults.APP_TOKEN
                refused = error.code in faults.REFUSALS
                self._fail(faults.trouble(error, token), error.after_s, refused=refused)
            return
        except WireError as error:
            if not self._stopping:
                self._fail(f"Slack's socket can't be reached: {error}.", None)
            return
        before, now = self._link, time.monotonic()
        if before is not None and now - self._since >= self._pace.healthy_s:
            self._failures = 0
        with self._lock:
            self._link, self._since = link, now
            if self._connected_since is None:
                self._connected_since = self._clock.wall()
        # Slack may send this one away at once, again and again.
        self._put_off(self._growing())
        if trouble := self._bot_trouble:
            self._set(ChannelPhase.REFUSED, trouble)
        else:
            self._set(ChannelPhase.CONNECTED)
        if before is not None:
            self._left.append((now + self._pace.leave_s, before))
        self._tell_host()

    def _ask_again(self) -> None:
        """Look whether Slack takes the bot token by now."""
        try:
            self._me = _identify(self._bot.ask("auth.test"))
        except CallError as error:
            pause = self._pace.refused_s if faults.is_refusal(error) else self._growing()
            self._ask_again_at = time.monotonic() + pause
            return
        with self._lock:
            self._bot_trouble = ""
        if self._link is not None:
            self._set(ChannelPhase.CONNECTED)
            self._tell_host()

    def _make(self) -> Link:
        """Return a connection that Slack has greeted. CallError, WireError."""
        if self._me is None:
            self._me = _identify(self._bot.ask("auth.test"))
        answer = self._app.ask("apps.connections.open")
        url = answer.get("url")
        if not isinstance(url, str):
            raise CallError("it names no address")
        link = Link(self._wires, url, self._on_text, self._wake.set)
        try:
            link.open(time.monotonic() + CALL_S)
        except ValueError:
            raise WireError("its address is none") from None
        self._threads = [t for t in self._threads if t.is_alive()]
        try:
            self._threads.append(self._spawn("slack-link", link.run))
        except RuntimeError:  # No thread can be had: nobody would close the connection.
            link.disconnect()
            raise
        link.greeted.wait(self._pace.hello_s)
        if link.ended.is_set() or not link.greeted.is_set():
            late = not link.ended.is_set()
            link.cut()
            raise WireError("it does not say hello" if late else link.why)
        return link

    def _leave(self, now: float) -> None:
        """Hang up what was replaced, once it has nothing left to acknowledge."""
        for entry in list(self._left):
            at, link = entry
            if link.idle or now >= at or link.ended.is_set():
                link.cut()
                self._left.remove(entry)

    def _lose(self, link: Link, now: float) -> None:
        """Note that the connection has ended."""
        if now - self._since >= self._pace.healthy_s:
            self._failures = 0
        with self._lock:
            self._link, self._connected_since = None, None
        self._fail(f"Slack is gone: {link.why}.", None)

    def _fail(self, trouble: str, after_s: float | None, *, refused: bool = False) -> None:
        """Note why there is no connection, and when the next try is due."""
        pause = self._growing() if after_s is None else after_s
        if refused:
            pause = self._pace.refused_s
        self._put_off(pause)
        if self._link is not None and not self._link.ended.is_set():
            return  # The old one still serves.
        _log.info("%s Next try in %.1f s.", trouble, pause)
        self._set(ChannelPhase.REFUSED if refused else ChannelPhase.DOWN, trouble)
        self._tell_host()

    def _growing(self) -> float:
        pace = self._pace
        full_s = min(pace.first_s * float(2**self._failures), pace.longest_s)
        return full_s * random.uniform(0.5, 1)  # noqa: S311

    def _put_off(self, pause_s: float) -> None:
        self._failures = min(self._failures + 1, 20)
        # A pause that Slack has asked for stands.
        self._again_at = max(self._again_at, time.monotonic() + pause_s)

    def _set(self, phase: ChannelPhase, trouble: str = "") -> None:
        with self._lock:
            if self._phase is not ChannelPhase.STOPPED:
                self._phase, self._trouble = phase, trouble
            if phase in (ChannelPhase.DOWN, ChannelPhase.STOPPED):
                self._connected_since = None

    def _tell_host(self) -> None:
        if self._host is not None and not self._stopping:
            self._host.changed()

    # -- what comes in, on a link's thread --

    def _on_text(self, link: Link, raw: dict[str, Any]) -> None:
        kind = raw.get("type")
        if kind == "hello":
            link.greeted.set()
        elif kind == "disconnect":
            # Unless there is another one already, a new one comes first.
            link.leaving = True
            self._wake.set()
        elif self._receiving is not None and self._me is not None:
            with self._lock:
                self._last_event_at = self._clock.wall()
            self._receiving.take(link, raw, self._me)


def _identify(answer: dict[str, Any]) -> Identity:
    found = [answer.get(key) for key in ("team_id", "user_id", "bot_id")]
    team, user, bot = (value if isinstance(value, str) else "" for value in found)
    if not team or not user:
        raise CallError("it doesn't say who we are")
    return Identity(team, user, bot)
