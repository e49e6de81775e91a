"""The channels of one image: made and started behind READY, at rest before the store is closed.

What comes in passes the gate here: a message is durable, with its one sentence if there is one, in a
single transaction, before its platform is told. Crash: before it the platform delivers again; behind it
the event is known. What goes out is the courier's (:mod:`netclawd.daemon.courier`), which each channel
has one of.

A restart has channels of its own made on the other side of execve; so has an execve that failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netclawd.core import budgets, conversations
from netclawd.core.notices import Notice
from netclawd.core.outgoing import (
    ChannelCounts,
    NewOutgoing,
    OutgoingId,
    OutgoingKind,
    Received,
    Reception,
)
from netclawd.core.session import (
    USER,
    AdmitInput,
    Approval,
    ApprovalId,
    ApprovalState,
    EventType,
    InputId,
    OutboxState,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.values import frozen
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.courier import Courier
from netclawd.daemon.gate import Gate, GateState
from netclawd.daemon.live_replies import LiveReplies
from netclawd.daemon.turn_parts import Spawn
from netclawd.errors import ConflictError, NetclawError, NotFoundError
from netclawd.ports import Clock, Ids, Store
from netclawd.ports.channels import Channel, ChannelPhase, ChannelState, Incoming, Press

_log = logging.getLogger("netclawd.channels")

_WAITING = (OutboxState.PENDING, OutboxState.SENDING, OutboxState.STREAMING)


@frozen
class Ground:
    """What channels stand on in one image."""

    store: Store
    gate: Gate
    broadcast: Broadcast
    clock: Clock
    ids: Ids
    spawn: Spawn
    generation: int
    #: Id of the restart or stop that this image came of; empty after a crash.
    came_of: str
    #: Id of the restart or stop that is under way, empty without one.
    restart_id: Callable[[], str]
    #: Tell the engine of an admitted turn.
    submit: Callable[[TurnId, SessionId], None]
    #: Grant or deny an approval, by whom.
    decide: Callable[[ApprovalId, bool, str], Approval]


class Host:
    """Implements :class:`netclawd.ports.channels.ChannelHost` for one channel."""

    def __init__(self, ground: Ground, name: str, changed: Callable[[], None]) -> None:
        self._ground = ground
        self._name = name
        self._changed = changed

    def receive(self, incoming: Incoming) -> Reception:
        ground, state = self._ground, self._ground.gate.state
        draining = not state.open and state.deadline is not None
        admits = state.open or not draining or ground.gate.defers
        new = self._input(incoming, deferred=not state.open) if admits else None
        messages = (self._notice(incoming, state, deferred=admits),) if draining else ()
        turned_away = incoming.message_id if new is None else None
        received = Received(
            self._name, incoming.event_id, incoming.route, new, messages, turned_away
        )
        reception = ground.store.outgoing.receive(received, ground.clock.wall())
        admitted = reception.admitted
        if admitted is not None and admitted.fresh and reception.session_id is not None:
            ground.submit(admitted.turn_id, reception.session_id)
        if messages and not reception.repeat:
            self._changed()
        return reception

    def _input(self, incoming: Incoming, *, deferred: bool) -> AdmitInput:
        new = self._ground.ids.new
        return AdmitInput(
            session_id=SessionId(new("s")),
            input_id=InputId(new("i")),
            turn_id=TurnId(new("t")),
            text=incoming.text,
            source_id=incoming.message_id,
            deferred=deferred,
            origin={USER: incoming.requester},
        )

    def _notice(self, incoming: Incoming, state: GateState, *, deferred: bool) -> NewOutgoing:
        ground = self._ground
        occasion = conversations.occasion(ground.restart_id(), ground.generation)
        # What was refused is lost to who isn't told, so that sentence waits for as long as it takes.
        expires_at = None
        if deferred and state.deadline is not None:
            left_s = max(0.0, state.deadline - ground.clock.monotonic())
            expires_at = ground.clock.wall() + left_s + conversations.GRACE_S
        return NewOutgoing(
            id=conversations.notice_id(occasion, self._name, incoming.route),
            channel=self._name,
            route=incoming.route,
            kind=OutgoingKind.NOTICE,
            text=conversations.sentence(deferred=deferred, stopping=state.stopping),
            requester=incoming.requester,
            expires_at=expires_at,
        )

    def refuse(self, incoming: Incoming, sentence: str) -> None:
        ground = self._ground
        wall = ground.clock.wall()
        message = NewOutgoing(
            id=OutgoingId(ground.ids.new("m")),
            channel=self._name,
            route=incoming.route,
            kind=OutgoingKind.REFUSAL,
            text=sentence,
            requester=incoming.requester,
            expires_at=wall + budgets.REFUSAL_S,
        )
        # The store's memory of events is what knows who was told so where.
        told = f"refused:{incoming.requester}:{incoming.place or incoming.route}"
        reception = ground.store.outgoing.receive(
            Received(self._name, told, incoming.route, messages=(message,)), wall
        )
        if not reception.repeat:
            more = {"CHANNEL": self._name}
            _log.info("somebody who may not talk here was told so", extra=more)
            self._changed()

    def press(self, press: Press) -> str:
        ground = self._ground
        try:
            asked = ground.store.approval(press.approval_id)
            session = ground.store.session(asked.session_id)
        except NotFoundError:
            return "There is no such question."
        if (session.channel, session.alias) != (self._name, press.route):
            return "That question was not asked here."
        try:
            by = f"{self._name} {press.requester}"
            state = ground.decide(press.approval_id, press.granted, by).state
        except ConflictError:
            state = ground.store.approval(press.approval_id).state
            if state is ApprovalState.PENDING:
                return "That did not work just now. Press it again."
            return f"That was {state.value} already."
        self._changed()
        return "Granted." if state is ApprovalState.GRANTED else "Denied."

    def knows(self, route: str) -> bool:
        return self._ground.store.outgoing.session_of(self._name, route) is not None

    def changed(self) -> None:
        self._changed()


class Line:
    """One channel with its host and its courier."""

    def __init__(self, ground: Ground, channel: Channel, opened_at: float) -> None:
        self.channel = channel
        self._ground = ground
        self._began = ground.clock.monotonic()
        self._said: ChannelPhase | None = None
        store, name = ground.store, channel.name
        self.live = LiveReplies(
            ground.broadcast,
            ground.clock.monotonic,
            lambda turn_id: store.turn(turn_id).channel == name,
            self.look,
        )
        self.courier = Courier(channel, store.outgoing, self.live, ground.clock, opened_at)
        self.host = Host(ground, name, self._on_change)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._ground.broadcast.watch(self.live)
        self._thread = self._ground.spawn(f"{self.channel.name}-out", self.courier.run)
        self.channel.start(self.host)

    def look(self) -> None:
        self.courier.look()

    def _on_change(self) -> None:
        state = self.channel.state()
        if state.phase is not self._said:
            self._said = state.phase
            self._say(state)
        self.courier.look()

    def _say(self, state: ChannelState) -> None:
        name, more = self.channel.name, {"CHANNEL": self.channel.name}
        if state.phase in (ChannelPhase.DOWN, ChannelPhase.REFUSED):
            degraded = {**more, "MESSAGE_ID": Notice.DEGRADED}
            _log.warning("channel %s is %s: %s", name, state.phase, state.trouble, extra=degraded)
        else:
            _log.info("channel %s is %s", name, state.phase, extra=more)

    def trouble(self) -> str:
        """Return why people may not reach the agent through it, for an operator; empty when they do."""
        state = self.channel.state()
        if state.phase in (ChannelPhase.CONNECTED, ChannelPhase.STOPPED):
            return ""
        waited_s = self._ground.clock.monotonic() - self._began
        if state.phase is ChannelPhase.CONNECTING and not state.trouble:
            if waited_s < budgets.CHANNEL_GRACE_S:
                return ""
            return f"The channel {self.channel.name} has not connected for {waited_s:.0f} s."
        return f"The channel {self.channel.name} is {state.phase.value}: {state.trouble}"

    def pause(self) -> None:
        self._ground.broadcast.unwatch(self.live)
        self.courier.rest()
        self.channel.pause()

    def stop(self, until: float) -> None:
        clock = self._ground.clock
        self.channel.stop(max(0.0, until - clock.monotonic()))
        if self._thread is not None:  # What held it has been hung up.
            self._thread.join(max(0.0, until - clock.monotonic()))


class Channels:
    """All of them. ``start`` comes first; every method may be called from any thread."""

    def __init__(
        self, ground: Ground, make: Callable[[], Sequence[Channel]], names: Sequence[str]
    ) -> None:
        """``names``: of those that ``make`` will return, for who asks before it has."""
        self._ground = ground
        self._make = make
        self._names = names
        self._lock = threading.Lock()
        self._lines: tuple[Line, ...] = ()
        self._paused = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        #: They are made, or never will be.
        self._made = threading.Event()
        #: Why there are none though there should be.
        self._failure = ""

    def start(self) -> None:
        """Make them and let them connect, on a thread of its own."""
        self._thread = self._ground.spawn("channels", self._run)

    def _run(self) -> None:
        try:
            self._begin()
        finally:
            self._made.set()
        if not self._lines or self._over.wait(budgets.LATE_REPLY_S):
            return
        try:
            self._tell_late()
        except NetclawError as error:
            _log.warning("late replies are not announced: %s", error.what)

    def _begin(self) -> None:
        try:
            made = self._make()
            opened_at = self._ground.clock.wall()
            for channel in made:
                line = Line(self._ground, channel, opened_at)
                with self._lock:  # What is paused meanwhile isn't started any more.
                    if self._paused:
                        return
                    self._lines = (*self._lines, line)
                    channel.on_gate(self._ground.gate.state.open)
                    line.start()
        except Exception as error:  # noqa: BLE001 - without channels the daemon serves all the same
            why = f"{error}" if isinstance(error, NetclawError) else "its log has more."
            self._failure = f"The channels can't be started: {why}"
            _log.exception("channels not started", extra={"MESSAGE_ID": Notice.DEGRADED})

    # -- who waits for a reply since before the restart ----------------------------------------------

    def _tell_late(self) -> None:
        """Tell each conversation whose turn was resumed by this image and has no reply yet."""
        store, wall = self._ground.store, self._ground.clock.wall()
        names = {line.channel.name for line in self._lines}
        late = [turn for turn in store.open_turns() if turn.channel in names]
        messages = [self._late_notice(turn) for turn in late if self._was_resumed(turn)]
        store.outgoing.put(messages, wall)
        self.look()

    def _was_resumed(self, turn: Turn) -> bool:
        if turn.state is not TurnState.RUNNING or turn.generation != self._ground.generation:
            return False
        return any(
            event.type is EventType.TURN_RESUMED
            and event.data["generation"] == self._ground.generation
            and event.data["cause"] in ("restart", "crash")
            for event in self._ground.store.turn_events(turn.id)
        )

    def _late_notice(self, turn: Turn) -> NewOutgoing:
        ground = self._ground
        occasion = conversations.occasion(ground.came_of, ground.generation)
        route = ground.store.session(turn.session_id).alias or ""
        notice_id = conversations.notice_id(occasion, turn.channel, route)
        if self._was_dropped(notice_id):  # So nobody has heard of this restart yet.
            notice_id = conversations.late_id(notice_id)
        return NewOutgoing(
            id=notice_id,
            channel=turn.channel,
            route=route,
            kind=OutgoingKind.NOTICE,
            text=conversations.LATE,
            session_id=turn.session_id,
            turn_id=turn.id,
            requester=turn.origin.get(USER, ""),
            expires_at=ground.clock.wall() + conversations.LATE_S,
        )

    def _was_dropped(self, message_id: OutgoingId) -> bool:
        try:
            known = self._ground.store.outgoing.message(message_id)
        except NotFoundError:
            return False
        return known.state is OutboxState.DROPPED and not known.receipts

    # -- the lifecycle -------------------------------------------------------------------------------

    def look(self) -> None:
        """Look what there is to deliver."""
        for line in self._lines:
            line.look()

    def close_gate(self) -> None:
        """Hear that new turns wait or are refused from here on; what is finished is still delivered."""
        with self._lock:  # One that is made meanwhile asks the gate itself, or is told here.
            for line in self._lines:
                line.channel.on_gate(False)

    def pause(self) -> None:
        """Take nothing more and begin no delivery; does not wait."""
        with self._lock:
            self._paused = True
            self._over.set()
            lines = self._lines
        for line in lines:
            line.pause()

    def await_sent(self, timeout_s: float) -> None:
        """Wait until all is delivered that can be, at most so long; nothing is waited for that is down."""
        until = self._ground.clock.monotonic() + timeout_s
        for line in self._lines:
            line.courier.await_idle(max(0.0, until - self._ground.clock.monotonic()))

    def await_made(self, timeout_s: float) -> None:
        """Wait until nothing is imported or made any more."""
        if self._thread is not None:
            self._made.wait(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Come to rest: wait for what is under way, at most so long. Idempotent.

        Crash, or an end that comes late: a post whose end nobody heard is SENDING, and looked up.
        """
        self.pause()
        until = self._ground.clock.monotonic() + timeout_s
        for line in self._lines:
            line.stop(until)
        if self._thread is not None:
            self._thread.join(max(0.0, until - self._ground.clock.monotonic()))

    # -- what operators see --------------------------------------------------------------------------

    def told(self, tally: Mapping[str, ChannelCounts]) -> list[dict[str, Any]]:
        """Return what the status says of each channel, those included that are not made yet, can't be, or
        are not configured any more."""
        phase = ChannelPhase.DOWN if self._failure else ChannelPhase.CONNECTING
        states = dict.fromkeys(self._names, ChannelState(phase, trouble=self._failure))
        states |= {line.channel.name: line.channel.state() for line in self._lines}
        known = tally if self._made.is_set() else {}
        return [
            _told(name, states.get(name), known.get(name, ChannelCounts()))
            for name in sorted({*states, *known})
        ]

    def troubles(self) -> tuple[str, ...]:
        """Return why people may not reach the agent, a sentence each."""
        found = [self._failure, *(line.trouble() for line in self._lines)]
        return tuple(trouble for trouble in found if trouble)


def _told(name: str, state: ChannelState | None, counts: ChannelCounts) -> dict[str, Any]:
    """Return what the status says of a channel; without a state it is not configured any more."""
    of = counts.messages
    waiting = sum(of.get(each, 0) for each in _WAITING)
    what = f": {waiting} message{' waits' if waiting == 1 else 's wait'} for it" if waiting else ""
    known = state or ChannelState(ChannelPhase.STOPPED, trouble=f"It is not configured{what}.")
    return {
        "name": name,
        "state": "absent" if state is None else state.phase.value,
        "connected_since": known.connected_since,
        "last_event_at": known.last_event_at,
        "last_alive_at": known.last_alive_at,
        "trouble": known.trouble,
        "deferred": counts.deferred,
        "pending": waiting,
        "ambiguous": of.get(OutboxState.AMBIGUOUS, 0),
        "failed": of.get(OutboxState.FAILED, 0),
    }
