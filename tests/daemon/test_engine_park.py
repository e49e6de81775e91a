"""Turns that a person parks and lets go on, in every state of a turn and of the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netclawd.core.session import EventType, ParkReason, SessionId, Turn, TurnId, TurnState
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.engine import Engine
from netclawd.errors import ConflictError, NotFoundError
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, Step, named
from tests.waiting import wait_for

A = SessionId("a")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, workers=1)
    yield home
    home.close()


def park(engine: Engine, turn: TurnId | None = None, tool_timeout_s: float = LONG_S) -> Turn:
    return engine.park(A, turn, "uid 0", tool_timeout_s)


def resume(engine: Engine, turn: TurnId | None = None) -> Turn:
    return engine.resume(A, turn, "uid 0")


def await_parked(home: Home, turn: TurnId) -> Turn:
    parked = home.await_state(turn, TurnState.PARKED)
    check_invariants(home.events(turn))
    return parked


def held(home: Home) -> tuple[Engine, TurnId]:
    """A turn in a model call."""
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    return engine, turn


def test_a_model_call_is_cut_and_made_again_after_the_resume(home: Home) -> None:
    engine, turn = held(home)
    assert park(engine).id == turn
    assert await_parked(home, turn).park_reason is ParkReason.REQUEST
    assert home.data(turn, EventType.TURN_PARKED) == [
        {"reason": "request", "by": "uid 0", "state": "cut"}
    ]
    wait_for(lambda: engine.counts()["parked"] == 1, LONG_S, "the parked turn to be counted")
    assert park(engine).state is TurnState.PARKED, "parking it again changes nothing"
    assert home.types(turn).count("turn.parked") == 1

    home.model.gate.go.set()
    assert resume(engine).state is TurnState.RUNNING
    home.await_completed(turn)
    assert home.data(turn, EventType.TURN_RESUMED) == [
        {"generation": 1, "resumes": 0, "cause": "request", "by": "uid 0"}
    ]
    assert home.data(turn, EventType.STEP_RETRY) == [{"step": 1, "attempt": 2, "reason": "request"}]
    assert home.store.turn(turn).resumes == 0


def test_a_tool_may_end_and_what_follows_waits(home: Home) -> None:
    tool = home.tool(ScriptedTool("look", step=Step()))
    home.model.script = named(["look"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    assert park(engine).state is TurnState.RUNNING
    assert park(engine).state is TurnState.RUNNING
    tool.step.go.set()
    await_parked(home, turn)
    assert home.types(turn)[-2:] == ["tool.finished", "turn.parked"]
    assert home.data(turn, EventType.TOOL_FINISHED)[0]["status"] == "ok"
    assert home.data(turn, EventType.TURN_PARKED)[0]["state"] == "drained"
    resume(engine)
    home.await_completed(turn)
    assert "step.retry" not in home.types(turn)
    assert len(tool.ran) == 1


def test_a_tool_that_takes_too_long_is_told_to_stop(home: Home) -> None:
    tool = home.tool(ScriptedTool("look", step=Step()))
    home.model.script = named(["look"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    park(engine, tool_timeout_s=0.0)
    await_parked(home, turn)
    assert home.data(turn, EventType.TOOL_FINISHED)[0]["status"] == "interrupted"
    resume(engine)
    home.await_completed(turn)
    assert "step.retry" not in home.types(turn), "no model call was cut"


def test_a_queued_turn_is_parked_and_holds_the_ones_behind_it(home: Home) -> None:
    engine = home.boot(is_open=False)
    first, second = home.send(engine, "a", "one"), home.send(engine, "a", "two")
    assert park(engine).id == first
    engine.open()
    home.await_completed(home.send(engine, "b", "other"))
    assert home.store.turn(second).state is TurnState.QUEUED
    assert home.types(first) == ["input.admitted", "turn.parked"]
    assert engine.counts()["parked"] == 1
    resume(engine)
    home.await_completed(first, second)
    assert [text for text, _ in home.model.seen] == ["other", "one", "two"]


def test_a_named_turn_is_parked_before_its_time(home: Home) -> None:
    engine, first = held(home)
    second = home.send(engine, "a", "two")
    third = home.send(engine, "a", "three")
    assert park(engine, second).state is TurnState.PARKED
    home.model.gate.go.set()
    home.await_completed(first)
    home.await_completed(home.send(engine, "b", "other"))
    assert home.store.turn(third).state is TurnState.QUEUED
    resume(engine, second)
    home.await_completed(second, third)


def test_a_question_is_asked_only_after_the_resume(home: Home) -> None:
    look = home.tool(ScriptedTool("look", step=Step()))
    home.tool(ScriptedTool("ask", asks=True))
    home.model.script = lambda _text, step: (("look",), ("ask",), ())[step - 1]
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    look.step.await_begin()
    park(engine)
    look.step.go.set()
    assert await_parked(home, turn).park_reason is ParkReason.REQUEST
    assert home.store.approvals(pending_only=True) == ()
    resume(engine)
    wait_for(lambda: home.store.approvals(pending_only=True), LONG_S, "the question")
    assert await_parked(home, turn).park_reason is ParkReason.APPROVAL


def test_a_turn_that_waits_for_an_approval_is_told_so(home: Home) -> None:
    home.tool(ScriptedTool("ask", asks=True))
    home.model.script = named(["ask"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    await_parked(home, turn)
    (approval,) = home.store.approvals(pending_only=True)
    assert park(engine).park_reason is ParkReason.APPROVAL
    with pytest.raises(ConflictError, match=f"waits for the approval {approval.id}"):
        resume(engine)
    engine.decide_approval(approval.id, True, "uid 0")
    home.await_completed(turn)


def test_what_can_not_be_parked_or_resumed_is_refused_with_words(home: Home) -> None:
    engine, turn = held(home)
    with pytest.raises(ConflictError, match="is running, not parked"):
        resume(engine)
    home.model.gate.go.set()
    home.await_completed(turn)
    for act in (engine.resume, lambda s, t, by: engine.park(s, t, by, LONG_S), engine.cancel):
        with pytest.raises(ConflictError, match="no turn in flight"):
            act(A, None, "uid 0")
        with pytest.raises(ConflictError, match="is completed already"):
            act(A, turn, "uid 0")
        with pytest.raises(NotFoundError, match="no session none"):
            act(SessionId("none"), None, "uid 0")
        with pytest.raises(NotFoundError, match="no turn none"):
            act(A, TurnId("none"), "uid 0")


def _crash(home: Home, engine: Engine) -> Engine:
    """End the daemon in a model call and start it again."""
    seen = len(home.model.seen)
    engine.stop(LONG_S)
    engine = home.boot()
    wait_for(lambda: len(home.model.seen) > seen, LONG_S, "the model to be asked again")
    return engine


def _too_often(home: Home, engine: Engine) -> Engine:
    for _ in range(3):
        engine = _crash(home, engine)
    engine.stop(LONG_S)
    return home.boot()


def _too_long_ago(home: Home, engine: Engine) -> Engine:
    Drained(engine, model_s=0.0).wait()
    engine.stop(LONG_S)
    home.clock.wall_s += 601
    return home.boot(cause="restart")


@pytest.mark.parametrize(
    ("interrupt", "reason"),
    [(_too_often, ParkReason.RESUME_LIMIT), (_too_long_ago, ParkReason.RESUME_DEADLINE)],
)
def test_a_turn_out_of_budget_runs_again_with_a_new_one(
    home: Home, interrupt: Callable[[Home, Engine], Engine], reason: ParkReason
) -> None:
    engine, turn = held(home)
    engine = interrupt(home, engine)
    assert await_parked(home, turn).park_reason is reason
    home.clock.wall_s += 10_000
    asked = len(home.model.seen)
    resumed = resume(engine)
    assert (resumed.resumes, resumed.interrupted_at, resumed.park_reason) == (0, None, None)
    wait_for(lambda: len(home.model.seen) > asked, LONG_S, "the model to be asked again")
    # A crash a long while later: it is resumed by itself, as if it had never been interrupted.
    home.clock.wall_s += 10_000
    _crash(home, engine)
    home.model.gate.go.set()
    home.await_completed(turn)
    assert home.store.turn(turn).resumes == 1


def test_a_parked_turn_stays_parked_over_restart_and_crash(home: Home) -> None:
    engine, turn = held(home)
    park(engine)
    await_parked(home, turn)
    Drained(engine).wait()
    (work,) = engine.work_in_flight()
    assert (work.state, work.resume_deadline) == ("parked", None)
    engine.stop(LONG_S)
    home.clock.wall_s += 10_000
    home.boot(cause="restart").stop(LONG_S)
    engine = home.boot(cause="crash")
    assert home.store.turn(turn).state is TurnState.PARKED
    home.model.gate.go.set()
    resume(engine)
    home.await_completed(turn)


def test_a_turn_in_a_drain_can_be_parked(home: Home) -> None:
    engine, turn = held(home)
    drained = Drained(engine)
    park(engine)
    drained.wait()
    assert await_parked(home, turn).park_reason is ParkReason.REQUEST
    (work,) = engine.work_in_flight()
    assert work.state == "parked"


def test_a_turn_that_the_drain_has_stopped_can_be_parked(home: Home) -> None:
    engine, turn = held(home)
    Drained(engine, model_s=0.0).wait()
    assert park(engine).park_reason is ParkReason.REQUEST
    check_invariants(home.events(turn))
    engine.stop(LONG_S)
    home.model.gate.go.set()
    engine = home.boot(cause="restart")
    assert home.store.turn(turn).state is TurnState.PARKED
    resume(engine)
    home.await_completed(turn)
    assert home.data(turn, EventType.STEP_RETRY) == [{"step": 1, "attempt": 2, "reason": "restart"}]


def test_a_resume_during_a_drain_is_left_to_the_next_generation(home: Home) -> None:
    engine, turn = held(home)
    park(engine)
    await_parked(home, turn)
    Drained(engine).wait()
    assert resume(engine).state is TurnState.INTERRUPTED
    assert home.types(turn)[-2:] == ["turn.resumed", "turn.interrupted"]
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [
        {"cause": "restart", "restart_id": "r-9", "state": "drained"}
    ]
    assert engine.running() == ()
    engine.stop(LONG_S)
    home.model.gate.go.set()
    home.boot(cause="restart", is_open=False)
    home.await_completed(turn)


def test_a_resume_that_no_worker_took_before_the_drain_is_not_lost(home: Home) -> None:
    engine, busy = held(home)
    turn = home.send(engine, "b", "later")
    b = SessionId("b")
    engine.park(b, turn, "uid 0", LONG_S)
    assert engine.resume(b, turn, "uid 0").state is TurnState.RUNNING
    Drained(engine, model_s=0.0).wait()
    assert home.store.turn(turn).state is TurnState.INTERRUPTED
    assert home.data(turn, EventType.TURN_INTERRUPTED)[0]["state"] == "drained"
    engine.stop(LONG_S)
    home.model.gate.go.set()
    home.boot(cause="restart", is_open=False)
    home.await_completed(turn, busy)


def test_all_turns_of_a_session_are_cancelled_and_no_others(home: Home) -> None:
    engine, running = held(home)
    behind = home.send(engine, "a", "two")
    other = home.send(engine, "b", "other")
    cancelled = engine.cancel_all(A, "uid 0")
    assert [turn.id for turn in cancelled] == [running, behind]
    assert {turn.state for turn in cancelled} == {TurnState.CANCELLED}
    assert home.types(behind) == ["input.admitted", "turn.cancelled"], "it never began"
    home.await_completed(other)
    with pytest.raises(ConflictError, match="no turn in flight"):
        engine.cancel_all(A, "uid 0")


def test_a_parked_turn_is_cancelled(home: Home) -> None:
    engine, turn = held(home)
    park(engine)
    await_parked(home, turn)
    assert engine.cancel(A, None, "uid 0").id == turn
    check_invariants(home.events(turn))
    assert engine.counts()["parked"] == 0
