"""What the turns of a channel's session put into its outbox: each comes to something that people read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core import conversations
from netclawd.core.outgoing import OutgoingKind, Received
from netclawd.core.session import (
    AdmitInput,
    EventType,
    InputId,
    OutboxState,
    ParkReason,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.engine import Engine
from netclawd.errors import ProviderError
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, named

A = SessionId("a")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, workers=1)
    home.tool(ScriptedTool("ask", asks=True))
    yield home
    home.close()


def say(home: Home, engine: Engine, text: str) -> TurnId:
    """Say something in the one conversation."""
    turn_id = TurnId(home.ids.new("t"))
    new = AdmitInput(
        A, InputId(home.ids.new("i")), turn_id, text, f"m-{turn_id}", False, {"user": "U1"}
    )
    home.store.outgoing.receive(Received("slack", f"E-{turn_id}", "T/C/1", new), home.clock.wall())
    engine.submit(turn_id, A)
    return turn_id


def out(home: Home) -> list[tuple[OutgoingKind, OutboxState, str]]:
    return [(m.kind, m.state, m.text) for m in home.store.outgoing.messages((), 100)]


def reply(text: str) -> tuple[OutgoingKind, OutboxState, str]:
    return (OutgoingKind.REPLY, OutboxState.PENDING, text)


def check(home: Home, turn_id: TurnId) -> None:
    check_invariants(home.events(turn_id), home.store.turn(turn_id).channel)


def test_a_turn_completes_once_its_reply_is_in_the_outbox(home: Home) -> None:
    turn = say(home, home.boot(), "hello")
    home.await_state(turn, TurnState.COMPLETED)
    assert out(home) == [reply("re: hello")]
    assert "reply.sent" not in home.types(turn)
    check(home, turn)


def test_a_turn_that_fails_says_why(home: Home) -> None:
    home.model.error = ProviderError("The model server has no such model.", "Name another.")
    turn = say(home, home.boot(), "hello")
    home.await_state(turn, TurnState.FAILED)
    ((kind, state, text),) = out(home)
    assert (kind, state) == (OutgoingKind.REPLY, OutboxState.PENDING)
    assert text.startswith("I couldn't answer: The model server has no such model.")
    assert str(home.data(turn, EventType.TURN_FAILED)[0]["reason"]) in text


@pytest.mark.parametrize("held", [True, False])
def test_a_turn_that_is_cancelled_says_so(home: Home, held: bool) -> None:
    home.model.script = named(["ask"])
    engine = home.boot()
    turn = say(home, engine, "/hold" if held else "hello")
    if held:
        home.model.gate.await_begin()
    else:
        home.await_state(turn, TurnState.PARKED)
    engine.cancel(A, turn, "uid 1000")
    home.await_state(turn, TurnState.CANCELLED)
    assert reply(conversations.CANCELLED) in out(home)
    assert not home.store.approvals(pending_only=True)
    asked = [state for kind, state, _ in out(home) if kind is OutgoingKind.QUESTION]
    assert asked == ([] if held else [OutboxState.DROPPED])


def test_what_a_turn_had_begun_to_say_is_whole_above_its_question(home: Home) -> None:
    home.model.script = named(["ask"])
    engine = home.boot()
    turn = say(home, engine, "/hold")
    home.model.gate.await_begin()
    shown = home.store.outgoing.stream(turn, home.clock.wall())
    assert shown is not None
    home.store.outgoing.record(shown, ("1.1",), home.clock.wall())
    home.model.gate.go.set()
    home.await_state(turn, TurnState.PARKED)
    (asked,) = home.store.approvals(pending_only=True)
    engine.decide_approval(asked.id, True, "uid 1000")
    home.await_state(turn, TurnState.COMPLETED)
    said, question, answer = home.store.outgoing.messages((), 9)
    assert (said.kind, said.text, said.receipts) == (OutgoingKind.SAID, "re: /hold", ("1.1",))
    assert question.kind is OutgoingKind.QUESTION
    assert (answer.kind, answer.id, answer.receipts) == (OutgoingKind.REPLY, f"{turn}:2", ())
    check(home, turn)


def test_a_turn_that_an_operator_parks_says_so_and_answers_later(home: Home) -> None:
    engine = home.boot()
    turn = say(home, engine, "/hold")
    home.model.gate.await_begin()
    engine.park(A, turn, "uid 1000", LONG_S)
    home.await_state(turn, TurnState.PARKED)
    notice = (
        OutgoingKind.NOTICE,
        OutboxState.PENDING,
        conversations.PARKED[ParkReason.REQUEST],
    )
    assert out(home) == [notice]
    home.model.gate.go.set()
    engine.resume(A, turn, "uid 1000")
    home.await_state(turn, TurnState.COMPLETED)
    assert out(home) == [notice, reply("re: /hold")]
    check(home, turn)


def test_a_turn_that_was_interrupted_too_long_ago_says_so(home: Home) -> None:
    engine = home.boot()
    turn = say(home, engine, "/hold")
    home.model.gate.await_begin()
    Drained(engine, model_s=0.0).wait()
    engine.stop(LONG_S)
    assert out(home) == [], "a restart is not told by the turn"
    home.clock.wall_s += 601
    home.boot(cause="restart")
    assert home.await_state(turn, TurnState.PARKED).park_reason is ParkReason.RESUME_DEADLINE
    text = conversations.PARKED[ParkReason.RESUME_DEADLINE]
    assert out(home) == [(OutgoingKind.NOTICE, OutboxState.PENDING, text)]
