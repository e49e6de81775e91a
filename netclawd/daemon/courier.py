"""The courier: takes a channel's messages out of the outbox and to the platform, one after the other.

It decides by :mod:`netclawd.core.delivery`. In this order, so that each message is shown exactly once:

1. ``begin``: the row is SENDING. Crash: before it nothing was posted; behind it, up to 4, the next
   courier looks the message up before it does anything with it.
2. ``deliver``: the channel posts part after part under the message's identity.
3. ``record``: after each part its receipt is durable.
4. ``sent``: the row is SENT, or PENDING again when its text has changed meanwhile; what is there is
   then edited, which may be repeated as often as one likes.

The reply of a turn that runs is STREAMING before its first part is posted, and its receipt recorded:
the same look finds it. A text that changes under a post that nobody heard the end of stays SENDING.

The invariant: a message is in doubt (``_doubts``) exactly if a part of it may be there without its
receipt being durable; nothing is posted of one in doubt. One thread, so an edit of a reply in the
making never comes behind the whole one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from netclawd.core import delivery
from netclawd.core.delivery import Doubt, Finding, Judgement
from netclawd.core.notices import Notice
from netclawd.core.outgoing import Outgoing, OutgoingId
from netclawd.core.session import OutboxState, TurnId
from netclawd.core.values import replace
from netclawd.daemon.live_replies import LiveReplies
from netclawd.errors import ConflictError, NotFoundError, StoreClosedError, StoreError
from netclawd.ports import Clock
from netclawd.ports.channels import (
    Channel,
    ChannelPhase,
    DeliveryError,
    Outbox,
    TryLaterError,
    UncertainError,
    UndeliverableError,
)

_log = logging.getLogger("netclawd.channels")

#: Messages that are asked for at once.
_BATCH = 20
#: Between two rounds, however often commits wake it; at most, because the wall clock may jump.
_LEAST_S, _LOOK_S = 0.05, 30.0
#: While the channel isn't connected: it says so when it is.
_IDLE_S = 3600.0
#: Between tries of a store that can't write.
_STORE_FIRST_S, _STORE_LONGEST_S = 0.5, 30.0
#: After a defect.
_DEFECT_S = 30.0
#: Messages that wait for another configuration are looked at again by a new image, so many of them.
_HELD = 1000

_DEFECT = "The daemon met a defect while it sent this; its log has more."

_T = TypeVar("_T")

#: The states of a message of which a part may be there that nobody has heard of.
_OPEN = (OutboxState.SENDING, OutboxState.STREAMING)


class _RestError(Exception):
    """The courier is to rest: what is not written now is found by the next one."""


class _BehindError(Exception):
    """Something else of the conversation comes first."""


class _Receipts:
    """Those of a message that is being delivered; what the store can't take now is written behind."""

    def __init__(self, courier: Courier, message: Outgoing) -> None:
        self._courier = courier
        self._message = message
        self._known = message.receipts
        self._written = True

    def record(self, receipts: tuple[str, ...]) -> None:
        """Keep them; the channel goes on all the same: the row says that it is to be looked up."""
        self._known = receipts
        try:
            self._courier.write_receipts(self._message, receipts)
            self._written = True
        except StoreClosedError:
            raise
        except StoreError as error:
            self._written = False
            more = self._courier.ids(self._message)
            _log.warning("receipt not written yet: %s", error.what, extra=more)

    def settle(self, shown: tuple[str, ...] | None = None) -> None:
        """Write what isn't yet: before it no outcome is."""
        if shown is not None and shown != self._known:
            self._known, self._written = shown, False
        if not self._written:
            known = self._known
            self._courier.patiently(lambda: self._courier.write_receipts(self._message, known))


