"""Lets interrupted turns go on: all of them at a start, one that a drain given up had stopped.

Batches share a transaction for their leases and one for their checkpoints, so that a thousand
sessions cost a few fsyncs, and the first run while the last are still being judged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from itertools import islice

from netclawd.core.manifest import Manifest
from netclawd.core.session import Lease, RestartId, Turn, TurnId, TurnState
from netclawd.core.turn import Limits, Park, Resume, is_suspect
from netclawd.core.values import frozen
from netclawd.core.warm_up import Boot, Judged, judge_all, plan_change, plan_stop, plan_take_up
from netclawd.daemon import records
from netclawd.daemon.board import Board
from netclawd.daemon.turn_parts import Parts
from netclawd.errors import NetclawError, StoreError

_log = logging.getLogger(__name__)

#: Turns in one transaction: first a few, so that they run soon, then many.
_FIRST_BATCH, _BATCH = 50, 250

Row = tuple[Turn, Resume | Park]


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
        with self._board.cond:
            self._board.decided = set()
        try:
            return self._reconcile(manifest, boot)
        finally:
            with self._board.cond:
                self._board.decided = None

    def _reconcile(self, manifest: Manifest | None, boot: Boot) -> Warmup:
        store, board = self._parts.store, self._board
        with board.cond:
            busy = {run.turn.id for run in board.runs.values() if run.turn is not None}
        turns = [turn for turn in store.open_turns() if turn.id not in busy]
        undecided = {approval.turn_id for approval in store.approvals(pending_only=True)}
        awaiting = {proposal.turn_id for proposal in store.open_proposals()}
        now = self._parts.clock.wall()
        judged = judge_all(turns, undecided, manifest, now, self._limits, awaiting)
        self._enqueue(turns, judged)
        rows = iter(judged.interrupted)
        size = _FIRST_BATCH
        done: list[Row] = []
        try:
            while batch := list(islice(rows, size)):
                done += self._resume(batch, boot)
                size = _BATCH
        finally:
            _say(done, boot)  # Behind all of them: a thousand records hold no turn up.
        parked = sum(isinstance(verdict, Park) for _, verdict in judged.interrupted)
        resumed = len(judged.interrupted) - parked
        return Warmup(resumed, parked, judged.waiting, len(judged.queued))

    def _enqueue(self, turns: Sequence[Turn], judged: Judged) -> None:
        with self._board.cond:
            decided = self._board.decided or set()
            for turn in turns:
                if turn.id in decided:
                    continue
                if turn.state is TurnState.QUEUED:
                    self._board.waiting[turn.id] = turn.deferred
                elif turn.state is TurnState.PARKED:
                    self._board.parked.add(turn.id)
            for session_id in judged.decided:
                self._board.queue.add(session_id, first=True)
            for session_id in judged.queued:
                self._board.queue.add(session_id)
            self._board.cond.notify_all()

    def _resume(self, batch: Sequence[Row], boot: Boot) -> list[Row]:
        """Write what becomes of them and let workers have them; return those that were left to us."""
        with self._lock:
            if self._board.drain is not None or self._board.stopping:
                return []  # They stay interrupted, for the next start.
            # What a person has decided about meanwhile is left out.
            claimed = self._board.claim(turn.id for turn, _ in batch)
            rows = [row for row in batch if row[0].id in claimed]
            try:
                self._commit(rows, boot)
            finally:
                self._board.unclaim(claimed)
            self._let_go(rows, boot)
        return rows

    def _commit(self, batch: Sequence[Row], boot: Boot) -> None:
        store, now = self._parts.store, self._parts.clock.wall()
        leases = store.lease_all([turn.id for turn, _ in batch], boot.generation)
        changes = [
            plan_change(lease, turn, verdict, boot, now)
            for lease, (turn, verdict) in zip(leases, batch, strict=True)
        ]
        # The checkpoint. Crash: before it the next start judges the same turns; after it those that
        # a worker has taken have been resumed once more.
        store.commit_all(changes, now)

    def _let_go(self, batch: Sequence[Row], boot: Boot) -> None:
        with self._board.cond:
            for turn, verdict in batch:
                if isinstance(verdict, Park):
                    self._board.parked.add(turn.id)
                    continue
                if boot.cause == "crash" and is_suspect(turn, self._limits):
                    self._board.suspects.add(turn.session_id)
                self._board.queue.add(turn.session_id, first=True)
            self._board.cond.notify_all()

    def take_back(self, turn_id: TurnId) -> None:
        """Resume a turn whose run ended only after the drain that stopped it had been given up."""
        try:
            turn = self._parts.store.turn(turn_id)
            if turn.state.ended:
                return
            boot = Boot("restart", RestartId(""), "", self._board.generation)
            _say(self._resume([(turn, Resume())], boot), boot)
        except NetclawError as error:
            _log.warning(
                "turn waits for the next start: %s", error.what, extra={"TURN_ID": turn_id}
            )

    def take_up(self, turn: Turn, by: str) -> None:
        """Write that a parked turn, which the caller has reserved, goes on at a person's wish.

        While a drain is on it is written as interrupted, for the next start. A drain that begins
        later finds it in :meth:`stop_untaken`, unless a worker has it.
        """
        store, board = self._parts.store, self._board
        with self._lock:
            drain = board.drain
            lease, now = store.lease(turn.id, board.generation), self._parts.clock.wall()
            stop = None if drain is None else (drain.cause, drain.restart_id)
            store.commit(plan_take_up(lease, by, now, stop), now)
        if stop is None:
            records.say_resumed(turn, "request")

    def stop_untaken(self) -> None:
        """At a drain: write that turns which were resumed, but which no worker has, are interrupted."""
        board = self._board
        with self._lock:
            with board.cond:
                drain, busy = board.drain, set(board.runs)
                if drain is None:
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


def _say(rows: Sequence[Row], boot: Boot) -> None:
    for turn, verdict in rows:
        if isinstance(verdict, Park):
            records.say_parked(turn, verdict.reason)
        else:
            records.say_resumed(turn, boot.cause, boot.restart_id)
