"""Lets interrupted turns go on: all of them at a start, one that a drain given up had stopped.

Batches share a transaction for their leases and one for their checkpoints, so that a thousand
sessions cost a few fsyncs, and the first run while the last are still being judged.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from itertools import islice

from netclawd.core.manifest import Manifest
from netclawd.core.session import Lease, RestartId, Turn, TurnId, TurnState
from netclawd.core.turn import Limits, Park, Resume
from netclawd.core.values import frozen
from netclawd.core.warm_up import Boot, Judged, judge_all, plan_change, plan_stop
from netclawd.daemon.board import Board
from netclawd.daemon.turn_run import Parts
from netclawd.errors import ConflictError, NetclawError, StoreError

_log = logging.getLogger(__name__)

#: Turns in one transaction: first a few, so that they run soon, then many.
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


class Resumption:
    def __init__(self, parts: Parts, board: Board, limits: Limits) -> None:
        self._parts = parts
        self._board = board
        self._limits = limits
        #: Serialises batches with the drain's look for turns that no worker has taken.
        self._lock = threading.Lock()

    def reconcile(self, manifest: Manifest | None, boot: Boot) -> Warmup:
        """Judge all turns, write it down batch by batch, and let workers have each batch at once."""
        store, board = self._parts.store, self._board
        with board.cond:
            busy = {run.turn.id for run in board.runs.values() if run.turn is not None}
        turns = [turn for turn in store.open_turns() if turn.id not in busy]
        undecided = {approval.turn_id for approval in store.approvals(pending_only=True)}
        judged = judge_all(turns, undecided, manifest, self._parts.clock.wall(), self._limits)
        self._enqueue(turns, judged)
        rows = iter(judged.interrupted)
        size = _FIRST_BATCH
        while batch := list(islice(rows, size)):
            self._resume(batch, boot)
            size = _BATCH
        parked = sum(isinstance(verdict, Park) for _, verdict in judged.interrupted)
        resumed = len(judged.interrupted) - parked
        return Warmup(resumed, parked, judged.waiting, len(judged.queued))

    def _enqueue(self, turns: Sequence[Turn], judged: Judged) -> None:
        with self._board.cond:
            for turn in turns:
                if turn.state is TurnState.QUEUED:
                    self._board.waiting[turn.id] = turn.deferred
                elif turn.state is TurnState.PARKED:
                    self._board.parked.add(turn.id)
            for session_id in judged.decided:
                self._board.queue.add(session_id, first=True)
            for session_id in judged.queued:
                self._board.queue.add(session_id)
            self._board.cond.notify_all()

    def _resume(self, batch: Sequence[tuple[Turn, Resume | Park]], boot: Boot) -> None:
        with self._lock:
            if self._board.drain is not None or self._board.stopping:
                return  # They stay interrupted, for the next start.
            try:
                self._commit(batch, boot)
            except ConflictError:
                # Somebody has cancelled one of them meanwhile.
                for row in batch:
                    with contextlib.suppress(ConflictError):
                        self._commit([row], boot)

    def _commit(self, batch: Sequence[tuple[Turn, Resume | Park]], boot: Boot) -> None:
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

    def take_back(self, turn_id: TurnId) -> None:
        """Resume a turn whose run ended only after the drain that stopped it had been given up."""
        try:
            turn = self._parts.store.turn(turn_id)
            boot = Boot("restart", RestartId(""), "", self._board.generation)
            self._resume([(turn, Resume())], boot)
        except NetclawError as error:
            _log.warning("turn waits for the next start: %s", error.what, extra={"turn": turn_id})

    def stop_untaken(self) -> None:
        """At a drain: write that turns which were resumed, but which no worker has, are interrupted."""
        board = self._board
        with self._lock:
            with board.cond:
                drain, busy = board.drain, set(board.runs)
                if drain is None or not board.queue.first:
                    return
            now = self._parts.clock.wall()
            try:
                changes = [
                    plan_stop(
                        Lease(turn.id, turn.session_id, board.generation),
                        turn,
                        drain.cause,
                        drain.restart_id,
                        now,
                    )
                    for turn in self._parts.store.open_turns()
                    if turn.state is TurnState.RUNNING
                    and turn.generation == board.generation
                    and turn.session_id not in busy
                ]
                self._parts.store.commit_all(changes, now)
            except StoreError as error:
                _log.warning("resumed turns were not marked in the drain: %s", error.what)
