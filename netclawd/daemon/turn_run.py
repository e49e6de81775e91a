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
from typing import Any, TypeVar

from netclawd.core import budgets
from netclawd.core import turn as plan
from netclawd.core.manifest import WorkState
from netclawd.core.session import (
    API,
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    Change,
    EventType,
    Lease,
    NewEvent,
    OutboxChange,
    OutboxState,
    ParkReason,
    SessionEvent,
    SessionId,
    Turn,
    TurnState,
)
from netclawd.core.warm_up import interruption, plan_park, resumption
from netclawd.daemon import records
from netclawd.daemon.board import Board, CancelFlag, Doing, Drain
from netclawd.daemon.model_step import ModelStep
from netclawd.daemon.tool_step import ToolStep, about, finish
from netclawd.daemon.turn_parts import Parts, RunEnd
from netclawd.errors import FencedError, NetclawError, StoreClosedError, StoreError

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

_T = TypeVar("_T")


class _AbandonedError(Exception):
    """The engine no longer waits for this run."""


class _OverError(Exception):
    """The turn was ended from outside."""


class TurnRun:
    def __init__(self, parts: Parts, board: Board, session_id: SessionId) -> None:
        self.parts = parts
        self.board = board
        self.session_id = session_id
        self._lease: Lease | None = None
        self.events: list[SessionEvent] = []
        self.standing = plan.Standing()
        #: Serialises commits with an end from outside.
        self._lock = threading.Lock()
        self._over = False
        #: Monotonic instant until which outcomes are waited for, None before the first wait.
        self._outcomes_until: float | None = None
        self._model = ModelStep(self)
        self._tools = ToolStep(self)
        # Guarded by the board:
        self.turn: Turn | None = None
        self.doing: Doing | None = None
        self.cancel = CancelFlag()
        self.cancelled_by: str | None = None
        self.parked_by: str | None = None
        #: An event of this turn was written by somebody else.
        self.told = False
        #: Set when nobody waits for this run any more.
        self.abandoned = CancelFlag()
        #: What the drain made of it.
        self.outcome: WorkState | None = None

    def work(self) -> RunEnd:
        """Run the session's next turn as far as it goes."""
        try:
            return self._work()
        except FencedError:
            _log.info("turn belongs to a newer generation", extra=self.ids())
            return RunEnd.FENCED
        except (StoreClosedError, _AbandonedError):
            return RunEnd.DROPPED
        except _OverError:
            return RunEnd.ENDED
        except Exception:  # noqa: BLE001 - a defect met by one turn must not end its worker
            _log.exception("turn met a defect", extra=self.ids())
            return self._give_up()
        finally:
            self.parts.broadcast.end(self.session_id)

    def end_as_cancelled(self, by: str) -> None:
        """End the turn from another thread; its worker finds out at its next commit."""
        assert self.turn is not None
        with self._lock:
            if not self._over:
                lease = self._lease or self.parts.store.lease(self.turn.id, self.board.generation)
                self.parts.store.commit(
                    cancellation(lease, self.standing, by), self.parts.clock.wall()
                )
                self._over = True

    def _work(self) -> RunEnd:
        store = self.parts.store
        turn = self.patiently(lambda: store.next_turn(self.session_id))
        if turn is None:
            return RunEnd.IDLE
        if turn.state is TurnState.QUEUED and not self.board.gate_open:
            return RunEnd.GATED
        ours = turn.generation == self.board.generation
        if turn.state is TurnState.INTERRUPTED or (turn.state is TurnState.RUNNING and not ours):
            return RunEnd.IDLE
        if not self.board.adopt(self, turn):
            return RunEnd.IDLE
        self._take(self.patiently(lambda: store.turn_events(turn.id)))
        match plan.plan_from(self.standing, self.parts.agent.tools):
            case plan.Ended():
                return RunEnd.ENDED
            case plan.Wait():
                return RunEnd.PARKED
        if turn.generation == 0:  # Its first commit takes the lease.
            self._lease = Lease(turn.id, self.session_id, self.board.generation)
            return self._advance()
        # A person who lets it go on is answerable for it; what goes on by itself has a limit.
        # A restart that the turn itself has brought about is none of its resumes.
        resumed = (
            turn.state is TurnState.RUNNING
            and self.standing.resumed != "request"
            and not self.standing.own_restart
        )
        self._lease = self.patiently(
            lambda: store.lease(turn.id, self.board.generation, resumed=resumed)
        )
        return self._advance()

    def _advance(self) -> RunEnd:
        while True:
            if (end := self._advance_once()) is not None:
                return end

    def _advance_once(self) -> RunEnd | None:
        """Do the one next thing, or stop before it."""
        if self.cancelled_by is not None:
            self.write(cancellation(self.leased(), self.standing, self.cancelled_by))
            return RunEnd.ENDED
        step = plan.plan_from(self.standing, self.parts.agent.tools)
        if isinstance(step, plan.PARKS_BEFORE) and self.parked_by is not None:
            return self.park(self.parked_by, cut=self.standing.tool_was_cut)
        if isinstance(step, plan.STARTS_WORK):
            if (drain := self.board.drain) is not None:
                return self.interrupt(drain, cut=self.standing.tool_was_cut)
            if self.board.stopping:
                return RunEnd.DROPPED
        return self._do(step)

    def _do(self, step: plan.Next) -> RunEnd | None:
        match step:
            case plan.Start():
                data = {"generation": self.board.generation}
                self.commit(EventType.TURN_STARTED, data, state=TurnState.RUNNING)
            case plan.TakeUp():
                self._take_up()
            case plan.Retry():
                self._model.announce_retry(step.step, step.attempt, step.reason)
            case plan.CallModel() if step.step > self.parts.step_limit:
                return self._end_at_limit()
            case plan.CallModel():
                return self._model.call(step)
            case plan.RunTools():
                self._tools.run(step)
            case plan.Unknown():
                self.commit(EventType.TOOL_UNKNOWN, about(step.step, step.call))
            case plan.Answer():
                finish(self, step.step, step.call, step.outcome)
            case plan.AwaitOutcome():
                self._await_outcome(step)
            case plan.Ask():
                return self._ask(step)
            case plan.Deliver():
                return self._deliver(step)
            case plan.Complete():
                self.commit(
                    EventType.TURN_COMPLETED, {"steps": step.steps}, state=TurnState.COMPLETED
                )
                return RunEnd.ENDED
            case _:
                return RunEnd.IDLE
        return None

    # -- what it has written of the configuration ---------------------------------------------------

    def _await_outcome(self, step: plan.AwaitOutcome) -> None:
        """Wait until an outcome is told, or the drain comes that it brings about: at most PROPOSAL_S."""
        outcomes, now = self.parts.agent.outcomes, self.parts.clock.monotonic()
        if self._outcomes_until is None:
            self._outcomes_until = now + budgets.PROPOSAL_S
        if outcomes is not None:
            outcomes.look()
        woken = self.board.await_outcome(self, max(0.0, self._outcomes_until - now))
        if not woken and outcomes is not None:
            self.patiently(lambda: outcomes.give_up(step.calls))
        self._read_again()
        if not woken and self.standing.awaited:
            raise RuntimeError("an outcome is waited for that nobody can tell")

    def _read_again(self) -> None:
        """Take the events of the turn that others have written."""
        assert self.turn is not None
        turn, known = self.turn.id, {event.seq for event in self.events}
        found = self.patiently(lambda: self.parts.store.turn_events(turn))
        self._take(tuple(event for event in found if event.seq not in known))
        self.events.sort(key=lambda event: event.seq)
        if not self.standing.awaited:
            self._outcomes_until = None

    # -- people ----------------------------------------------------------------------------------

    def _ask(self, step: plan.Ask) -> RunEnd:
        """Ask all that the reply needs, and park. Crash: before the commit nobody has been asked."""
        agent, approvals, events = self.parts.agent, [], []
        expires_at = self.parts.clock.wall() + agent.approval_timeout_s
        for question in step.questions:
            call, text = question.call, agent.redact(question.text)
            asked = ApprovalId(self.parts.ids.new("approval"))
            approvals.append(ApprovalChange(asked, ApprovalState.PENDING, text, call.id, call.name))
            data = {"approval_id": asked, "call_id": call.id, "name": call.name, "question": text}
            events.append(
                NewEvent(EventType.APPROVAL_REQUESTED, {**data, "expires_at": expires_at})
            )
        parked = NewEvent(EventType.TURN_PARKED, {"reason": ParkReason.APPROVAL.value})
        self.write(
            Change(
                self.leased(),
                (*events, parked),
                state=TurnState.PARKED,
                park_reason=ParkReason.APPROVAL,
                approvals=tuple(approvals),
                said=self.standing.said,
            )
        )
        records.say_parked(self.leased(), ParkReason.APPROVAL)
        return RunEnd.PARKED

    def park(self, by: str, *, cut: bool) -> RunEnd:
        self.write(plan_park(self.leased(), by, cut=cut))
        records.say_parked(self.leased(), ParkReason.REQUEST)
        return RunEnd.PARKED

    def _take_up(self) -> None:
        """Go on after a person's decision; that is not a resume of the budget."""
        assert self.turn is not None
        event = resumption(self.board.generation, self.turn.resumes, "approval")
        self.write(Change(self.leased(), (event,), state=TurnState.RUNNING))
        records.say_resumed(self.leased(), "approval")

    # -- ends ------------------------------------------------------------------------------------

    def _deliver(self, step: plan.Deliver) -> RunEnd:
        """Send the reply; the event log is the channel, so one commit is sending, receipt and end.

        Through another channel the courier sends it, which no worker waits for: it is in the outbox
        since the commit of the reply. Crash: before this commit the next start comes here again.
        """
        assert self.turn is not None
        lease, steps = self.leased(), self.standing.steps
        if self.turn.channel != API:
            self.commit(EventType.TURN_COMPLETED, {"steps": steps}, state=TurnState.COMPLETED)
            return RunEnd.ENDED
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
        self.write(sending, sent)
        return RunEnd.ENDED

    def interrupt(self, drain: Drain, *, cut: bool) -> RunEnd:
        assert self.turn is not None
        now = self.parts.clock.wall()
        first = self.turn.interrupted_at is None and not self.standing.awaited
        self.write(
            Change(
                self.leased(),
                (interruption(drain.cause, drain.restart_id, cut=cut),),
                state=TurnState.INTERRUPTED,
                # What the turn itself has brought about begins no deadline.
                interrupted_at=now if first else None,
            )
        )
        self.outcome = WorkState.CUT if cut else WorkState.DRAINED
        return RunEnd.INTERRUPTED

    def _end_at_limit(self) -> RunEnd:
        return self.fail(
            plan.STEP_LIMIT,
            f"The turn has made {self.parts.step_limit} model calls without coming to an answer.",
            "Say in a new message how to go on, or raise sessions.step_limit.",
        )

    def fail(self, slug: str, reason: str, remedy: str = "") -> RunEnd:
        """End the turn; secrets have been taken out of the words."""
        data = {"slug": slug, "reason": reason, **({"remedy": remedy} if remedy else {})}
        self.commit(EventType.TURN_FAILED, data, state=TurnState.FAILED)
        _log.warning("turn failed: %s", slug, extra=self.ids())
        return RunEnd.ENDED

    def _give_up(self) -> RunEnd:
        if self._lease is None:
            return RunEnd.DROPPED
        try:
            return self.fail("internal-error", "The daemon met a defect; its log has more.")
        except (NetclawError, _AbandonedError, _OverError):
            return RunEnd.DROPPED

    # -- the store -------------------------------------------------------------------------------

    def commit(self, type_: EventType, data: Mapping[str, Any], **fields: Any) -> None:
        self.write(Change(self.leased(), (NewEvent(type_, data),), **fields))

    def write(self, *changes: Change) -> None:
        self.patiently(lambda: self._write_once(changes))

    def _write_once(self, changes: tuple[Change, ...]) -> None:
        store, now = self.parts.store, self.parts.clock.wall()
        with self._lock:
            if self._over:
                raise _OverError
            if len(changes) == 1:
                self._take(store.commit(changes[0], now))
            else:  # only at the end of a turn, when nobody reads the events any more
                store.commit_all(changes, now)

    def _take(self, events: tuple[SessionEvent, ...]) -> None:
        self.events += events
        for event in events:
            plan.take_event(self.standing, event)

    def patiently(self, action: Callable[[], _T]) -> _T:
        """Call the store until it can answer."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return action()
            except (FencedError, StoreClosedError):
                raise
            except StoreError as error:
                more = {**self.ids(), "SLUG": error.slug, "RETRY_IN_S": pause_s}
                _log.warning("store failed a turn, trying again: %s", error.what, extra=more)
            if self.abandoned.wait(pause_s):
                raise _AbandonedError
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def leased(self) -> Lease:
        assert self._lease is not None, "a run without a lease commits nothing"
        return self._lease

    def ids(self) -> dict[str, str]:
        turn = {} if self.turn is None else {"TURN_ID": self.turn.id}
        return {"SESSION_ID": self.session_id, **turn}


def cancellation(lease: Lease, standing: plan.Standing, by: str) -> Change:
    """Return the change that ends a turn at a person's wish."""
    return Change(
        lease,
        plan.plan_cancel(standing, by),
        state=TurnState.CANCELLED,
        approvals=tuple(
            ApprovalChange(asked, ApprovalState.EXPIRED, decided_by=by)
            for asked in standing.pending_approvals.values()
        ),
    )
