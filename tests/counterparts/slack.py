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
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from tests.counterparts import slack_api
from tests.counterparts.slack_events import Events
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


class Workspace(Events):
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
        super().__init__(on_change, acknowledge_s, redeliver_s, ping_s, subscriptions)
        self.app_token, self.bot_token = "xapp-1-A0NETCLAW-1-0123", "xoxb-1-2-0123456789"
        self.calls: list[WebCall] = []
        self._faults: dict[str, list[Fault | None]] = {}
        self._always: dict[str, Fault] = {}
        self._tickets: set[str] = set()
        self._listener = Listener(host, port, self._handle)
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
            self._lose_all(one)
