"""The engine's shared state and its one condition: who runs what, and what is allowed right now.

Everything that workers, the drain and the API threads must agree on is here and changes under
``cond``; no store call, no model call and no watcher is called while it is held. Invariants: one run
for each session; a turn is never run and reserved at the same time; while there is a drain nothing
is taken and nothing begins.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from netclawd.core.session import RestartId, SessionId, Turn, TurnId
from netclawd.core.values import frozen
from netclawd.daemon.session_queue import SessionQueue
from netclawd.errors import ConflictError

if TYPE_CHECKING:
    from netclawd.daemon.calls import ModelCall
    from netclawd.daemon.turn_run import TurnRun

#: A decision waits at most this long for the commit that asked for it to be over.
_RESERVE_TIMEOUT_S = 5.0


class CancelFlag:
    """The :class:`~netclawd.ports.Cancel` that workers are given."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._acts: list[Callable[[], None]] = []

    def set(self) -> None:
        self._event.set()
        with self._lock:
            acts, self._acts = self._acts, []
        for act in acts:
            act()

    def on_set(self, act: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            self._acts.append(act)
        if self.is_set():
            self.set()

        def take_back() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._acts.remove(act)

        return take_back

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        return self._event.wait(timeout_s)


class Kind(StrEnum):
    MODEL = "model call"
    TOOL = "tool"


@frozen
class Doing:
    """What takes time in a run right now."""

    kind: Kind
    #: The tool's name, empty for a model call.
    name: str
    #: Monotonic.
    since: float

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@frozen
class Drain:
    """Turns are to stop at their next checkpoint. The instants are monotonic."""

    model_deadline: float
    tool_deadline: float
    deadline: float
    #: restart or stop.
    cause: str
    restart_id: RestartId

    def due(self, doing: Doing | None) -> float:
        """Return when what a run is doing is cancelled."""
        if doing is None:
            return self.deadline
        return self.model_deadline if doing.kind is Kind.MODEL else self.tool_deadline

    def hastened(self, model_deadline: float, tool_deadline: float, deadline: float) -> Drain:
        """Return it as the drain of a stop that overtakes; no deadline moves back."""
        return Drain(
            min(self.model_deadline, model_deadline),
            min(self.tool_deadline, tool_deadline),
            min(self.deadline, deadline),
            "stop",
            self.restart_id,
        )


class Board:
    def __init__(self) -> None:
        self.cond = threading.Condition()
        self.queue = SessionQueue()
        self.runs: dict[SessionId, TurnRun] = {}
        #: Model calls that belong to no turn.
        self.calls: set[ModelCall] = set()
        self.drain: Drain | None = None
        self.gate_open = False
        self.stopping = False
        #: Whose leases are taken; 0 before the start.
        self.generation = 0
        #: Turns that nobody has worked on yet: whether the gate was closed when they came.
        self.waiting: dict[TurnId, bool] = {}
        #: Turns that wait for a person.
        self.parked: set[TurnId] = set()
        self._reserved: set[TurnId] = set()
        #: Sessions of which one at a time runs: a turn of theirs may have ended the daemon more than once.
        self.suspects: set[SessionId] = set()
        #: Turns that were decided about since a reconciliation began; None while none goes on.
        self.decided: set[TurnId] | None = None

    def submit(self, turn_id: TurnId, session_id: SessionId) -> None:
        with self.cond:
            self.waiting[turn_id] = not self.gate_open
            self.queue.add(session_id)
            self.cond.notify_all()

    def add(self, session_id: SessionId, *, first: bool = False) -> None:
        with self.cond:
            self.queue.add(session_id, first=first)
            self.cond.notify_all()

    def set_gate(self, is_open: bool) -> None:
        with self.cond:
            self.gate_open = is_open
            self.cond.notify_all()

    def set_drain(self, drain: Drain | None) -> None:
        with self.cond:
            self.drain = drain
            self.cond.notify_all()

    def abandon_runs(self) -> None:
        """Wait for no run any more."""
        with self.cond:
            for run in self.runs.values():
                run.cancel.set()
                run.abandoned.set()
            for call in self.calls:
                call.cancel.set()
            self.cond.notify_all()

    # -- for workers -----------------------------------------------------------------------------

    def take(self, make: Callable[[SessionId], TurnRun]) -> TurnRun | None:
        """Wait for a session that may run and open a run for it; None when the engine stops."""
        with self.cond:
            # Bounded by stop(), which every owner of the engine calls.
            self.cond.wait_for(lambda: self.stopping or self._something_to_take())
            if self.stopping:
                return None
            session_id = self.queue.take(gate_open=self.gate_open, but=self._held_back())
            assert session_id is not None
            run = self.runs[session_id] = make(session_id)
            return run

    def _something_to_take(self) -> bool:
        if self.drain is not None:
            return False
        return self.queue.peek(gate_open=self.gate_open, but=self._held_back()) is not None

    def _held_back(self) -> Collection[SessionId]:
        return () if self.suspects.isdisjoint(self.runs) else self.suspects

    def finish(self, run: TurnRun, *, again: bool, parked: bool) -> None:
        """Close a run; ``again``: its session may have more to do; ``parked``: it waits for a person."""
        with self.cond:
            if run.turn is not None:
                self.suspects.discard(run.session_id)
            if parked and run.turn is not None:
                self.parked.add(run.turn.id)
            del self.runs[run.session_id]
            self.queue.release(run.session_id, again=again)
            self.cond.notify_all()

    def adopt(self, run: TurnRun, turn: Turn) -> bool:
        """Give the run its turn; False while somebody decides about that turn."""
        with self.cond:
            if turn.id in self._reserved:
                return False
            run.turn = turn
            self.waiting.pop(turn.id, None)
            self.parked.discard(turn.id)
            return True

    def begin(self, run: TurnRun, doing: Doing) -> CancelFlag | None:
        """Let a run begin what takes time and return what cancels it; None when nothing may begin."""
        with self.cond:
            if not self._may_begin(run):
                return None
            run.doing, run.cancel = doing, CancelFlag()
            if run.cancelled_by is not None:
                run.cancel.set()
            return run.cancel

    def goes_on(self, run: TurnRun) -> bool:
        """Whether a run that has begun a batch of tool calls may make the next one of them."""
        with self.cond:
            return self._may_begin(run) and run.cancelled_by is None

    def _may_begin(self, run: TurnRun) -> bool:
        """Whether a run may begin what takes time."""
        return self.drain is None and not self.stopping and run.parked_by is None

    def await_outcome(self, run: TurnRun, timeout_s: float) -> bool:
        """Wait until an outcome was told to the run's session, or there is something else for it to do.

        Returns whether it woke; False when the time is up.
        """
        with self.cond:
            woken = self.cond.wait_for(
                lambda: (
                    run.told
                    or not self._may_begin(run)
                    or run.abandoned.is_set()
                    or run.cancelled_by is not None
                ),
                timeout=timeout_s,
            )
            run.told = False
            return woken

    def tell(self, session_id: SessionId) -> None:
        """Let the run of a session know that its turn has an event which is not its own."""
        with self.cond:
            if (run := self.runs.get(session_id)) is not None:
                run.told = True
                self.cond.notify_all()

    def lets_expire(self) -> bool:
        """Whether a question that nobody has answered in time may be taken as denied now."""
        with self.cond:
            return self.gate_open and self.drain is None and not self.stopping

    def done(self, run: TurnRun) -> None:
        with self.cond:
            run.doing = None
            self.cond.notify_all()

    # -- for clients that call the model themselves ----------------------------------------------

    def open_call(self, call: ModelCall) -> bool:
        """Count a model call until :meth:`close_call`; False when none may begin."""
        with self.cond:
            if self.drain is not None or self.stopping or not self.gate_open:
                return False
            self.calls.add(call)
            return True

    def close_call(self, call: ModelCall) -> None:
        with self.cond:
            self.calls.discard(call)
            self.cond.notify_all()

    # -- for people ------------------------------------------------------------------------------

    def cancel_run(self, session_id: SessionId, turn_id: TurnId, by: str) -> TurnRun | None:
        """Tell the run of this turn, if there is one, that it is cancelled."""
        with self.cond:
            run = self._run_of(session_id, turn_id)
            if run is not None:
                run.cancelled_by = by
                run.cancel.set()
                self.cond.notify_all()
            return run

    def _run_of(self, session_id: SessionId, turn_id: TurnId) -> TurnRun | None:
        run = self.runs.get(session_id)
        return None if run is None or run.turn is None or run.turn.id != turn_id else run

    def park_run_or_reserve(
        self, session_id: SessionId, turn_id: TurnId, by: str
    ) -> tuple[TurnRun, bool] | None:
        """Tell the run of this turn to park it, and cancel its model call.

        Returns the run, and whether it is in a tool and was not told before. None when there is no
        run: the turn is then reserved and must be released. Raises ConflictError.
        """
        with self.cond:
            if not self.cond.wait_for(lambda: turn_id not in self._reserved, _RESERVE_TIMEOUT_S):
                raise _busy()
            run = self._run_of(session_id, turn_id)
            if run is None:
                self._reserve(turn_id)
                return None
            fresh, run.parked_by = run.parked_by is None, run.parked_by or by
            self.cond.notify_all()
            kind = None if run.doing is None else run.doing.kind
            if kind is Kind.MODEL:
                run.cancel.set()
            return run, fresh and kind is Kind.TOOL

    def await_end(self, run: TurnRun, timeout_s: float) -> bool:
        """Wait for a run to close."""
        with self.cond:
            return self.cond.wait_for(
                lambda: self.runs.get(run.session_id) is not run, timeout=timeout_s
            )

    @contextlib.contextmanager
    def reserved(self, session_id: SessionId, turn_id: TurnId, *, first: bool) -> Iterator[None]:
        """Keep a turn from every worker, then let its session be looked at again.

        Raises ConflictError when a worker does not let go of it in time.
        """

        def free() -> bool:
            return turn_id not in self._reserved and self._run_of(session_id, turn_id) is None

        with self.cond:
            if not self.cond.wait_for(free, timeout=_RESERVE_TIMEOUT_S):
                raise _busy()
            self._reserve(turn_id)
        try:
            yield
        finally:
            self.release(session_id, turn_id, first=first)

    def _reserve(self, turn_id: TurnId) -> None:
        self._reserved.add(turn_id)
        if self.decided is not None:
            self.decided.add(turn_id)

    def release(
        self, session_id: SessionId, turn_id: TurnId, *, first: bool, parked: bool = False
    ) -> None:
        """Let workers have a reserved turn again; ``first``: with the gate closed, too."""
        with self.cond:
            self._reserved.discard(turn_id)
            self.waiting.pop(turn_id, None)
            self.parked.discard(turn_id)
            if parked:
                self.parked.add(turn_id)
            self.queue.add(session_id, first=first)
            self.cond.notify_all()

    # -- for the reconciliation ------------------------------------------------------------------

    def claim(self, turn_ids: Iterable[TurnId]) -> frozenset[TurnId]:
        """Reserve those that nobody decides about, or has since the reconciliation began."""
        with self.cond:
            taken = self._reserved | (self.decided or set())
            free = frozenset(turn_ids) - taken
            self._reserved |= free
            return free

    def unclaim(self, turn_ids: frozenset[TurnId]) -> None:
        """Let others have what was claimed."""
        with self.cond:
            self._reserved -= turn_ids
            self.cond.notify_all()


def _busy() -> ConflictError:
    return ConflictError("The turn is being worked on.", "Try again in a moment.")
