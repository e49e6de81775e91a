"""How an app hears of what happens: envelopes over its sockets, again and again until acknowledged."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.counterparts.slack_ledger import Delivery, Event, Message
from tests.counterparts.slack_rooms import Rooms
from tests.counterparts.slack_wire import Socket


class Events(Rooms):
    def __init__(
        self,
        on_change: Callable[[Message], None] | None,
        acknowledge_s: float,
        redeliver_s: Sequence[float],
        ping_s: float,
        subscriptions: Sequence[str],
    ) -> None:
        super().__init__(on_change)
        #: Seconds in which an envelope is to be acknowledged.
        self.acknowledge_s = acknowledge_s
        #: Pauses before an event is delivered again; the last one counts on.
        self.redeliver_s = tuple(redeliver_s)
        #: Seconds between two pings over each socket.
        self.ping_s = ping_s
        self.subscriptions = tuple(subscriptions)
        self.events: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.sockets: list[Socket] = []
        self._unsettled: list[Event] = []
        self._envelopes: dict[str, Delivery] = {}
        #: Envelopes by socket.
        self._given: dict[int, int] = {}
        self._numbers = itertools.count(1)
        #: Of this workspace alone: a daemon that knew one before takes its ids for events that it has had.
        self._mark = uuid.uuid4().hex[:8].upper()
        self._held = False
        self._closing = threading.Event()
        self._clock = threading.Thread(target=self._deliver, name="slack-clock", daemon=True)

    @property
    def open_sockets(self) -> list[Socket]:
        return [s for s in list(self.sockets) if s.is_open]

    @property
    def unacknowledged(self) -> list[Event]:
        with self._state:
            return [e for e in self.events if e.acknowledged_at is None]

    def _emit_message(self, told: Mapping[str, Any], message: Message) -> None:
        kind = {"C": "channel", "G": "group", "D": "im"}[message.channel[0]]
        subscription = {"channel": "channels", "group": "groups", "im": "im"}[kind]
        if f"message.{subscription}" in self.subscriptions and message.channel not in self.left:
            self._emit({**told, "type": "message", "channel_type": kind}, message.ts)

    def _emit(self, event: Mapping[str, Any], ts: str) -> None:
        number = next(self._numbers)
        event_id = f"Ev{self._mark}{number:08}"
        payload = {
            "token": "verification",
            "team_id": self.team,
            "api_app_id": self.app_id,
            "event": dict(event),
            "type": "event_callback",
            "event_id": event_id,
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
        self._queue(Event(event_id, payload, ts, time.monotonic()))

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

    def _lose_all(self, one: Socket) -> None:
        """Have what a socket took with it delivered again."""
        with self._state:
            one.closed_at = now = time.monotonic()
            for event in self._unsettled:
                last = event.deliveries[-1] if event.deliveries else None
                if last is None or last.socket != one.number or last.lost:
                    continue
                if event.acknowledged_at is None:
                    self._lose(event, last, "connection_lost", now)
            self._state.notify_all()
