"""Which interrupted turns go on after a start, in which order, and what is written about each.

Pure. Judging takes the turns' rows alone, never their events: a thousand are judged in one pass and
written in a few transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from netclawd.core.manifest import Manifest
from netclawd.core.session import (
    Change,
    EventType,
    Lease,
    NewEvent,
    ParkReason,
    RestartId,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.turn import Leave, Limits, Park, Resume, judge_interrupted
from netclawd.core.values import frozen, replace


@frozen
class Boot:
    """Why there is a new beginning, as the sessions are told."""

    #: restart, stop (a start after one) or crash.
    cause: str
    restart_id: RestartId
    trigger: str
    generation: int


@frozen
class Judged:
    """Every turn that has not ended, sorted by what becomes of it."""

    #: To be written about, first things first.
    interrupted: tuple[tuple[Turn, Resume | Park], ...]
    #: Sessions whose parked turn can go on, because a person decided meanwhile.
    decided: tuple[SessionId, ...]
    #: Sessions with queued turns, in order of admission.
    queued: tuple[SessionId, ...]
    #: Turns that wait for a person.
    waiting: int


def judge_all(
    turns: Sequence[Turn],
    undecided: Collection[TurnId],
    manifest: Manifest | None,
    now: float,
    limits: Limits,
    awaiting: Collection[TurnId] = (),
) -> Judged:
    """Judge the turns (in order of admission); the manifest's order first, then the newest first.

    ``undecided`` turns wait for a person, ``awaiting`` ones for the outcome of what they have written.
    """
    rank = {work.turn_id: n for n, work in enumerate(manifest.work)} if manifest else {}
    interrupted: list[tuple[Turn, Resume | Park]] = []
    decided: list[SessionId] = []
    waiting = 0
    for turn in turns:
        verdict = judge_interrupted(turn, now, limits, awaiting=turn.id in awaiting)
        if not isinstance(verdict, Leave):
            interrupted.append((turn, verdict))
        elif turn.state is TurnState.PARKED:
            ready = turn.park_reason is ParkReason.APPROVAL and turn.id not in undecided
            if ready:
                decided.append(turn.session_id)
            else:
                waiting += 1
    interrupted.sort(key=lambda row: (rank.get(row[0].id, len(rank)), -row[0].position))
    queued = dict.fromkeys(t.session_id for t in turns if t.state is TurnState.QUEUED)
    return Judged(tuple(interrupted), tuple(decided), tuple(queued), waiting)


def plan_change(lease: Lease, turn: Turn, verdict: Resume | Park, boot: Boot, now: float) -> Change:
    """Return what is committed about an interrupted turn; ``now`` is wall clock.

    The resume is counted when a worker takes the turn, with its lease: a turn that waits while
    another one ends the daemon is not to blame.
    """
    rows: list[NewEvent] = []
    if turn.state is TurnState.RUNNING:  # the image that ran it didn't get to say so
        rows.append(interruption(boot.cause, boot.restart_id, cut=True))
    if turn.generation != boot.generation:  # else a restart failed, and the same image goes on
        data = {"trigger": boot.trigger, "cause": boot.cause, "generation": boot.generation}
        rows.append(NewEvent(EventType.RESTART, {"restart_id": boot.restart_id, **data}))
    counted = not isinstance(verdict, Resume) or verdict.counted
    first = counted and turn.interrupted_at is None
    change = Change(lease, interrupted_at=now if first else None)
    if isinstance(verdict, Park):
        rows.append(NewEvent(EventType.TURN_PARKED, {"reason": verdict.reason.value}))
        return replace(
            change, events=tuple(rows), state=TurnState.PARKED, park_reason=verdict.reason
        )
    cause = "crash" if boot.cause == "crash" else "restart"
    rows.append(resumption(boot.generation, turn.resumes + counted, cause))
    return replace(change, events=tuple(rows), state=TurnState.RUNNING)


def plan_stop(lease: Lease, turn: Turn, cause: str, restart_id: str, now: float) -> Change:
    """Return what is committed about a resumed turn that no worker has taken when the drain comes."""
    return Change(
        lease,
        (interruption(cause, restart_id, cut=False),),
        state=TurnState.INTERRUPTED,
        interrupted_at=now if turn.interrupted_at is None else None,
    )


def plan_take_up(
    lease: Lease, by: str, now: float, stop: tuple[str, RestartId] | None = None
) -> Change:
    """Return what is committed about a parked turn that a person lets go on, its budget new.

    ``stop`` is cause and restart id of a drain that is on: the turn then waits for the next start.
    """
    data = {"generation": lease.generation, "resumes": 0, "cause": "request", "by": by}
    change = Change(
        lease, (NewEvent(EventType.TURN_RESUMED, data),), state=TurnState.RUNNING, forgiven=True
    )
    if stop is None:
        return change
    events = (*change.events, interruption(*stop, cut=False))
    return replace(change, events=events, state=TurnState.INTERRUPTED, interrupted_at=now)


def plan_park(lease: Lease, by: str, *, cut: bool) -> Change:
    """Return what is committed about a turn that a person parks; ``cut``: a call was under way."""
    data = {"reason": ParkReason.REQUEST.value, "by": by, "state": "cut" if cut else "drained"}
    return Change(
        lease,
        (NewEvent(EventType.TURN_PARKED, data),),
        state=TurnState.PARKED,
        park_reason=ParkReason.REQUEST,
    )


def interruption(cause: str, restart_id: str, *, cut: bool) -> NewEvent:
    state = "cut" if cut else "drained"
    return NewEvent(
        EventType.TURN_INTERRUPTED, {"cause": cause, "restart_id": restart_id, "state": state}
    )


def resumption(generation: int, resumes: int, cause: str) -> NewEvent:
    data = {"generation": generation, "resumes": resumes, "cause": cause}
    return NewEvent(EventType.TURN_RESUMED, data)
