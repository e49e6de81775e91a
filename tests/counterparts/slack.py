"""A Slack workspace over real sockets: the Web API, Socket Mode, people who talk and press buttons.

    with Workspace() as slack:
        …  # [slack] app_token, bot_token, base_url = slack.settings()
        asked = slack.say("ada", "general", "How are you?")
        slack.fault("chat.postMessage", Limited(1), Cut(performed=True))
        assert [m.text for m in slack.answers(asked)] == …

Events go over any open socket; one that isn't acknowledged in ``acknowledge_s``, or whose socket ends, is
delivered again under another envelope id, and those that no socket can take wait for one. Everything
that was posted, edited, called and acknowledged is kept: ``posts``, ``calls``, ``deliveries``.
"""

from __future__ import annotations

import html
import itertools
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from tests.counterparts import slack_api
from tests.counterparts.slack_ledger import (
    Cut,
    Delivery,
    Event,
    Fault,
    Held,
    Limited,
    Message,
    Mute,
    Page,
    Refuse,
    WebCall,
)
from tests.counterparts.slack_wire import Listener, Request, Socket

#: What the app hears of, as its manifest may say.
SUBSCRIPTIONS = ("app_mention", "message.channels", "message.groups", "message.im")
#: A direct message, in place of a channel's name.
DIRECT = "@"


