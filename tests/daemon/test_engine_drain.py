"""A drain that meets turns in every state, and what the next generation makes of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import EventType, Role, TurnState
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, Step, named
from tests.waiting import wait_for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()


def _interrupted(state: str, cause: str = "restart") -> dict[str, str]:
    return {"cause": cause, "restart_id": "r-9", "state": state}


def test_an_idle_engine_is_drained_at_once(home: Home) -> None:
    engine = home.boot()
    Drained(engine).wait()
    assert engine.work_in_flight() == ()


def test_a_model_call_that_ends_in_time_is_kept_and_not_repeated(home: Home) -> None:
    home.tool(ScriptedTool("look"))
    home.model.script = named(["look"])
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    (work,) = engine.work_in_flight()
    assert (work.state, work.checkpoint, work.route) == ("running", 2, "api")
    assert work.resume_deadline == home.clock.wall_s + 600
    drained = Drained(engine)
    (running,) = engine.running()
    assert running.left_s is not None
    assert not drained.over
    home.model.gate.go.set()
    drained.wait()
    assert home.types(turn)[-2:] == ["model.completed", "turn.interrupted"]
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [_interrupted("drained")]
    (work,) = engine.work_in_flight()
    assert (work.state, work.checkpoint) == ("drained", 4)

    home.boot(cause="restart", is_open=False)
    home.await_completed(turn)
    assert home.model.seen == [("x /hold", 1), ("x /hold", 2)]
    assert "step.retry" not in home.types(turn)
    assert home.data(turn, EventType.RESTART) == [
        {"restart_id": "r-1", "trigger": "boot", "cause": "restart", "generation": 2}
    ]
    assert home.data(turn, EventType.TURN_RESUMED) == [
        {"generation": 2, "resumes": 1, "cause": "restart"}
    ]


def test_a_turn_that_needs_no_more_work_ends_in_the_drain(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    drained = Drained(engine)
    home.model.gate.go.set()
    drained.wait()
    home.await_completed(turn)


def test_a_model_call_is_cut_at_its_deadline_and_announced_as_repeated(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    Drained(engine, model_s=0.02).wait()
    assert home.types(turn)[-1] == "turn.interrupted"
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [_interrupted("cut")]
    assert home.store.turn(turn).state is TurnState.INTERRUPTED
    assert [w.state for w in engine.work_in_flight()] == ["cut"]

    home.model.gate.go.set()
    home.boot(cause="restart")
    home.await_completed(turn)
    assert home.data(turn, EventType.STEP_RETRY) == [{"step": 1, "attempt": 2, "reason": "restart"}]
    (reply,) = home.data(turn, EventType.MODEL_COMPLETED)
    assert reply["attempt"] == 2
    note = next(m for m in home.model.heard if m.role is Role.SYSTEM)
    assert "restart r-1" in note.text


def test_a_stop_that_overtakes_hastens_the_drain(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    drained = Drained(engine)
    engine.hasten(0.0, 0.0, float("inf"))
    drained.wait()
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [_interrupted("cut", "stop")]


def test_a_tool_that_ends_in_time_is_kept(home: Home) -> None:
    tool = home.tool(ScriptedTool("look", step=Step()))
    home.model.script = named(["look", "look"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    drained = Drained(engine)
    tool.step.go.set()
    drained.wait()
    assert home.types(turn)[-2:] == ["tool.finished", "turn.interrupted"]
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [_interrupted("drained")]
    home.boot(cause="restart")
    home.await_completed(turn)
    assert tool.ran == [f"{turn}-1-1", f"{turn}-1-2"]


def test_a_tool_is_ended_at_its_deadline_and_not_repeated(home: Home) -> None:
    tool = home.tool(ScriptedTool("look", step=Step()))
    home.model.script = named(["look"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    Drained(engine, tool_s=0.02).wait()
    assert home.data(turn, EventType.TOOL_FINISHED)[0]["status"] == "interrupted"
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [_interrupted("cut")]
    home.boot(cause="restart")
    home.await_completed(turn)
    assert len(tool.ran) == 1
    assert "step.retry" not in home.types(turn)
    assert home.model.heard[-2].text == "[interrupted] stopped"


@pytest.mark.parametrize("safe", [False, True])
def test_a_tool_that_outlasts_the_drain_is_unknown_or_issued_again(home: Home, safe: bool) -> None:
    tool = home.tool(ScriptedTool("look", safe, step=Step(obedient=False)))
    home.model.script = named(["look"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    Drained(engine, tool_s=0.0, all_s=0.02).wait()
    assert [w.state for w in engine.work_in_flight()] == ["cut"]
    engine.stop(0.0)

    again = home.tool(ScriptedTool("look", safe))
    home.boot(cause="restart")
    home.await_completed(turn)
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [
        {"cause": "restart", "restart_id": "r-1", "state": "cut"}
    ]
    if safe:
        assert again.ran == tool.ran
        assert [row["again"] for row in home.data(turn, EventType.TOOL_STARTED)] == [False, True]
    else:
        assert again.ran == []
        assert "tool.unknown" in home.types(turn)
        assert any("Outcome unknown" in m.text for m in home.model.heard)
    tool.step.go.set()
    before = home.types(turn)
    engine.stop(LONG_S)
    assert home.types(turn) == before, "the older generation is fenced"


def test_queued_turns_stay_for_the_next_generation_in_order(home: Home) -> None:
    home.workers = 1
    engine = home.boot()
    first = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    queued = home.send(engine, "b", "b")
    engine.close_gate()
    deferred = home.send(engine, "c", "c", deferred=True)
    Drained(engine, model_s=0.0).wait()
    states = {w.turn_id: w.state for w in engine.work_in_flight()}
    assert states == {first: "cut", queued: "deferred", deferred: "deferred"}
    engine.stop(LONG_S)

    home.model.gate.go.set()
    engine = home.boot(cause="restart", is_open=False)
    home.await_completed(first)
    assert home.store.turn(queued).state is TurnState.QUEUED
    engine.open()
    home.await_completed(queued, deferred)
    assert [text for text, _ in home.model.seen][-2:] == ["b", "c"]


def test_a_resumed_turn_that_no_worker_took_is_interrupted_again_without_cost(home: Home) -> None:
    home.workers = 2
    engine = home.boot()
    turns = [home.send(engine, name, f"{name} /hold") for name in "ab"]
    wait_for(lambda: len(home.model.seen) == 2, LONG_S, "two model calls")
    Drained(engine, model_s=0.0).wait()
    engine.stop(LONG_S)

    home.workers = 1
    engine = home.boot(cause="restart")
    wait_for(lambda: len(home.model.seen) == 3, LONG_S, "one model call")
    Drained(engine, model_s=0.0, cause="stop").wait()
    # The newest went first.
    assert [home.store.turn(turn).resumes for turn in turns] == [0, 1]
    assert home.data(turns[0], EventType.TURN_INTERRUPTED)[-1] == _interrupted("drained", "stop")
    assert home.data(turns[1], EventType.TURN_INTERRUPTED)[-1] == _interrupted("cut", "stop")
    engine.stop(LONG_S)

    home.model.gate.go.set()
    home.boot(cause="stop")
    home.await_completed(*turns)


def test_after_a_failed_restart_the_same_engine_goes_on(home: Home) -> None:
    tool = home.tool(ScriptedTool("slow", step=Step(obedient=False)))
    home.model.script = lambda text, step: ("slow",) if text == "tool" and step == 1 else ()
    engine = home.boot()
    cut = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    slow = home.send(engine, "b", "tool")
    tool.step.await_begin()
    engine.close_gate()
    waiting = home.send(engine, "c", "c", deferred=True)
    Drained(engine, model_s=0.0, tool_s=0.0, all_s=0.02).wait()

    home.model.gate.go.set()
    engine.start(1)
    home.warm_up(engine, cause="restart")
    home.await_completed(cut)
    assert "restart" not in home.types(cut), "nothing was restarted"
    engine.open()
    home.await_completed(waiting)
    tool.step.go.set()
    home.await_completed(slow)
    assert home.data(slow, EventType.TOOL_FINISHED)[0]["status"] == "ok"


def test_a_model_call_cut_by_a_drain_that_was_given_up_is_announced_as_repeated(home: Home) -> None:
    home.model.gate.obedient = False
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    Drained(engine, model_s=0.0, all_s=0.02).wait()
    engine.start(1)
    home.warm_up(engine, cause="restart")
    home.model.gate.obedient = True
    wait_for(lambda: "step.retry" in home.types(turn), LONG_S, "a retry")
    home.model.gate.go.set()
    home.await_completed(turn)
    assert home.data(turn, EventType.STEP_RETRY) == [{"step": 1, "attempt": 2, "reason": "restart"}]


def test_a_drain_ends_when_the_engine_stops(home: Home) -> None:
    home.model.gate.obedient = False
    engine = home.boot()
    home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    drained = Drained(engine)
    engine.stop(0.0)
    drained.wait()
    home.model.gate.go.set()
    engine.stop(LONG_S)
    assert not [t for t in threading.enumerate() if t.name.startswith(("turn-", "drain"))]
