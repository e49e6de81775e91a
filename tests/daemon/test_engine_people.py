"""What people decide: approvals and cancels, in every state of a turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import ApprovalState, EventType, Role, SessionId, TurnId, TurnState
from netclawd.core.turn_invariants import check_invariants
from netclawd.errors import ConflictError, NotFoundError
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, Step, named
from tests.waiting import wait_for

A = SessionId("a")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, workers=1)
    home.tool(ScriptedTool("ask", asks=True))
    yield home
    home.close()


def _asking(home: Home) -> TurnId:
    home.model.script = lambda text, step: ("ask",) if "ask" in text and step == 1 else ()
    turn = home.send(home.boot(), "a", "ask")
    home.await_state(turn, TurnState.PARKED)
    return turn


def test_a_question_parks_the_turn_and_frees_the_worker(home: Home) -> None:
    home.model.script = lambda text, step: ("ask",) if text == "ask" and step == 1 else ()
    engine = home.boot()
    turn = home.send(engine, "a", "ask")
    home.await_state(turn, TurnState.PARKED)
    assert home.types(turn)[-2:] == ["approval.requested", "turn.parked"]
    home.await_completed(home.send(engine, "b", "other"))
    behind = home.send(engine, "a", "behind")
    home.await_completed(home.send(engine, "b", "more"))
    assert home.store.turn(behind).state is TurnState.QUEUED
    wait_for(lambda: engine.counts()["parked"] == 1, LONG_S, "a parked turn")
    (approval,) = home.store.approvals(pending_only=True)
    assert (approval.turn_id, approval.question) == (turn, "May I?")

    decided = engine.decide_approval(approval.id, True, "uid 0")
    assert (decided.state, decided.decided_by) == (ApprovalState.GRANTED, "uid 0")
    home.await_completed(turn, behind)
    assert home.data(turn, EventType.TURN_RESUMED) == [
        {"generation": 1, "resumes": 0, "cause": "approval"}
    ]
    assert [m.text for m in home.model.heard if m.role is Role.TOOL] == ["ask done"]
    with pytest.raises(ConflictError):
        engine.decide_approval(approval.id, False, "uid 1")


def test_a_denied_call_is_not_run_and_the_model_is_told(home: Home) -> None:
    tool = home.tool(ScriptedTool("ask", asks=True))
    turn = _asking(home)
    engine = home.boot()
    (approval,) = home.store.approvals(pending_only=True)
    engine.decide_approval(approval.id, False, "uid 0")
    home.await_completed(turn)
    assert tool.ran == []
    (finished,) = home.data(turn, EventType.TOOL_FINISHED)
    assert finished["status"] == "denied"
    assert home.model.heard[-1].text.startswith("[denied] ")


def test_a_decision_in_a_drain_is_kept_for_the_next_generation(home: Home) -> None:
    home.model.script = named(["ask"])
    engine = home.boot()
    turn = home.send(engine, "a", "ask")
    home.await_state(turn, TurnState.PARKED)
    Drained(engine).wait()
    (work,) = engine.work_in_flight()
    assert (work.state, work.resume_deadline) == ("parked", None)
    (approval,) = home.store.approvals(pending_only=True)
    engine.decide_approval(approval.id, True, "uid 0")
    assert home.store.turn(turn).state is TurnState.PARKED
    engine.stop(LONG_S)
    home.clock.wall_s += 1_000_000  # A turn parked for a person has no deadline.
    home.boot(is_open=False)
    home.await_completed(turn)
    assert home.store.turn(turn).resumes == 0


def test_a_queued_turn_is_cancelled_and_the_next_one_runs(home: Home) -> None:
    engine = home.boot(is_open=False)
    first, second = home.send(engine, "a", "one"), home.send(engine, "a", "two")
    assert engine.cancel(A, first, "api").state is TurnState.CANCELLED
    assert home.types(first) == ["input.admitted", "turn.cancelled"]
    engine.open()
    home.await_completed(second)
    assert home.model.seen == [("two", 1)]
    with pytest.raises(ConflictError):
        engine.cancel(A, first, "api")
    with pytest.raises(ConflictError):
        engine.cancel(A, second, "api")
    with pytest.raises(NotFoundError):
        engine.cancel(SessionId("b"), second, "api")
    with pytest.raises(NotFoundError):
        engine.cancel(A, TurnId("none"), "api")


def test_a_running_model_call_is_cancelled(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    assert engine.cancel(A, turn, "api").state is TurnState.CANCELLED
    assert home.types(turn)[-1] == "turn.cancelled"
    home.await_completed(home.send(engine, "a", "next"))


def test_a_cancelled_tool_says_what_it_did(home: Home) -> None:
    tool = home.tool(ScriptedTool("look", step=Step()))
    home.model.script = named(["look"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    engine.cancel(A, turn, "api")
    assert home.types(turn)[-2:] == ["tool.finished", "turn.cancelled"]
    assert home.data(turn, EventType.TOOL_FINISHED)[0]["status"] == "interrupted"


def test_a_tool_that_ignores_the_cancel_is_recorded_as_unknown(home: Home) -> None:
    tool = home.tool(ScriptedTool("look", step=Step(obedient=False)))
    home.model.script = lambda text, step: ("look",) if text == "go" and step == 1 else ()
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    assert engine.cancel(A, turn, "api").state is TurnState.CANCELLED
    assert home.types(turn)[-2:] == ["tool.unknown", "turn.cancelled"]
    behind = home.send(engine, "a", "behind")
    tool.step.go.set()
    home.await_completed(behind)
    check_invariants(home.events(turn))


def test_a_cancelled_question_expires(home: Home) -> None:
    turn = _asking(home)
    engine = home.boot()
    (approval,) = home.store.approvals(pending_only=True)
    engine.cancel(A, turn, "uid 0")
    assert home.types(turn)[-2:] == ["approval.expired", "turn.cancelled"]
    assert home.store.approval(approval.id).state is ApprovalState.EXPIRED
    with pytest.raises(ConflictError):
        engine.decide_approval(approval.id, True, "uid 0")
    check_invariants(home.events(turn))


def test_an_interrupted_turn_is_cancelled(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    Drained(engine, model_s=0.0).wait()
    assert engine.cancel(A, turn, "api").state is TurnState.CANCELLED
    check_invariants(home.events(turn))