class Workspace:
    team, app_id, bot_user, bot_id = "T0NETCLAW", "A0NETCLAW", "U0NETCLAW", "B0NETCLAW"

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        acknowledge_s: float = 3.0,
        redeliver_s: Sequence[float] = (0.1,),
        ping_s: float = 5.0,
        subscriptions: Sequence[str] = SUBSCRIPTIONS,
        on_change: Callable[[Message], None] | None = None,
    ) -> None:
        #: Seconds in which an envelope is to be acknowledged.
        self.acknowledge_s = acknowledge_s
        #: Pauses before an event is delivered again; the last one counts on.
        self.redeliver_s = tuple(redeliver_s)
        #: Seconds between two pings over each socket.
        self.ping_s = ping_s
        self.subscriptions = tuple(subscriptions)
        self.app_token, self.bot_token = "xapp-1-A0NETCLAW-1-0123", "xoxb-1-2-0123456789"
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
        self.calls: list[WebCall] = []
        self.events: list[Event] = []
        self._unsettled: list[Event] = []
        self.deliveries: list[Delivery] = []
        self._envelopes: dict[str, Delivery] = {}
        #: Envelopes by socket.
        self._given: dict[int, int] = {}
        self.sockets: list[Socket] = []
        self._on_change = on_change
        self._faults: dict[str, list[Fault | None]] = {}
        self._always: dict[str, Fault] = {}
        self._tickets: set[str] = set()
        self._numbers = itertools.count(1)
        self._last_ts = 0
        self._held = False
        self._closing = threading.Event()
        #: Guards everything; told of all that the clock must look at.
        self._state = threading.Condition(threading.RLock())
        self._listener = Listener(host, port, self._handle)
        self._clock = threading.Thread(target=self._deliver, name="slack-clock", daemon=True)
        self._clock.start()

    # -- what a test uses --------------------------------------------------------------------

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root}/api/"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the table ``[slack]`` for an agent that everybody may talk to, secrets in the clear."""
        everybody = {"allow_users": ["*"], "allow_channels": ["*"]}
        tokens = {"app_token": self.app_token, "bot_token": self.bot_token}
        return {**tokens, "base_url": self.base_url, **everybody, **more}

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

    def say(
        self,
        user: str,
        channel: str,
        text: str,
        thread_ts: str | Message | None = None,
        mention: bool = True,
    ) -> Message:
        """Have somebody say something in a channel, or directly (:data:`DIRECT`); the app hears of it."""
        with self._state:
            who = self.user(user)
            where = self.direct(user) if channel == DIRECT else self.channel(channel)
            words = html.escape(text, quote=False)
            if mention and not where.startswith("D"):
                words = f"<@{self.bot_user}> {words}"
            if isinstance(thread_ts, Message):
                thread_ts = thread_ts.thread
            message = self._add(Message(where, "", who, words, 0.0, thread_ts))
            told = {**self._told(message), "client_msg_id": str(uuid.uuid4())}
            if mention and not where.startswith("D") and "app_mention" in self.subscriptions:
                self._emit({**told, "type": "app_mention"}, message.ts)
            self._emit_message(told, message)
            return message

    def press(self, user: str, message: Message, action: str | int) -> Delivery | None:
        """Press a button, by its action_id, its label or its place; None when no socket took it.

        As in Slack it is delivered once.
        """
        buttons = message.buttons
        (button,) = (
            [buttons[action]]
            if isinstance(action, int)
            else [b for b in buttons if action in (b.get("action_id"), b["text"]["text"])]
        )
        who = self.user(user)
        container = {"type": "message", "message_ts": message.ts, "channel_id": message.channel}
        name = next((n for n, c in self.channel_ids.items() if c == message.channel), "direct")
        payload: dict[str, Any] = {
            "type": "block_actions",
            "user": {"id": who, "username": user, "name": user, "team_id": self.team},
            "api_app_id": self.app_id,
            "token": "verification",
            "container": {
                **container,
                "is_ephemeral": bool(message.only_for),
                **({"thread_ts": message.thread_ts} if message.thread_ts else {}),
            },
            "trigger_id": f"1.2.{uuid.uuid4().hex}",
            "team": {"id": self.team, "domain": "netclaw"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": message.channel, "name": name},
            "message": {**message.shown(), "bot_id": self.bot_id},
            "state": {"values": {}},
            "response_url": f"{self.root}/actions/{message.channel}/{message.ts}",
            "actions": [{"block_id": "b0", **button, "action_ts": f"{time.time():.6f}"}],
        }
        return self.send(
            {"type": "interactive", "payload": payload, "accepts_response_payload": False}
        )

    def answers(self, message: Message) -> list[Message]:
        """Return what the app has posted in the thread of a message, for everybody."""
        with self._state:
            rows = list(self.channels[message.channel].values())
        return [m for m in rows if m.bot and m.thread_ts == message.thread]

    def whispers(self, user: str) -> list[Message]:
        """Return what the app has posted for one person alone."""
        return [m for m in list(self.posts) if m.only_for == self.user(user)]

    def called(self, method: str) -> list[WebCall]:
        return [c for c in list(self.calls) if c.method == method]

    def fault(self, method: str, *faults: Fault | None) -> None:
        """Let the next calls of a method go wrong, each once; None: that one goes right.

        ``socket`` is the handshake of a WebSocket.
        """
        with self._state:
            self._faults.setdefault(method, []).extend(faults)

    def always(self, method: str, fault: Fault | None) -> None:
        """Let every call of a method go wrong from now on; None: no more."""
        with self._state:
            self._always.pop(method, None)
            if fault is not None:
                self._always[method] = fault

    @property
    def open_sockets(self) -> list[Socket]:
        return [s for s in list(self.sockets) if s.is_open]

    def drop_sockets(self) -> None:
        """Close every socket without a word."""
        for one in self.open_sockets:
            one.drop()

    def disconnect(self, reason: str = "refresh_requested", within_s: float | None = None) -> None:
        """Ask every socket to leave; it is closed after ``within_s``, None: only when the app does it."""
        for one in self.open_sockets:
            one.leaving = True
            one.send({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink"}})
            if within_s is not None:
                timer = threading.Timer(within_s, one.leave)
                timer.daemon = True
                timer.start()

    def send(self, envelope: Mapping[str, Any]) -> Delivery | None:
        """Send an envelope of any type over an open socket, once; None when there is none."""
        with self._state:
            sockets = self._takers()
            return self._send(sockets[0], envelope, None) if sockets else None

    def send_raw(self, text: str) -> None:
        """Send a text over every open socket."""
        for one in self.open_sockets:
            one.send(text)

    def repeat(self, message: Message) -> None:
        """Deliver what tells of a message once more, though it was acknowledged."""
        with self._state:
            for event in [e for e in self.events if e.ts == message.ts]:
                self._queue(Event(event.event_id, event.payload, event.ts, time.monotonic()))
            self._state.notify_all()

    def hold(self) -> None:
        """Deliver no event until ``release``."""
        with self._state:
            self._held = True

    def release(self, order: Callable[[list[Event]], list[Event]] = list) -> None:
        """Deliver again; ``order`` sorts what waits."""
        with self._state:
            self._unsettled = list(order(self._unsettled))
            self._held = False
            self._state.notify_all()

    @property
    def unacknowledged(self) -> list[Event]:
        with self._state:
            return [e for e in self.events if e.acknowledged_at is None]

    def close(self) -> None:
        self._closing.set()
        with self._state:
            self._state.notify_all()
        self._clock.join()
        self.drop_sockets()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- messages, for the methods of the API --------------------------------------------------

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

    # -- events ------------------------------------------------------------------------------

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

    def _emit_message(self, told: Mapping[str, Any], message: Message) -> None:
        kind = {"C": "channel", "G": "group", "D": "im"}[message.channel[0]]
        subscription = {"channel": "channels", "group": "groups", "im": "im"}[kind]
        if f"message.{subscription}" in self.subscriptions and message.channel not in self.left:
            self._emit({**told, "type": "message", "channel_type": kind}, message.ts)

    def _emit(self, event: Mapping[str, Any], ts: str) -> None:
        number = next(self._numbers)
        payload = {
            "token": "verification",
            "team_id": self.team,
            "api_app_id": self.app_id,
            "event": dict(event),
            "type": "event_callback",
            "event_id": f"Ev{number:08}",
            "event_time": int(time.time()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": self.team,
                    "user_id": self.bot_user,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
            "event_context": f"4-{number:08}",
        }
        self._queue(Event(f"Ev{number:08}", payload, ts, time.monotonic()))

    def _queue(self, event: Event) -> None:
        self.events.append(event)
        self._unsettled.append(event)
        self._state.notify_all()

    def _takers(self) -> list[Socket]:
        """Return the sockets that can be given something, the one that was given least first."""
        found = [s for s in self.sockets if s.is_open and not s.leaving]
        return sorted(found, key=lambda s: self._given.get(s.number, 0))

    def _deliver(self) -> None:
        ping_at = time.monotonic() + self.ping_s
        while not self._closing.is_set():
            with self._state:
                now = time.monotonic()
                if now >= ping_at:
                    ping_at = now + self.ping_s
                    for one in self.open_sockets:
                        one.ping()
                self._unsettled = [e for e in self._unsettled if e.acknowledged_at is None]
                due = [self._look(event, now) for event in self._unsettled]
                instants = [ping_at, *(at for at in due if at is not None)]
                if not self._closing.is_set():
                    self._state.wait(max(min(instants) - now, 0.001))

    def _look(self, event: Event, now: float) -> float | None:
        """Deliver an event if it is due; return when it is to be looked at again."""
        last = event.deliveries[-1] if event.deliveries else None
        if event.acknowledged_at is not None:
            return None
        if last is not None and not last.lost:
            if now < last.at + self.acknowledge_s:
                return last.at + self.acknowledge_s
            self._lose(event, last, "timeout", now)
        if now < event.due_at:
            return event.due_at
        sockets = [] if self._held else self._takers()
        if not sockets:
            return None
        attempt = len(event.deliveries)
        envelope = {
            "type": "events_api",
            "payload": event.payload,
            "accepts_response_payload": False,
            "retry_attempt": attempt,
            "retry_reason": event.deliveries[-1].lost if attempt else "",
        }
        self._send(sockets[0], envelope, event)
        return now + self.acknowledge_s

    def _lose(self, event: Event, delivery: Delivery, why: str, now: float) -> None:
        delivery.lost = why
        attempt = min(len(event.deliveries), len(self.redeliver_s)) - 1
        event.due_at = now + self.redeliver_s[attempt]

    def _send(self, one: Socket, envelope: Mapping[str, Any], event: Event | None) -> Delivery:
        envelope = {"envelope_id": str(uuid.uuid4()), **envelope}
        delivery = Delivery(
            envelope["envelope_id"],
            event.event_id if event else "",
            one.number,
            envelope,
            time.monotonic(),
        )
        self.deliveries.append(delivery)
        self._envelopes[delivery.envelope_id] = delivery
        self._given[one.number] = self._given.get(one.number, 0) + 1
        if event is not None:
            event.deliveries.append(delivery)
        if not one.send(envelope):
            delivery.lost = "connection_lost"
        return delivery

    def take(self, _: Socket, message: Any) -> None:
        """Hear an acknowledgement."""
        with self._state:
            delivery = self._envelopes.get(message.get("envelope_id"))
            if delivery is not None and delivery.acknowledged_at is None:
                delivery.acknowledged_at = time.monotonic()
                self._state.notify_all()

    # -- connections -------------------------------------------------------------------------

    def issue_url(self) -> str:
        """Return an address for one WebSocket, that can be used once."""
        ticket = uuid.uuid4().hex
        with self._state:
            self._tickets.add(ticket)
        return f"ws://127.0.0.1:{self._listener.port}/link/?ticket={ticket}&app_id={self.app_id}"

    def _handle(self, request: Request) -> None:
        if request.is_upgrade:
            self._handle_socket(request)
        elif request.path.startswith("/actions/"):
            self._record(WebCall("response_url", {"body": request.body().decode()}, "", 0.0))
            request.answer(200, "text/plain", b"ok")
        else:
            self._handle_call(request)

    def _record(self, call: WebCall) -> Fault | None:
        call.at = time.monotonic()
        with self._state:
            self.calls.append(call)
            script = self._faults.get(call.method)
            call.fault = script.pop(0) if script else self._always.get(call.method)
        return call.fault

    def _handle_call(self, request: Request) -> None:
        method = request.path.removeprefix("/api/")
        body = request.body()
        call = WebCall(method, {}, "", 0.0)
        try:
            arguments = slack_api.arguments_of(
                request.headers.get("content-type", ""), request.query, body
            )
        except slack_api.RefusedError as error:
            self._record(call)
            request.answer_json({"ok": False, "error": error.error})
            return
        token = str(arguments.pop("token", ""))
        call.arguments = arguments
        call.token = request.headers.get("authorization", "").removeprefix("Bearer ") or token
        self._answer(request, call, self._record(call))

    def _answer(self, request: Request, call: WebCall, fault: Fault | None) -> None:
        match fault:
            case Refuse():
                call.answer = {"ok": False, "error": fault.error, **fault.more}
            case Limited():
                headers = {"Retry-After": f"{fault.after_s:g}"}
                request.answer_json({"ok": False, "error": "ratelimited"}, 429, headers)
                return
            case Page():
                request.answer(fault.status, fault.content_type, fault.body)
                return
            case Cut():
                if fault.performed:
                    self._perform(call)
                request.hang_up()
                if fault.late_s is not None and not self._closing.wait(fault.late_s):
                    self._perform(call)
                return
            case Mute():
                if fault.performed:
                    self._perform(call)
                request.wait_for_hangup()
                return
            case Held():
                if fault.performed:
                    self._perform(call)
                if not fault.wait():
                    return
                if not fault.performed:
                    self._perform(call)
            case None:
                self._perform(call)
        request.answer_json(call.answer)

    def _perform(self, call: WebCall) -> None:
        with self._state:
            call.answer = slack_api.perform(self, call)

    def _handle_socket(self, request: Request) -> None:
        fault = self._record(WebCall("socket", {"query": request.query}, "", 0.0))
        ticket = dict(urllib.parse.parse_qsl(request.query)).get("ticket", "")
        with self._state:
            known = ticket in self._tickets
            self._tickets.discard(ticket)
            one = Socket(self, request, len(self.sockets) + 1)
        match fault:
            case Page():
                request.answer(fault.status, fault.content_type, fault.body)
                return
            case Limited():
                request.answer_json({"ok": False}, 429, {"Retry-After": f"{fault.after_s:g}"})
                return
            case Cut():
                one.break_off()
                return
            case Mute():
                request.wait_for_hangup()
                return
            case Held() if not fault.wait():
                return
        if not known:
            request.answer(400, "text/plain", b"the ticket is used or unknown")
        elif one.accept():
            self._run(one)

    def _run(self, one: Socket) -> None:
        with self._state:
            one.number = len(self.sockets) + 1
            self.sockets.append(one)
            hello = {
                "type": "hello",
                "num_connections": len(self.open_sockets),
                "debug_info": {"host": "applink", "approximate_connection_time": 18060},
                "connection_info": {"app_id": self.app_id},
            }
            one.send(hello)
            self._state.notify_all()
        try:
            one.run()
        finally:
            with self._state:
                one.closed_at = now = time.monotonic()
                for event in self._unsettled:
                    last = event.deliveries[-1] if event.deliveries else None
                    if last is None or last.socket != one.number or last.lost:
                        continue
                    if event.acknowledged_at is None:
                        self._lose(event, last, "connection_lost", now)
                self._state.notify_all()
