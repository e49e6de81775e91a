"""What a start makes of every turn that has not ended, and what it writes about each."""

from __future__ import annotations

import itertools

import pytest

from netclawd.core.manifest import Manifest, Work, WorkState
from netclawd.core.session import (
    EventType,
    InputId,
    Lease,
    ParkReason,
    RestartId,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.turn import Limits, Park, Resume
from netclawd.core.warm_up import Boot, judge_all, plan_change, plan_stop

LIMITS = Limits(resumes=3, deadline_s=600.0)


def _turn(
    number: int,
    state: TurnState,
    *,
    park: ParkReason | None = None,
    generation: int = 1,
    resumes: int = 0,
    interrupted_at: float | None = None,
) -> Turn:
    ids = TurnId(f"t{number}"), SessionId(f"s{number}"), InputId(f"i{number}")
    return Turn(*ids, state, generation, resumes, interrupted_at, park, number, False)


def _boot(cause: str = "restart") -> Boot:
    return Boot(cause, RestartId("r-1"), "hup", 2)


def _manifest(*turns: str) -> Manifest:
    rows = tuple(Work("s", turn, 1, WorkState.CUT, "api", None) for turn in turns)
    return Manifest(1, "r-1", "reload", "hup", 0.0, "", "", "0", {}, rows)


def test_every_turn_has_one_fate() -> None:
    turns = [
        _turn(1, TurnState.RUNNING),
        _turn(2, TurnState.QUEUED),
        _turn(3, TurnState.PARKED, park=ParkReason.APPROVAL),
        _turn(4, TurnState.PARKED, park=ParkReason.APPROVAL),
        _turn(5, TurnState.PARKED, park=ParkReason.RESUME_LIMIT),
        _turn(6, TurnState.INTERRUPTED, resumes=3),
        _turn(7, TurnState.INTERRUPTED, interrupted_at=1.0),
        _turn(8, TurnState.INTERRUPTED, interrupted_at=900.0),
    ]
    judged = judge_all(turns, {TurnId("t3")}, None, 1000.0, LIMITS)
    assert [(turn.id, verdict) for turn, verdict in judged.interrupted] == [
        ("t8", Resume()),
        ("t7", Park(ParkReason.RESUME_DEADLINE)),
        ("t6", Park(ParkReason.RESUME_LIMIT)),
        ("t1", Resume()),
    ]
    assert judged.decided == ("s4",)
    assert judged.queued == ("s2",)
    assert judged.waiting == 2


def test_the_manifest_goes_first_then_the_newest() -> None:
    turns = [_turn(n, TurnState.RUNNING) for n in range(1, 6)]
    judged = judge_all(turns, (), _manifest("t2", "gone", "t5", "t1"), 1000.0, LIMITS)
    assert [turn.id for turn, _ in judged.interrupted] == ["t2", "t5", "t1", "t4", "t3"]


@pytest.mark.parametrize("cause", ["restart", "stop", "crash"])
@pytest.mark.parametrize("state", [TurnState.RUNNING, TurnState.INTERRUPTED])
@pytest.mark.parametrize("verdict", [Resume(), Park(ParkReason.RESUME_LIMIT)])
@pytest.mark.parametrize("same_image", [False, True])
def test_the_session_is_told_what_happened_once(
    cause: str, state: TurnState, verdict: Resume | Park, same_image: bool
) -> None:
    turn = _turn(1, state, generation=2 if same_image else 1, resumes=1)
    lease = Lease(turn.id, turn.session_id, 2)
    change = plan_change(lease, turn, verdict, _boot(cause), 50.0)
    types = [event.type for event in change.events]
    last = EventType.TURN_RESUMED if isinstance(verdict, Resume) else EventType.TURN_PARKED
    expected = [
        *([EventType.TURN_INTERRUPTED] if state is TurnState.RUNNING else []),
        *([] if same_image else [EventType.RESTART]),
        last,
    ]
    assert types == expected
    assert change.interrupted_at == 50.0
    if isinstance(verdict, Resume):
        # The worker that takes it counts the resume.
        assert (change.state, change.resumes) == (TurnState.RUNNING, None)
        assert change.events[-1].data == {
            "generation": 2,
            "resumes": 2,
            "cause": "crash" if cause == "crash" else "restart",
        }
    else:
        assert (change.state, change.park_reason) == (TurnState.PARKED, ParkReason.RESUME_LIMIT)


def test_the_first_interruption_is_remembered() -> None:
    turn = _turn(1, TurnState.INTERRUPTED, interrupted_at=10.0)
    lease = Lease(turn.id, turn.session_id, 2)
    assert plan_change(lease, turn, Resume(), _boot(), 50.0).interrupted_at is None
    assert plan_stop(lease, turn, "stop", "r-2", 60.0).interrupted_at is None


def test_a_restart_that_a_turn_has_brought_about_costs_it_nothing() -> None:
    spent = _turn(1, TurnState.INTERRUPTED, resumes=3, interrupted_at=1.0)
    fresh = _turn(2, TurnState.INTERRUPTED)
    crashed = _turn(3, TurnState.RUNNING, resumes=3)
    awaiting = {spent.id, fresh.id, crashed.id}
    judged = judge_all([spent, fresh, crashed], (), None, 1000.0, LIMITS, awaiting)
    verdicts = {turn.id: verdict for turn, verdict in judged.interrupted}
    assert verdicts[spent.id] == verdicts[fresh.id] == Resume(counted=False)
    assert verdicts[crashed.id] == Park(ParkReason.RESUME_LIMIT)
    for turn in (spent, fresh):
        lease = Lease(turn.id, turn.session_id, 2)
        change = plan_change(lease, turn, verdicts[turn.id], _boot(), 1000.0)
        assert change.events[-1].data["resumes"] == turn.resumes
        assert change.interrupted_at is None


def test_a_resume_that_led_nowhere_is_not_counted() -> None:
    for resumes, generation in itertools.product((0, 1, 3), (1, 2)):
        turn = _turn(1, TurnState.RUNNING, resumes=resumes, generation=generation)
        change = plan_stop(Lease(turn.id, turn.session_id, 2), turn, "stop", "r-2", 60.0)
        assert change.resumes is None
        assert change.state is TurnState.INTERRUPTED
        (event,) = change.events
        assert event.data == {"cause": "stop", "restart_id": "r-2", "state": "drained"}
