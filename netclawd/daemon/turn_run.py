"""One turn on one worker: asks the plan what is next, does it, commits it, until there is an end.

Every commit is one checkpoint. Crash: anywhere, the next generation reads the same events and the
plan goes on from the last checkpoint. A store that can't write (a full disk) holds the worker with
what it knows, and the commit is tried again with growing pauses: no outcome is dropped and nothing
is done twice for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, TypeVar

from netclawd.core import turn as plan
from netclawd.core.manifest import WorkState
from netclawd.core.session import (
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    Change,
    EventType,
    Lease,
    ModelReply,
    NewEvent,
    OutboxChange,
    OutboxState,
    ParkReason,
    SessionEvent,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    Turn,
    TurnState,
)
from netclawd.core.transcript import DENIED_TEXT, messages
from netclawd.core.values import frozen
from netclawd.core.warm_up import interruption, plan_park, resumption
from netclawd.daemon import records
from netclawd.daemon.board import Board, CancelFlag, Doing, Drain, Kind
from netclawd.daemon.broadcast import Broadcast
from netclawd.errors import FencedError, NetclawError, StoreClosedError, StoreError
from netclawd.ports import Cancel, Cancelled, Clock, Ids, Provider, Store, Tool

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

_T = TypeVar("_T")


@frozen
class Parts:
    """What every run works with."""

    store: Store
    clock: Clock
    ids: Ids
    provider: Provider
    tools: Mapping[str, Tool]
    broadcast: Broadcast


class RunEnd(Enum):
    """How a run ended, for the engine."""

    #: Its turn ended; the session may have another.
    ENDED = auto()
    #: There was nothing to do, or nothing that this worker may do.
    IDLE = auto()
    #: Its turn waits for a person.
    PARKED = auto()
    #: Its turn is queued and the gate is closed.
    GATED = auto()
    #: The drain stopped it, and its events say so.
    INTERRUPTED = auto()
    #: Nothing could be written about it: whoever opens the store next judges it.
    DROPPED = auto()
    #: Another generation has it.
    FENCED = auto()


class _AbandonedError(Exception):
    """The engine no longer waits for this run."""


class _OverError(Exception):
    """The turn was ended from outside."""


class TurnRun:
    def __init__(self, parts: Parts, board: Board, session_id: SessionId) -> None:
        self._parts = parts
        self._board = board
        self.session_id = session_id
        self._lease: Lease | None = None
        self._events: list[SessionEvent] = []
        self._standing = plan.Standing()
        self._conversation: tuple[SessionEvent, ...] | None = None
        #: Serialises commits with an end from outside.
        self._lock = threading.Lock()
        self._over = False
        #: The tool that ran last was ended by us.
        self._tool_was_cut = False
        # Guarded by the board:
        self.turn: Turn | None = None
        self.doing: Doing | None = None
        self.cancel = CancelFlag()
        self.cancelled_by: str | None = None
        self.parked_by: str | None = None
        #: Set when nobody waits for this run any more.
        self.abandoned = CancelFlag()
        #: What the drain made of it.
        self.outcome: WorkState | None = None

    def work(self) -> RunEnd:
        """Run the session's next turn as far as it goes."""
        try:
            return self._work()
        except FencedError:
            _log.info("turn belongs to a newer generation", extra=self._ids())
            return RunEnd.FENCED
        except (StoreClosedError, _AbandonedError):
            return RunEnd.DROPPED
        except _OverError:
            return RunEnd.ENDED
        except Exception:  # noqa: BLE001 - a defect met by one turn must not end its worker
            _log.exception("turn met a defect", extra=self._ids())
            return self._give_up()
        finally:
            self._parts.broadcast.end(self.session_id)

    def end_as_cancelled(self, by: str) -> None:
        """End the turn from another thread; its worker finds out at its next commit."""
        assert self.turn is not None
        with self._lock:
            if not self._over:
                lease = self._lease or self._parts.store.lease(self.turn.id, self._board.generation)
                self._parts.store.commit(
                    cancellation(lease, self._standing, by), self._parts.clock.wall()
                )
                self._over = True

    def _work(self) -> RunEnd:
        store = self._parts.store
        turn = self._patiently(lambda: store.next_turn(self.session_id))
        if turn is None:
            return RunEnd.IDLE
        if turn.state is TurnState.QUEUED and not self._board.gate_open:
            return RunEnd.GATED
        ours = turn.generation == self._board.generation
        if turn.state is TurnState.INTERRUPTED or (turn.state is TurnState.RUNNING and not ours):
            return RunEnd.IDLE
        if not self._board.adopt(self, turn):
            return RunEnd.IDLE
        self._take(self._patiently(lambda: store.turn_events(turn.id)))
        match plan.plan_from(self._standing, self._parts.tools):
            case plan.Ended():
                return RunEnd.ENDED
            case plan.Wait():
                return RunEnd.PARKED
        # A person who lets it go on is answerable for it; what goes on by itself has a limit.
        resumed = turn.state is TurnState.RUNNING and self._standing.resumed != "request"
        self._lease = self._patiently(
            lambda: store.lease(turn.id, self._board.generation, resumed=resumed)
        )
        return self._advance()

    def _advance(self) -> RunEnd:
        while True:
            if (end := self._advance_once()) is not None:
                return end

    def _advance_once(self) -> RunEnd | None:
        """Do the one next thing, or stop before it."""
        if self.cancelled_by is not None:
            self._write(cancellation(self._leased(), self._standing, self.cancelled_by))
            return RunEnd.ENDED
        step = plan.plan_from(self._standing, self._parts.tools)
        if isinstance(step, plan.PARKS_BEFORE) and self.parked_by is not None:
            return self._park(self.parked_by, cut=self._tool_was_cut)
        if isinstance(step, plan.STARTS_WORK):
            if (drain := self._board.drain) is not None:
                return self._interrupt(drain, cut=self._tool_was_cut)
            if self._board.stopping:
                return RunEnd.DROPPED
        return self._do(step)

    def _do(self, step: plan.Next) -> RunEnd | None:
        match step:
            case plan.Start():
                data = {"generation": self._board.generation}
                self._commit(EventType.TURN_STARTED, data, state=TurnState.RUNNING)
            case plan.TakeUp():
                self._take_up()
            case plan.Retry():
                self._announce_retry(step.step, step.attempt, step.reason)
            case plan.CallModel():
                return self._call_model(step)
            case plan.RunTool():
                self._run_tool(step)
            case plan.Unknown():
                self._commit(EventType.TOOL_UNKNOWN, _about(step.step, step.call))
            case plan.Deny():
                self._finish_tool(step.step, step.call, ToolOutcome(ToolStatus.DENIED, DENIED_TEXT))
            case plan.AskApproval():
                return self._ask(step)
            case plan.Deliver():
                return self._deliver(step)
            case plan.Complete():
                self._commit(
                    EventType.TURN_COMPLETED, {"steps": step.steps}, state=TurnState.COMPLETED
                )
                return RunEnd.ENDED
            case _:
                return RunEnd.IDLE
        return None

    # -- the model -------------------------------------------------------------------------------

    def _call_model(self, step: plan.CallModel) -> RunEnd | None:
        assert self.turn is not None
        history = self._history()
        cancel = self._board.begin(self, Doing(Kind.MODEL, "", self._parts.clock.monotonic()))
        if cancel is None:
            return None
        self._parts.broadcast.begin(self.session_id, self.turn.id, step.step, step.attempt)
        try:
            reply = self._parts.provider.reply(
                messages(history, self._events),
                lambda text: self._parts.broadcast.say(self.session_id, text),
                cancel,
            )
        except Cancelled:
            return self._model_was_cut(step)
        except NetclawError as error:
            if cancel.is_set():
                return self._model_was_cut(step)
            return self._fail(error.slug, error.what)
        except Exception as error:  # noqa: BLE001 - a provider's defect ends its turn, no more
            if cancel.is_set():
                return self._model_was_cut(step)
            _log.exception("provider met a defect", extra=self._ids())
            return self._fail("internal-error", f"The provider failed ({type(error).__name__}).")
        finally:
            self._board.done(self)
        self._take_reply(step, reply)
        return None

    def _history(self) -> tuple[SessionEvent, ...]:
        if self._conversation is None:
            lease = self._leased()
            self._conversation = self._patiently(
                lambda: self._parts.store.conversation(self.session_id, lease.turn_id)
            )
        return self._conversation

    def _take_reply(self, step: plan.CallModel, reply: ModelReply) -> None:
        turn_id = self._leased().turn_id
        calls = [
            {
                "id": plan.call_id(turn_id, step.step, number),
                "name": call.name,
                "arguments": dict(call.arguments),
            }
            for number, call in enumerate(reply.calls, 1)
        ]
        data = {
            "step": step.step,
            "attempt": step.attempt,
            "text": reply.text,
            "finish": reply.finish.value,
            "calls": calls,
        }
        outbox = None if calls else OutboxChange(OutboxState.PENDING, text=reply.text)
        self._commit(EventType.MODEL_COMPLETED, data, outbox=outbox)
        self._parts.broadcast.end(self.session_id)

    def _model_was_cut(self, step: plan.CallModel) -> RunEnd | None:
        if self.cancelled_by is not None:
            return None
        if self.parked_by is not None:
            return self._park(self.parked_by, cut=True)
        if (drain := self._board.drain) is not None:
            return self._interrupt(drain, cut=True)
        if self._board.stopping:
            return RunEnd.DROPPED
        # The restart that cut it failed meanwhile: go on at once.
        self._announce_retry(step.step, step.attempt + 1, "restart")
        return None

    def _announce_retry(self, step: int, attempt: int, reason: str) -> None:
        data = {"step": step, "attempt": attempt, "reason": reason}
        self._commit(EventType.STEP_RETRY, data)

    # -- tools and people ------------------------------------------------------------------------

    def _run_tool(self, step: plan.RunTool) -> None:
        call = step.call
        tool = self._parts.tools.get(call.name)
        doing = Doing(Kind.TOOL, call.name, self._parts.clock.monotonic())
        cancel = self._board.begin(self, doing)
        if cancel is None:
            return
        try:
            data = {
                **_about(step.step, call),
                "arguments": dict(call.arguments),
                "idempotent": tool is not None and tool.idempotent(call),
                "again": step.again,
            }
            self._commit(EventType.TOOL_STARTED, data)
            outcome = self._outcome(tool, call, cancel)
        finally:
            self._board.done(self)
        self._tool_was_cut = outcome.status is ToolStatus.INTERRUPTED
        self._finish_tool(step.step, call, outcome)

    def _outcome(self, tool: Tool | None, call: ToolCall, cancel: Cancel) -> ToolOutcome:
        if tool is None:
            return ToolOutcome(ToolStatus.ERROR, "There is no tool of that name.")
        try:
            return tool.run(call, cancel)
        except Cancelled:
            return ToolOutcome(ToolStatus.INTERRUPTED, "The daemon ended the call.")
        except Exception as error:  # noqa: BLE001 - a tool's defect is an answer that the model can work with
            _log.exception("tool met a defect", extra={**self._ids(), "CALL_ID": call.id})
            return ToolOutcome(ToolStatus.ERROR, f"The tool failed ({type(error).__name__}).")

    def _finish_tool(self, step: int, call: ToolCall, outcome: ToolOutcome) -> None:
        data = {**_about(step, call), "status": outcome.status.value, "text": outcome.text}
        self._commit(EventType.TOOL_FINISHED, data)

    def _ask(self, step: plan.AskApproval) -> RunEnd:
        approval = ApprovalId(self._parts.ids.new("approval"))
        asked = {"approval_id": approval, "call_id": step.call.id, "question": step.question}
        self._write(
            Change(
                self._leased(),
                (
                    NewEvent(EventType.APPROVAL_REQUESTED, asked),
                    NewEvent(EventType.TURN_PARKED, {"reason": ParkReason.APPROVAL.value}),
                ),
                state=TurnState.PARKED,
                park_reason=ParkReason.APPROVAL,
                approval=ApprovalChange(
                    approval, ApprovalState.PENDING, question=step.question, call_id=step.call.id
                ),
            )
        )
        records.say_parked(self._leased(), ParkReason.APPROVAL)
        return RunEnd.PARKED

    def _park(self, by: str, *, cut: bool) -> RunEnd:
        self._write(plan_park(self._leased(), by, cut=cut))
        records.say_parked(self._leased(), ParkReason.REQUEST)
        return RunEnd.PARKED

    def _take_up(self) -> None:
        """Go on after a person's decision; that is not a resume of the budget."""
        assert self.turn is not None
        event = resumption(self._board.generation, self.turn.resumes, "approval")
        self._write(Change(self._leased(), (event,), state=TurnState.RUNNING))
        records.say_resumed(self._leased(), "approval")

    # -- ends ------------------------------------------------------------------------------------

    def _deliver(self, step: plan.Deliver) -> RunEnd:
        """Send the reply; the event log is the channel, so one commit is sending, receipt and end."""
        lease, steps = self._leased(), self._standing.steps
        sending = Change(lease, outbox=OutboxChange(OutboxState.SENDING))
        sent = Change(
            lease,
            (
                NewEvent(EventType.REPLY_SENT, {"text": step.text, "receipt": "api"}),
                NewEvent(EventType.TURN_COMPLETED, {"steps": steps}),
            ),
            state=TurnState.COMPLETED,
            outbox=OutboxChange(OutboxState.SENT, receipt="api"),
        )
        self._write(sending, sent)
        return RunEnd.ENDED

    def _interrupt(self, drain: Drain, *, cut: bool) -> RunEnd:
        assert self.turn is not None
        now = self._parts.clock.wall()
        self._write(
            Change(
                self._leased(),
                (interruption(drain.cause, drain.restart_id, cut=cut),),
                state=TurnState.INTERRUPTED,
                interrupted_at=now if self.turn.interrupted_at is None else None,
            )
        )
        self.outcome = WorkState.CUT if cut else WorkState.DRAINED
        return RunEnd.INTERRUPTED

    def _fail(self, slug: str, reason: str) -> RunEnd:
        data = {"slug": slug, "reason": reason}
        self._commit(EventType.TURN_FAILED, data, state=TurnState.FAILED)
        _log.warning("turn failed: %s", slug, extra=self._ids())
        return RunEnd.ENDED

    def _give_up(self) -> RunEnd:
        if self._lease is None:
            return RunEnd.DROPPED
        try:
            return self._fail("internal-error", "The daemon met a defect; its log has more.")
        except (NetclawError, _AbandonedError, _OverError):
            return RunEnd.DROPPED

    # -- the store -------------------------------------------------------------------------------

    def _commit(self, type_: EventType, data: Mapping[str, Any], **fields: Any) -> None:
        self._write(Change(self._leased(), (NewEvent(type_, data),), **fields))

    def _write(self, *changes: Change) -> None:
        self._patiently(lambda: self._write_once(changes))

    def _write_once(self, changes: tuple[Change, ...]) -> None:
        store, now = self._parts.store, self._parts.clock.wall()
        with self._lock:
            if self._over:
                raise _OverError
            if len(changes) == 1:
                self._take(store.commit(changes[0], now))
            else:  # only at the end of a turn, when nobody reads the events any more
                store.commit_all(changes, now)

    def _take(self, events: tuple[SessionEvent, ...]) -> None:
        self._events += events
        for event in events:
            plan.take_event(self._standing, event)

    def _patiently(self, action: Callable[[], _T]) -> _T:
        """Call the store until it can answer."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return action()
            except (FencedError, StoreClosedError):
                raise
            except StoreError as error:
                more = {**self._ids(), "SLUG": error.slug, "RETRY_IN_S": pause_s}
                _log.warning("store failed a turn, trying again: %s", error.what, extra=more)
            if self.abandoned.wait(pause_s):
                raise _AbandonedError
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _leased(self) -> Lease:
        assert self._lease is not None, "a run without a lease commits nothing"
        return self._lease

    def _ids(self) -> dict[str, str]:
        turn = {} if self.turn is None else {"TURN_ID": self.turn.id}
        return {"SESSION_ID": self.session_id, **turn}


def _about(step: int, call: ToolCall) -> dict[str, Any]:
    return {"step": step, "call_id": call.id, "name": call.name}


def cancellation(lease: Lease, standing: plan.Standing, by: str) -> Change:
    """Return the change that ends a turn at a person's wish."""
    pending = standing.pending_approval
    return Change(
        lease,
        plan.plan_cancel(standing, by),
        state=TurnState.CANCELLED,
        approval=None
        if pending is None
        else ApprovalChange(pending[0], ApprovalState.EXPIRED, decided_by=by),
    )