class Courier:
    """``run`` has a thread of its own; ``look`` and ``rest`` may be called from any."""

    def __init__(
        self,
        channel: Channel,
        outbox: Outbox,
        live: LiveReplies,
        clock: Clock,
        opened_at: float,
    ) -> None:
        self._channel = channel
        self._outbox = outbox
        self._live = live
        self._clock = clock
        #: Wall clock at which this image began to take turns.
        self._opened_at = opened_at
        self._wake = threading.Event()
        #: There is nothing that it could do right now.
        self._idle = threading.Event()
        self._rest = threading.Event()
        self._doubts: dict[OutgoingId, Doubt] = {}
        self._begun = False
        #: By how much the wall clock was ahead of the monotonic one.
        self._ahead_s = clock.wall() - clock.monotonic()
        #: Monotonic instant before which the platform wants to hear nothing.
        self._quiet_until = 0.0

    def look(self) -> None:
        """Look what there is to do: something was committed, or the channel's state has changed."""
        self._idle.clear()
        self._wake.set()

    def rest(self) -> None:
        """Begin nothing more; does not wait."""
        self._rest.set()
        self._wake.set()

    def await_idle(self, timeout_s: float) -> None:
        """Wait until all is delivered that can be now."""
        self._idle.wait(timeout_s)

    def run(self) -> None:
        """Deliver until it is to rest or the store is closed."""
        try:
            self._run()
        finally:
            self._idle.set()

    def _run(self) -> None:
        store_pause_s = _STORE_FIRST_S
        while not self._rest.is_set():
            self._idle.clear()
            self._wake.clear()
            try:
                pause_s = self.step()
                store_pause_s = _STORE_FIRST_S
            except (_RestError, StoreClosedError):
                return
            except StoreError as error:
                _log.warning("messages wait for the store: %s", error.what, extra=self.ids())
                self._rest.wait(store_pause_s)
                store_pause_s = min(2 * store_pause_s, _STORE_LONGEST_S)
                continue
            except Exception:  # noqa: BLE001 - a defect must not silence a channel for ever
                _log.exception("the courier met a defect", extra=self.ids())
                self._rest.wait(_DEFECT_S)
                continue
            if pause_s > 0 and not self._wake.is_set():
                self._idle.set()
            self._rest.wait(_LEAST_S)
            self._wake.wait(pause_s)

    def step(self) -> float:
        """Do what is due now; return the seconds after which there is more to do."""
        if not self._may_go_on():
            self._live.forget_ended()
            return self._pause()
        self._find_open()
        self._heed_clock()
        if not self._begun:
            self._begin()
        for message_id in [i for i, doubt in self._doubts.items() if doubt.look_at <= self._now()]:
            if not self._may_go_on():
                return self._pause()
            self._guarded(message_id, self._clear_up, message_id)
        sent = False
        for message in self._outbox.due(self._channel.name, self._clock.wall(), _BATCH):
            if not self._may_go_on():
                return self._pause()
            sent |= self._guarded(message.id, self._send, message)
        # What is whole goes first again after a while: with a slow platform the edits never end.
        until = self._now() + delivery.EDIT_S
        while self._may_go_on() and (live := self._live.due()) is not None:
            self._show(*live)
            if self._now() >= until:
                break
        return 0.0 if sent else self._pause()

    def _guarded(self, message_id: OutgoingId, work: Callable[[_T], bool], what: _T) -> bool:
        """Work on one message; a defect that it meets leaves that one to a person."""
        try:
            return work(what)
        except (StoreError, _RestError):
            raise
        except Exception:  # noqa: BLE001 - what an adapter's defect leaves is for a person to judge
            message = self._row(message_id)
            _log.exception("message in doubt after a defect", extra=self.ids(message))
            self._doubts.pop(message_id, None)
            if message is not None:
                self._settle(message, OutboxState.AMBIGUOUS, _DEFECT)
            return True

    def _now(self) -> float:
        return self._clock.monotonic()

    def _may_go_on(self) -> bool:
        connected = self._channel.state().phase is ChannelPhase.CONNECTED
        return connected and not self._rest.is_set() and self._now() >= self._quiet_until

    def _pause(self) -> float:
        if self._channel.state().phase is not ChannelPhase.CONNECTED:
            return _IDLE_S
        now = self._now()
        if now < self._quiet_until:
            return self._quiet_until - now
        due_at = self._outbox.next_due(self._channel.name)
        pauses = [_LOOK_S, *(doubt.look_at - now for doubt in self._doubts.values())]
        if due_at is not None:
            pauses.append(max(_STORE_FIRST_S, due_at - self._clock.wall()))
        if (show_at := self._live.next_at()) is not None:
            pauses.append(show_at - now)
        return max(0.0, min(pauses))

    def _find_open(self) -> None:
        """Doubt what is in the middle, though nothing is under way: another courier has left it there."""
        for message in self._outbox.unsettled(self._channel.name):
            # Of a reply in the making only the first part is posted: with its receipt nothing is open.
            if message.state is OutboxState.SENDING or not message.receipts:
                self._doubts.setdefault(message.id, Doubt(self._now()))

    def _heed_clock(self) -> None:
        """Let nothing wait for an instant that a wall clock put back has moved away."""
        ahead_s = self._clock.wall() - self._clock.monotonic()
        if ahead_s < self._ahead_s - delivery.LONGEST_PAUSE_S:
            self._begun = False
        self._ahead_s = ahead_s

    def _begin(self) -> None:
        """Let what waits longer than a pause takes be judged now: it waited for another configuration."""
        wall = self._clock.wall()
        for message in self._outbox.messages((OutboxState.PENDING,), _HELD):
            held = message.due_at - wall > delivery.LONGEST_PAUSE_S
            if held and message.channel == self._channel.name:
                self._outbox.put_off(message, wall, message.error, wall)
        self._begun = True

    # -- one message -------------------------------------------------------------------------------

    def _send(self, message: Outgoing) -> bool:
        """Send a message that is due, or write why not; False when that has to wait."""
        if message.id in self._doubts:
            return False
        wall = self._clock.wall()
        judged = delivery.judge(message, wall, self._opened_at, *self._words_about(message))
        if judged.what is Judgement.HOLD:
            self._outbox.put_off(message, wall + delivery.HOLD_S, judged.reason, wall)
        elif judged.what is Judgement.DROP:
            self._settle(message, OutboxState.DROPPED, judged.reason)
        elif self._outbox.begin(message, wall):
            self._deliver(message)
        return True

    def _words_about(self, message: Outgoing) -> tuple[str, str]:
        """Return why it can't be reached and why its requester may not talk there, empty for neither."""
        channel = self._channel
        unreachable = channel.unreachable(message.route)
        return unreachable, "" if unreachable else channel.refusal(message.route, message.requester)

    def _deliver(self, message: Outgoing) -> None:
        """Have a message that is SENDING shown, and write what became of that."""
        receipts = _Receipts(self, message)
        try:
            shown = self._channel.deliver(message, receipts.record)
        except TryLaterError as error:
            receipts.settle()
            pause_s = self._pause_after(error, message.attempts)
            why, wall = str(error), self._clock.wall()
            self.patiently(lambda: self._outbox.put_off(message, wall + pause_s, why, wall))
            self._keep_quiet(error, pause_s)
        except UndeliverableError as error:
            receipts.settle()
            self._settle(message, OutboxState.FAILED, str(error))
        except UncertainError as error:
            receipts.settle()
            self._doubt(message, error)
        else:
            self.patiently(lambda: self._outbox.sent(message, shown, self._clock.wall()))

    def write_receipts(self, message: Outgoing, receipts: tuple[str, ...]) -> None:
        """Make the receipts of parts durable."""
        self._outbox.record(message, receipts, self._clock.wall())

    def _doubt(self, message: Outgoing, error: DeliveryError) -> None:
        self._doubts[message.id] = Doubt(self._now())
        _log.warning("message in doubt, looking it up: %s", error, extra=self.ids(message))

    def _pause_after(self, error: TryLaterError, attempts: int) -> float:
        """Return how long to wait; not at all where the platform doesn't take us: the channel says when it
        does, and nothing is tried before."""
        refused = self._channel.state().phase is ChannelPhase.REFUSED
        return 0.0 if refused else delivery.pause_s(attempts, error.after_s)

    def _keep_quiet(self, error: TryLaterError, pause_s: float) -> None:
        if error.everything:
            self._quiet_until = max(self._quiet_until, self._now() + pause_s)

    def _settle(self, message: Outgoing, state: OutboxState, why: str) -> None:
        wall, state = self._clock.wall(), delivery.given_up(message, state)
        self.patiently(lambda: self._outbox.settle(message, state, why, wall))
        if state is OutboxState.DROPPED:
            _log.info("message dropped: %s", why, extra=self.ids(message))
        else:
            more = {**self.ids(message), "MESSAGE_ID": Notice.UNDELIVERED}
            _log.error("message %s: %s", state.value, why, extra=more)

    # -- a message in doubt --------------------------------------------------------------------------

    def _clear_up(self, message_id: OutgoingId) -> bool:
        """Ask the platform what is there of a message, and go on from that."""
        message = self._row(message_id)
        if message is None or message.state not in _OPEN:
            del self._doubts[message_id]
            return False
        try:
            found = self._channel.look_up(message)
        except UndeliverableError as error:
            del self._doubts[message_id]
            self._settle(message, OutboxState.AMBIGUOUS, str(error))
        except DeliveryError as error:
            doubt, pause_s = self._doubts[message_id], None
            if isinstance(error, TryLaterError):
                pause_s = self._pause_after(error, doubt.failed)
                self._keep_quiet(error, pause_s)
            self._doubts[message_id] = delivery.put_look_off(doubt, self._now(), pause_s)
            _log.info("message not looked up yet: %s", error, extra=self.ids(message))
        else:
            self._take_found(message, found)
        return True

    def _take_found(self, message: Outgoing, found: tuple[str, ...]) -> None:
        finding, doubt = delivery.take_look(
            self._doubts[message.id], len(message.receipts), len(found), self._now()
        )
        wall = self._clock.wall()
        match finding:
            case Finding.OPEN:
                self._doubts[message.id] = doubt
            case Finding.ABSENT:
                # Crash: before it the next courier looks again; behind it nothing of it is under way.
                self._outbox.put_off(message, wall, "", wall)
                del self._doubts[message.id]
            case Finding.LANDED:
                self._outbox.record(message, found, wall)
                del self._doubts[message.id]
                if message.state is OutboxState.SENDING:
                    self._deliver(replace(message, receipts=found))

    def _row(self, message_id: OutgoingId) -> Outgoing | None:
        try:
            return self._outbox.message(message_id)
        except NotFoundError:
            return None

    # -- a reply in the making -----------------------------------------------------------------------

    def _show(self, turn_id: TurnId, text: str) -> None:
        """Show what there is of a reply."""
        try:
            message = self._streaming(turn_id)
        except _BehindError:
            self._live.put_off(turn_id, delivery.EDIT_S)
            return
        if message is None or (why := " ".join(self._words_about(message)).strip()):
            self._live.mute(turn_id)  # The whole reply is judged by itself.
            if message is not None and message.id not in self._doubts:
                self._take_back(message, why)
            return
        if message.id in self._doubts:
            self._live.put_off(turn_id, delivery.EDIT_S)
            return
        shown = replace(message, text=text)
        receipts = _Receipts(self, shown)
        try:
            receipts.settle(self._channel.deliver(shown, receipts.record))
        except TryLaterError as error:
            self._put_off_show(message, error)
        except UncertainError as error:
            if not message.receipts:
                self._doubt(message, error)
            self._live.put_off(turn_id, delivery.EDIT_S)
        except (_RestError, StoreError):
            raise
        except UndeliverableError as error:
            self._live.mute(turn_id)
            self._take_back(message, str(error))
            _log.info("reply is not shown while it is made: %s", error, extra=self.ids(message))
        except Exception:  # noqa: BLE001 - what is there of it is found by a look
            self._live.mute(turn_id)
            _log.exception("reply is not shown while it is made", extra=self.ids(message))

    def _streaming(self, turn_id: TurnId) -> Outgoing | None:
        """Return the row of a reply that is being made; None once it is made, or isn't ours. _BehindError."""
        message = self._outbox.reply(turn_id)
        if message is None:
            try:
                # Crash: from here on the row says that a part may be there.
                message = self._outbox.stream(turn_id, self._clock.wall())
            except (ConflictError, NotFoundError):
                return None
            if message is None:
                raise _BehindError
        return message if message.state is OutboxState.STREAMING else None

    def _take_back(self, message: Outgoing, why: str) -> None:
        """Write that nothing of a reply is there: the whole one may be posted without a look."""
        if not message.receipts:
            wall = self._clock.wall()
            self.patiently(lambda: self._outbox.put_off(message, wall, why, wall))

    def _put_off_show(self, message: Outgoing, error: TryLaterError) -> None:
        assert message.turn_id is not None
        pause_s = self._pause_after(error, 1)
        self._take_back(message, str(error))
        self._live.put_off(message.turn_id, pause_s)
        self._keep_quiet(error, pause_s)

    # -- the store -----------------------------------------------------------------------------------

    def patiently(self, action: Callable[[], _T]) -> _T:
        """Write what has happened, once the store can; what can't be written is found by a look."""
        pause_s = _STORE_FIRST_S
        while True:
            try:
                return action()
            except StoreClosedError:
                raise
            except StoreError as error:
                _log.warning("outcome not written, trying again: %s", error.what, extra=self.ids())
            if self._rest.wait(pause_s):
                raise _RestError
            pause_s = min(2 * pause_s, _STORE_LONGEST_S)

    def ids(self, message: Outgoing | None = None) -> Mapping[str, str]:
        named = {"CHANNEL": self._channel.name}
        if message is None:
            return named
        turn = {} if message.turn_id is None else {"TURN_ID": message.turn_id}
        session = {} if message.session_id is None else {"SESSION_ID": message.session_id}
        return {**named, "OUTGOING_ID": message.id, **session, **turn}
