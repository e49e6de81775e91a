"""The engine: a fixed pool of workers that run turns, and what the daemon may ask of it.

The store is the truth about every turn; the engine remembers only which sessions have something to
do. So whatever it forgets, at a crash or on purpose, is found again by :meth:`Engine.reconcile`.

Three switches say what may begin. The **gate**: while it is closed no queued turn starts, but
resumed turns and decided approvals run. The **drain**: nothing begins; what runs stops at its next
checkpoint or is cancelled at its deadline. The **stop**: worker threads end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.core.manifest import Manifest, Work, WorkState
from netclawd.core.session import (
    Approval,
    ApprovalId,
    Delta,
    RestartId,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.settings import SessionSettings
from netclawd.core.turn import Limits, resume_deadline
from netclawd.core.values import frozen
from netclawd.core.warm_up import Boot
from netclawd.daemon.board import Board, Drain
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.calls import ModelCalls
from netclawd.daemon.decisions import Decisions
from netclawd.daemon.drain_watch import DrainWatch
from netclawd.daemon.expiry import Expiry
from netclawd.daemon.resumption import Resumption, Warmup
from netclawd.daemon.turn_parts import Agent, Parts, RunEnd, Spawn
from netclawd.daemon.turn_run import TurnRun
from netclawd.errors import NetclawError
from netclawd.ports import Clock, Ids, Store

_log = logging.getLogger(__name__)


@frozen
class Running:
    """A turn that is being worked on, for people."""

    session_id: SessionId
    turn_id: TurnId
    #: "model call", "tool NAME"; "checkpoint" between two of them.
    what: str
    #: Seconds that it has taken so far.
    for_s: float
    #: Seconds until the drain cancels it, None without a drain.
    left_s: float | None


class Engine:
    """Every method may be called from any thread; ``start`` comes first, ``stop`` last."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        agent: Agent,
        settings: SessionSettings,
        spawn: Spawn,
        broadcast: Broadcast,
    ) -> None:
        self._parts = Parts(store, clock, ids, agent, broadcast, spawn, settings.step_limit)
        self._settings = settings
        self._limits = Limits(settings.resume_limit, settings.resume_deadline_s)
        self._spawn = spawn
        self._board = Board()
        self._resumption = Resumption(self._parts, self._board, self._limits)
        self._decisions = Decisions(self._parts, self._board, self._resumption, self._begin)
        #: Model calls of clients, which belong to no turn.
        self.calls = ModelCalls(self._parts, self._board, self._begin)
        self._expiry = Expiry(self._parts, self._board, self._decisions)
        self._threads: list[threading.Thread] = []
        self._workers = 0
        #: What the drain made of each turn that it stopped.
        self._drained: dict[TurnId, WorkState] = {}

    # -- start, gate and stop ------------------------------------------------------------------

    def start(self, generation: int) -> None:
        """Start the workers; again after a drain that led nowhere: let turns begin again."""
        with self._board.cond:
            self._board.generation = generation
            self._drained.clear()
            self._board.set_drain(None)
        if not self._workers:
            self._begin("approvals", self._expiry.run)
        while self._workers < self._settings.workers:
            self._workers += 1
            self._begin(f"turn-{self._workers}", self._work)

    def _begin(self, name: str, target: Callable[[], None]) -> None:
        """Start a thread that :meth:`stop` waits for."""
        thread = self._spawn(name, target)
        with self._board.cond:
            self._threads = [*(old for old in self._threads if old.is_alive()), thread]

    def open(self) -> None:
        """Let queued turns run, the oldest first."""
        self._board.set_gate(True)
        self._expiry.look()

    def close_gate(self) -> None:
        """Start no queued turn from here on."""
        self._board.set_gate(False)

    def submit(self, turn_id: TurnId, session_id: SessionId) -> None:
        """Hear of an admitted turn; with the gate closed it is deferred."""
        self._board.submit(turn_id, session_id)

    def stop(self, timeout_s: float) -> None:
        """Cancel what runs and end the threads; turns that still run are left as they are."""
        with self._board.cond:
            self._board.stopping = True
            self._board.abandon_runs()
        self._expiry.look()
        until = self._parts.clock.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - self._parts.clock.monotonic()))
        for tool in self._parts.agent.tools.values():
            tool.close()

    # -- workers -------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            run = self._board.take(lambda session: TurnRun(self._parts, self._board, session))
            if run is None:
                return
            self._close(run, run.work())

    def _close(self, run: TurnRun, end: RunEnd) -> None:
        with self._board.cond:
            if run.turn is not None and run.outcome is not None:
                self._drained[run.turn.id] = run.outcome
            self._board.finish(
                run, again=end in (RunEnd.ENDED, RunEnd.GATED), parked=end is RunEnd.PARKED
            )
            left = end in (RunEnd.INTERRUPTED, RunEnd.DROPPED)
            over = self._board.drain is not None or self._board.stopping
        if end is RunEnd.PARKED:
            self._expiry.look()
        if run.turn is None:
            return
        if run.parked_by is not None and end is RunEnd.INTERRUPTED:
            # The wish came after the run's last look.
            self._decisions.park_stopped(run.turn, run.parked_by)
        elif left and not over:
            self._resumption.take_back(run.turn.id)

    def open_calls(self) -> int:
        """Return how many model calls of clients are on, which belong to no turn."""
        return len(self._board.calls)

    def abandon(self, session_id: SessionId, turn_id: TurnId, by: str) -> None:
        """Cancel a turn on a thread of its own; nobody waits for what becomes of it."""

        def cancel() -> None:
            try:
                self.cancel(session_id, turn_id, by)
            except NetclawError as error:
                _log.info("turn was not cancelled: %s", error.what, extra={"TURN_ID": turn_id})

        self._begin("abandon", cancel)

    # -- warm-up and drain -----------------------------------------------------------------------

    def reconcile(
        self, manifest: Manifest | None, cause: str, restart_id: str, trigger: str
    ) -> Warmup:
        """Judge every turn that has not ended and no worker has; let those to resume run at once.

        ``cause`` is restart, stop (a start after one) or crash. Also for the same generation, after
        a restart that failed. Raises StoreError; what is judged by then stays judged.
        """
        boot = Boot(cause, RestartId(restart_id), trigger, self._board.generation)
        return self._resumption.reconcile(manifest, boot)

    def drain(
        self,
        model_deadline: float,
        tool_deadline: float,
        deadline: float,
        *,
        cause: str,
        restart_id: str,
        on_drained: Callable[[], None],
    ) -> None:
        """Stop every turn at its next checkpoint; call ``on_drained`` once nothing runs.

        The instants are monotonic: model calls and tools still running then are cancelled; at
        ``deadline`` what still runs is abandoned and ``on_drained`` called all the same. ``cause`` is
        restart or stop.
        """
        drain = Drain(model_deadline, tool_deadline, deadline, cause, RestartId(restart_id))
        self._board.set_drain(drain)
        watch = DrainWatch(self._parts.clock, self._board, self._resumption, on_drained)
        self._begin("drain", watch.run)

    def hasten(self, model_deadline: float, tool_deadline: float, deadline: float) -> None:
        """Turn a restart's drain into a stop's; no deadline moves back."""
        with self._board.cond:
            old = self._board.drain
            if old is not None:
                self._board.set_drain(old.hastened(model_deadline, tool_deadline, deadline))

    # -- what people and the manifest are told -------------------------------------------------

    def work_in_flight(self) -> tuple[Work, ...]:
        """Return every turn that has not ended, newest first, for the manifest; reads the store.

        Before and during the drain a turn that runs is RUNNING; after it, what became of it.
        """
        store = self._parts.store
        with self._board.cond:
            busy = set(self._board.runs)
            drain = self._board.drain
            over = drain is not None and self._parts.clock.monotonic() >= drain.deadline
        rows = []
        for turn in reversed(store.open_turns()):
            session = store.session(turn.session_id)
            running = turn.session_id in busy and not over
            state = self._state_of(turn, running)
            deadline = None
            if state in (WorkState.RUNNING, WorkState.DRAINED, WorkState.CUT):
                deadline = resume_deadline(
                    turn.interrupted_at, self._parts.clock.wall(), self._limits
                )
            rows.append(
                Work(turn.session_id, turn.id, session.last_seq, state, session.channel, deadline)
            )
        return tuple(rows)

    def _state_of(self, turn: Turn, running: bool) -> WorkState:
        match turn.state:
            case TurnState.QUEUED:
                return WorkState.DEFERRED
            case TurnState.PARKED:
                return WorkState.PARKED
            case TurnState.INTERRUPTED:
                return self._drained.get(turn.id, WorkState.DRAINED)
        return WorkState.RUNNING if running or self._board.drain is None else WorkState.CUT

    def running(self) -> tuple[Running, ...]:
        """Return what is being worked on right now."""
        now = self._parts.clock.monotonic()
        with self._board.cond:
            drain = self._board.drain
            return tuple(
                Running(
                    run.session_id,
                    run.turn.id,
                    "checkpoint" if run.doing is None else str(run.doing),
                    round(0.0 if run.doing is None else now - run.doing.since, 1),
                    None if drain is None else round(max(0.0, drain.due(run.doing) - now), 1),
                )
                for run in self._board.runs.values()
                if run.turn is not None
            )

    def counts(self) -> Mapping[str, int]:
        """Return how many turns are ``running``, ``queued``, ``deferred`` and ``parked``."""
        with self._board.cond:
            deferred = sum(self._board.waiting.values())
            return {
                "running": sum(run.turn is not None for run in self._board.runs.values()),
                "queued": len(self._board.waiting) - deferred,
                "deferred": deferred,
                "parked": len(self._board.parked),
            }

    def provider(self) -> Mapping[str, Any]:
        """Return what came of the model calls so far, for the status."""
        return self._parts.agent.state.told()

    def live_text(self, session_id: SessionId) -> Delta | None:
        """Return the text so far of the reply that is being made."""
        return self._parts.broadcast.live_text(session_id)

    def on_outcome(self, session_id: SessionId) -> None:
        """Hear that the outcome of a configuration change was written for this session."""
        self._board.tell(session_id)

    # -- what people decide --------------------------------------------------------------------

    def cancel(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """End a turn, None: the one in flight; ConflictError when it has ended already."""
        return self._decisions.cancel(session_id, turn_id, by)

    def cancel_all(self, session_id: SessionId, by: str) -> tuple[Turn, ...]:
        """End all turns of a session; ConflictError when all have ended already."""
        return self._decisions.cancel_all(session_id, by)

    def park(
        self, session_id: SessionId, turn_id: TurnId | None, by: str, tool_timeout_s: float
    ) -> Turn:
        """Park a turn, None: the one in flight, at its next checkpoint; it is RUNNING until then."""
        return self._decisions.park(session_id, turn_id, by, tool_timeout_s)

    def resume(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Let a parked turn go on; ConflictError when it is not parked, or waits for an approval."""
        return self._decisions.resume(session_id, turn_id, by)

    def decide_approval(self, approval_id: ApprovalId, granted: bool, by: str) -> Approval:
        """Grant or deny; the turn goes on once all that it has asked is answered.

        ConflictError when it was decided already, or has expired.
        """
        return self._decisions.decide(approval_id, granted, by)
