"""Questions of a reply: asked together, answered one by one, denied when nobody answers in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.approvals import is_overdue, with_expiry
from netclawd.core.session import (
    Approval,
    ApprovalId,
    ApprovalState,
    CallId,
    EventType,
    Role,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.engine import Engine
from netclawd.errors import ConflictError, StoreError
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, Step, Wrapped, as_store, named
from tests.waiting import wait_for

A = SessionId("a")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, workers=1)
    home.tool(ScriptedTool("ask", asks=True))
    yield home
    home.close()


def _asking(home: Home, *names: str, engine: Engine | None = None) -> tuple[Engine, TurnId]:
    home.model.script = lambda text, step: names if text == "go" and step == 1 else ()
    engine = engine or home.boot()
    turn = home.send(engine, "a", "go")
    home.await_state(turn, TurnState.PARKED)
    return engine, turn


def _pending(home: Home) -> list[Approval]:
    return list(home.store.approvals(pending_only=True))


def _pass(home: Home, engine: Engine, seconds: float) -> None:
    """Let time pass, and have it noticed as an opening gate does."""
    home.clock.wall_s += seconds
    engine.open()


def _told(home: Home) -> list[str]:
    return [m.text for m in home.model.heard if m.role is Role.TOOL]


def test_all_questions_of_a_reply_are_asked_in_one_commit_that_parks_the_turn(home: Home) -> None:
    look = home.tool(ScriptedTool("look"))
    _, turn = _asking(home, "ask", "look", "ask")
    assert home.types(turn)[2:] == [
        "model.completed",
        "approval.requested",
        "approval.requested",
        "turn.parked",
    ]
    assert look.ran == [], "nothing runs before a person has answered"
    first, second = _pending(home)
    assert home.data(turn, EventType.APPROVAL_REQUESTED) == [
        {
            "approval_id": asked.id,
            "call_id": f"{turn}-1-{number}",
            "name": "ask",
            "question": "May I?",
            "expires_at": 1_600.0,
        }
        for asked, number in ((first, 1), (second, 3))
    ]
    assert (first.session_id, first.turn_id, first.name) == ("a", turn, "ask")


def test_the_turn_goes_on_when_the_last_question_is_answered(home: Home) -> None:
    tool = home.tool(ScriptedTool("ask", asks=True))
    engine, turn = _asking(home, "ask", "ask", "ask")
    first, second, third = _pending(home)
    engine.decide_approval(second.id, False, "uid 0")
    engine.decide_approval(third.id, True, "uid 0")
    wait_for(lambda: engine.counts()["parked"] == 1, LONG_S, "the turn to be parked again")
    assert home.store.turn(turn).state is TurnState.PARKED
    with pytest.raises(ConflictError, match=first.id):
        engine.resume(A, turn, "uid 0")
    engine.decide_approval(first.id, True, "uid 0")
    home.await_completed(turn)
    assert sorted(tool.ran) == [first.call_id, third.call_id]
    assert {context.granted for context in tool.contexts} == {"May I?"}
    assert _told(home)[0] == "[denied] A person did not grant this call; it was not run."


def test_a_question_parks_the_turn_in_the_middle_of_a_drain(home: Home) -> None:
    home.model.script = named(["ask", "ask"])
    engine = home.boot()
    turn = home.send(engine, "a", "go /hold")
    home.model.gate.await_begin()
    drained = Drained(engine)
    home.model.gate.go.set()
    drained.wait()
    assert home.store.turn(turn).state is TurnState.PARKED
    assert [w.state for w in engine.work_in_flight()] == ["parked"]
    assert len(_pending(home)) == 2


def test_nobody_answers_in_time_and_the_model_is_told_so(home: Home) -> None:
    tool = home.tool(ScriptedTool("ask", asks=True))
    engine, turn = _asking(home, "ask", "ask")
    first, second = _pending(home)
    _pass(home, engine, 599.0)
    engine.decide_approval(first.id, True, "uid 0")
    assert [asked.id for asked in _pending(home)] == [second.id]
    _pass(home, engine, 1.0)
    home.await_completed(turn)
    assert home.data(turn, EventType.APPROVAL_EXPIRED) == [
        {"approval_id": second.id, "call_id": second.call_id, "by": ""}
    ]
    assert home.store.approval(second.id).state is ApprovalState.EXPIRED
    assert tool.ran == [first.call_id]
    assert any(text.startswith("[denied] Nobody answered in time") for text in _told(home))
    with pytest.raises(ConflictError, match="expired"):
        engine.decide_approval(second.id, True, "uid 0")


def test_an_answer_that_comes_too_late_is_refused_whoever_notices_first(home: Home) -> None:
    engine, turn = _asking(home, "ask")
    (asked,) = _pending(home)
    home.clock.wall_s += 600.0
    with pytest.raises(ConflictError, match="expired"):
        engine.decide_approval(asked.id, True, "uid 0")
    home.await_completed(turn)
    assert home.tools["ask"].ran == []


def test_what_is_overdue_at_a_start_expires_once_the_gate_opens(home: Home) -> None:
    engine, turn = _asking(home, "ask")
    Drained(engine).wait()
    engine.stop(LONG_S)
    home.clock.wall_s += 10_000.0
    engine = home.boot(cause="restart", is_open=False)
    behind = home.send(engine, "b", "other")
    assert home.store.turn(turn).state is TurnState.PARKED
    engine.open()
    home.await_completed(turn, behind)
    assert home.data(turn, EventType.APPROVAL_EXPIRED)[0]["by"] == ""


def test_with_the_gate_closed_a_late_answer_still_counts(home: Home) -> None:
    engine, turn = _asking(home, "ask")
    engine.close_gate()
    Drained(engine).wait()
    home.clock.wall_s += 10_000.0
    assert engine._expiry.expire_due() == 0
    (asked,) = _pending(home)
    assert engine.decide_approval(asked.id, True, "uid 0").state is ApprovalState.GRANTED
    engine.stop(LONG_S)
    home.boot(cause="restart")
    home.await_completed(turn)
    assert home.tools["ask"].ran == [asked.call_id]


@pytest.mark.parametrize(("timeout_s", "expires"), [(100.0, True), (5_000.0, False)])
def test_a_changed_timeout_counts_for_what_was_asked_before(
    home: Home, timeout_s: float, expires: bool
) -> None:
    engine, turn = _asking(home, "ask")
    Drained(engine).wait()
    engine.stop(LONG_S)
    home.clock.wall_s += 150.0 if expires else 700.0
    home.approval_timeout_s = timeout_s
    engine = home.boot(cause="restart")
    if expires:
        home.await_completed(turn)
        return
    home.await_completed(home.send(engine, "b", "other"))
    assert engine._expiry.expire_due() == 0
    assert len(_pending(home)) == 1


def test_it_expires_by_itself_when_its_time_has_come(home: Home) -> None:
    home.approval_timeout_s = 0.3
    home.clock.wall_s = 0.0
    home.clock.runs = True
    _, turn = _asking(home, "ask")
    home.await_completed(turn)
    assert len(home.data(turn, EventType.APPROVAL_EXPIRED)) == 1


class Sick(Wrapped):
    def __init__(self, home: Home) -> None:
        super().__init__(home.store)
        self.sick = threading.Event()
        self.asked = 0

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]:
        if self.sick.is_set():
            self.asked += 1
            raise StoreError("The disk is away.", "Bring it back.")
        return self.wrapped.approvals(pending_only)


def test_a_store_that_fails_for_a_while_ends_no_thread(home: Home) -> None:
    store = Sick(home)
    engine, turn = _asking(home, "ask", engine=home.boot(store=as_store(store)))
    store.sick.set()
    _pass(home, engine, 600.0)
    wait_for(lambda: store.asked > 0, LONG_S, "a look that fails")
    store.sick.clear()
    engine.open()
    home.await_completed(turn)


def test_a_cancel_expires_every_question_of_the_turn(home: Home) -> None:
    engine, turn = _asking(home, "ask", "ask", "ask")
    answered, *others = _pending(home)
    engine.decide_approval(answered.id, True, "uid 0")
    wait_for(lambda: engine.counts()["parked"] == 1, LONG_S, "the turn to be parked again")
    engine.cancel(A, turn, "uid 0")
    assert home.types(turn)[-3:] == ["approval.expired", "approval.expired", "turn.cancelled"]
    assert [row["by"] for row in home.data(turn, EventType.APPROVAL_EXPIRED)] == ["uid 0"] * 2
    assert _pending(home) == []
    states = {asked.id: asked.state for asked in home.store.approvals(pending_only=False)}
    assert [states[asked.id] for asked in others] == [ApprovalState.EXPIRED] * 2
    check_invariants(home.events(turn))


def test_a_turn_that_was_cancelled_meanwhile_is_left_alone(home: Home) -> None:
    engine, turn = _asking(home, "ask")
    home.clock.wall_s += 600.0
    engine.cancel(A, turn, "uid 0")
    before = home.types(turn)
    assert engine._expiry.expire_due() == 0
    assert engine._decisions.expire(A, turn) == 0
    assert home.types(turn) == before


def test_a_question_that_cannot_be_put_into_words_is_asked_with_the_call_itself(
    home: Home,
) -> None:
    class Clumsy(ScriptedTool):
        def describe(self, call: object) -> str:
            raise KeyError("path")

    home.tool(Clumsy("ask", asks=True, step=Step()))
    _, turn = _asking(home, "ask")
    (asked,) = _pending(home)
    assert asked.question == 'ask {"question": "May I?"}'
    assert home.store.turn(turn).state is TurnState.PARKED


def test_a_decided_approval_never_expires() -> None:
    ids = ApprovalId("p"), A, TurnId("t"), CallId("c")
    asked = Approval(*ids, ApprovalState.PENDING, "?", 100.0, None)
    assert with_expiry(asked, 50.0).expires_at == 150.0
    assert [is_overdue(asked, 50.0, now) for now in (149.9, 150.0)] == [False, True]
    decided = Approval(*ids, ApprovalState.GRANTED, "?", 100.0, "me")
    assert with_expiry(decided, 50.0).expires_at is None
    assert not is_overdue(decided, 50.0, 1e9)
