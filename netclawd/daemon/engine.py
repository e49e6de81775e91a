"""The engine: a fixed pool of workers that run turns, and what the daemon may ask of it.

The store is the truth about every turn; the engine remembers only which sessions have something to
do. So whatever it forgets, at a crash or on purpose, is found again by :meth:`Engine.reconcile`.

Three switches say what may begin. The **gate**: while it is closed no queued turn starts, but
resumed turns and decided approvals run. The **drain**: nothing begins; what runs stops at its next
checkpoint or is cancelled at its deadline. The **stop**: worker threads end.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from netclawd.core.manifest import Manifest, Work, WorkState
from netclawd.core.session import (
    Approval,
    ApprovalId,
    Delta,
    Lease,
    RestartId,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.settings import SessionSettings
from netclawd.core.turn import Limits, Park, Resume, resume_deadline
from netclawd.core.values import frozen
from netclawd.core.warm_up import Boot, judge_all, plan_change, plan_stop
from netclawd.daemon.board import Board, Drain
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.decisions import Decisions
from netclawd.daemon.turn_run import Parts, RunEnd, TurnRun
from netclawd.errors import ConflictError, NetclawError, StoreError
from netclawd.ports import Clock, Ids, Provider, Store, Tool

_log = logging.getLogger(__name__)

Spawn = Callable[[str, Callable[[], None]], threading.Thread]

#: Turns judged in one transaction: first a few, so that they run soon, then many.
_FIRST_BATCH, _BATCH = 50, 250


@frozen
class Warmup:
    """What a start made of the turns that had not ended."""

    resumed: int
    #: Parked now: out of budget or too late.
    parked: int
    #: Parked before, still waiting for a person.
    waiting: int
    #: Sessions with queued turns.
    queued: int


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
        provider: Provider,
        tools: Mapping[str, Tool],
        settings: SessionSettings,
        spawn: Spawn,
        broadcast: Broadcast,
    ) -> None:
        self._parts = Parts(store, clock, ids, provider, tools, broadcast)
        self._settings = settings
        self._limits = Limits(settings.resume_limit, settings.resume_deadline_s)
        self._spawn = spawn
        self._board = Board()
        self._decisions = Decisions(self._parts, self._board)
        self._threads: list[threading.Thread] = []
        self._workers = 0
        #: Serialises a batch of resumes with the drain's look for turns that no worker has taken.
        self._resuming = threading.Lock()
        #: What the drain made of each turn that it stopped.
        self._drained: dict[TurnId, WorkState] = {}
        self._on_drained: Callable[[], None] | None = None
        self._drain_thread: threading.Thread | None = None

    # -- start, gate and stop ------------------------------------------------------------------

    def start(self, generation: int) -> None:
        """Start the workers; again after a drain that led nowhere: let turns begin again."""
        with self._board.cond:
            self._board.generation = generation
            self._board.drain = None
            self._drained.clear()
            self._board.cond.notify_all()
        while self._workers < self._settings.workers:
            self._workers += 1
            self._threads.append(self._spawn(f"turn-{self._workers}", self._work))

    def open(self) -> None:
        """Let queued turns run, the oldest first."""
        self._board.set_gate(True)

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
            self._abandon()
            self._board.cond.notify_all()
        until = self._parts.clock.monotonic() + timeout_s
        for thread in (*self._threads, self._drain_thread):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, until - self._parts.clock.monotonic()))

    def _abandon(self) -> None:
        """Wait for no run any more. Called under the board's condition."""
        for run in self._board.runs.values():
            run.cancel.set()
            run.abandoned.set()

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
        if left and not over and run.turn is not None:
            self._take_back(run.turn.id)

    def _take_back(self, turn_id: TurnId) -> None:
        """Resume a turn whose run ended after the drain that stopped it had been given up."""
        try:
            turn = self._parts.store.turn(turn_id)
            boot = Boot("restart", RestartId(""), "", self._board.generation)
            self._resume([(turn, Resume())], boot)
        except NetclawError as error:
            _log.warning("turn waits for the next start: %s", error.what, extra={"turn": turn_id})

    # -- warm-up -------------------------------------------------------------------------------

    def reconcile(
        self, manifest: Manifest | None, cause: str, restart_id: str, trigger: str
    ) -> Warmup:
        """Judge every turn that has not ended and no worker has; let those to resume run at once.

        ``cause`` is restart, stop (a start after one) or crash. Also for the same generation, after
        a restart that failed. Raises StoreError; what is judged by then stays judged.
        """
        parts, board = self._parts, self._board
        boot = Boot(cause, RestartId(restart_id), trigger, board.generation)
        with board.cond:
            busy = {run.turn.id for run in board.runs.values() if run.turn is not None}
        turns = [turn for turn in parts.store.open_turns() if turn.id not in busy]
        undecided = {approval.turn_id for approval in parts.store.approvals(pending_only=True)}
        now = parts.clock.wall()
        judged = judge_all(turns, undecided, manifest, now, self._limits)
        self._enqueue(turns, judged.decided, judged.queued)
        rows = iter(judged.interrupted)
        size = _FIRST_BATCH
        while batch := list(islice(rows, size)):
            self._resume(batch, boot)
            size = _BATCH
        parked = sum(isinstance(verdict, Park) for _, verdict in judged.interrupted)
        resumed = len(judged.interrupted) - parked
        return Warmup(resumed, parked, judged.waiting, len(judged.queued))

    def _resume(self, batch: Sequence[tuple[Turn, Resume | Park]], boot: Boot) -> None:
        with self._resuming:
            if self._board.drain is not None or self._board.stopping:
                return  # They stay interrupted, for the next start.
            try:
                self._commit_resumes(batch, boot)
            except ConflictError:
                # Somebody has cancelled one of them meanwhile.
                for row in batch:
                    with contextlib.suppress(ConflictError):
                        self._commit_resumes([row], boot)

    def _commit_resumes(self, batch: Sequence[tuple[Turn, Resume | Park]], boot: Boot) -> None:
        store, now = self._parts.store, self._parts.clock.wall()
        leases = store.lease_all([turn.id for turn, _ in batch], boot.generation)
        changes = [
            plan_change(lease, turn, verdict, boot, now)
            for lease, (turn, verdict) in zip(leases, batch, strict=True)
        ]
        # The checkpoint. Crash: before it the next start judges the same turns; after it each has
        # been resumed once more, whether or not a worker got to it.
        store.commit_all(changes, now)
        with self._board.cond:
            for turn, verdict in batch:
                if isinstance(verdict, Park):
                    self._board.parked.add(turn.id)
                else:
                    self._board.queue.add(turn.session_id, first=True)
            self._board.cond.notify_all()

    def _enqueue(
        self, turns: Iterable[Turn], decided: Iterable[SessionId], queued: Iterable[SessionId]
    ) -> None:
        with self._board.cond:
            for turn in turns:
                if turn.state is TurnState.QUEUED:
                    self._board.waiting[turn.id] = turn.deferred
                elif turn.state is TurnState.PARKED:
                    self._board.parked.add(turn.id)
            for session_id in decided:
                self._board.queue.add(session_id, first=True)
            for session_id in queued:
                self._board.queue.add(session_id)
            self._board.cond.notify_all()

    # -- drain ---------------------------------------------------------------------------------

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
        with self._board.cond:
            self._board.drain = drain
            self._on_drained = on_drained
            self._board.cond.notify_all()
        self._drain_thread = self._spawn("drain", self._watch_drain)

    def hasten(self, model_deadline: float, tool_deadline: float, deadline: float) -> None:
        """Turn a restart's drain into a stop's; no deadline moves back."""
        with self._board.cond:
            old = self._board.drain
            if old is None:
                return
            self._board.drain = Drain(
                min(old.model_deadline, model_deadline),
                min(old.tool_deadline, tool_deadline),
                min(old.deadline, deadline),
                "stop",
                old.restart_id,
            )
            self._board.cond.notify_all()

    def _watch_drain(self) -> None:
        self._stop_untaken()
        board = self._board
        with board.cond:
            while board.runs and not board.stopping and (drain := board.drain) is not None:
                now = self._parts.clock.monotonic()
                if now >= drain.deadline:
                    break
                due = [(drain.due(run.doing), run) for run in board.runs.values()]
                for at, run in due:
                    if at <= now:
                        run.cancel.set()
                until = min((at for at, _ in due if at > now), default=drain.deadline)
                board.cond.wait(min(until, drain.deadline) - now)
            left = len(board.runs)
            self._abandon()
        if left:
            _log.warning("drain ends with turns still running: %d", left)
        if self._on_drained is not None:
            self._on_drained()

    def _stop_untaken(self) -> None:
        """Write down that turns which were resumed, but which no worker took, are interrupted again."""
        parts, board = self._parts, self._board
        with self._resuming:
            with board.cond:
                drain, busy = board.drain, set(board.runs)
                if drain is None or not board.queue.first:
                    return
            try:
                untaken = [
                    turn
                    for turn in parts.store.open_turns()
                    if turn.state is TurnState.RUNNING
                    and turn.generation == board.generation
                    and turn.session_id not in busy
                ]
                now = parts.clock.wall()
                changes = [
                    plan_stop(
                        Lease(turn.id, turn.session_id, board.generation),
                        turn,
                        drain.cause,
                        drain.restart_id,
                        now,
                    )
                    for turn in untaken
                ]
                parts.store.commit_all(changes, now)
            except StoreError as error:
                _log.warning("drain could not mark resumed turns: %s", error.what)

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

    def live_text(self, session_id: SessionId) -> Delta | None:
        """Return the text so far of the reply that is being made."""
        return self._parts.broadcast.live_text(session_id)

    # -- what people decide --------------------------------------------------------------------

    def cancel(self, session_id: SessionId, turn_id: TurnId, by: str) -> Turn:
        """End a turn; ConflictError when it has ended already."""
        return self._decisions.cancel(session_id, turn_id, by)

    def decide_approval(self, approval_id: ApprovalId, granted: bool, by: str) -> Approval:
        """Grant or deny; the turn goes on. ConflictError when it was decided already."""
        return self._decisions.decide(approval_id, granted, by)
