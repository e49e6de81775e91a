"""Calls of one reply that run beside each other, and what stops them in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import EventType, Role, SessionId, TurnId, TurnState
from netclawd.core.settings import Policy
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.engine import Engine
from netclawd.daemon.tool_step import MOST_AT_ONCE
from netclawd.errors import StoreError
from tests.daemon.engines import (
    LONG_S,
    SECRET,
    Drained,
    FullDisk,
    Home,
    ScriptedTool,
    Step,
    as_store,
    named,
)
from tests.waiting import wait_for

A = SessionId("a")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, workers=1)
    yield home
    home.close()


def _begun(home: Home, *tools: ScriptedTool) -> tuple[Engine, TurnId]:
    """A turn all of whose calls are under way."""
    home.model.script = named([home.tool(tool).name for tool in tools])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    for tool in tools:
        tool.step.await_begin()
    return engine, turn


def _slow(name: str, *, safe: bool = False, obedient: bool = True) -> ScriptedTool:
    return ScriptedTool(name, safe, step=Step(obedient=obedient))


def _status(home: Home, turn: TurnId) -> dict[str, str]:
    return {row["name"]: row["status"] for row in home.data(turn, EventType.TOOL_FINISHED)}


def test_calls_of_a_reply_run_beside_each_other_and_each_end_is_kept_when_it_comes(
    home: Home,
) -> None:
    one, two, three = (_slow(name) for name in ("one", "two", "three"))
    engine, turn = _begun(home, one, two, three)
    (running,) = engine.running()
    assert running.what == "tool one, two, three"
    two.step.go.set()
    wait_for(lambda: _status(home, turn) == {"two": "ok"}, LONG_S, "the end of the second")
    one.step.go.set()
    three.step.go.set()
    home.await_completed(turn)
    heard = [m.call_id for m in home.model.heard if m.role is Role.TOOL]
    assert heard[0] == f"{turn}-1-2"
    assert sorted(str(call) for call in heard) == [f"{turn}-1-{n}" for n in (1, 2, 3)]
    wait_for(lambda: not engine.running(), LONG_S, "an idle engine")
    assert not [t for t in threading.enumerate() if t.name.startswith("tool-")]


def test_no_more_than_eight_run_at_a_time(home: Home) -> None:
    tool = _slow("look")
    home.model.script = named([home.tool(tool).name] * 11)
    turn = home.send(home.boot(), "a", "go")
    wait_for(lambda: len(tool.ran) == MOST_AT_ONCE, LONG_S, "eight calls")
    assert len(home.data(turn, EventType.TOOL_STARTED)) == MOST_AT_ONCE == 8
    tool.step.go.set()
    home.await_completed(turn)
    assert len(set(tool.ran)) == len(tool.ran) == 11


def test_a_drain_lets_no_further_call_begin_and_keeps_what_ends_in_time(home: Home) -> None:
    tool = _slow("look")
    home.model.script = named([home.tool(tool).name] * 11)
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    wait_for(lambda: len(tool.ran) == 8, LONG_S, "eight calls")
    drained = Drained(engine)
    tool.step.go.set()
    drained.wait()
    assert len(tool.ran) == 8
    assert home.data(turn, EventType.TURN_INTERRUPTED)[0]["state"] == "drained"
    home.boot(cause="restart")
    home.await_completed(turn)
    assert len(set(tool.ran)) == len(tool.ran) == 11, "finished siblings are not repeated"
    assert "step.retry" not in home.types(turn)


def test_a_batch_is_cancelled_as_a_whole_at_the_tool_deadline(home: Home) -> None:
    one, two, quick = _slow("one"), _slow("two"), ScriptedTool("quick")
    engine, turn = _begun(home, one, quick, two)
    wait_for(lambda: "quick" in _status(home, turn), LONG_S, "the quick one")
    Drained(engine, tool_s=0.02).wait()
    assert _status(home, turn) == {"quick": "ok", "one": "interrupted", "two": "interrupted"}
    assert home.data(turn, EventType.TURN_INTERRUPTED)[0]["state"] == "cut"
    home.boot(cause="restart")
    home.await_completed(turn)
    assert [len(tool.ran) for tool in (one, two, quick)] == [1, 1, 1]
    assert "step.retry" not in home.types(turn), "no model call was cut"
    told = [m.text for m in home.model.heard if m.role is Role.TOOL]
    assert sorted(told) == ["[interrupted] stopped", "[interrupted] stopped", "quick done"]


def test_of_calls_that_outlast_the_drain_each_is_unknown_or_issued_again(home: Home) -> None:
    once, safe = _slow("once", obedient=False), _slow("safe", safe=True, obedient=False)
    quick = ScriptedTool("quick", safe=True)
    engine, turn = _begun(home, once, safe, quick)
    wait_for(lambda: "quick" in _status(home, turn), LONG_S, "the quick one")
    Drained(engine, tool_s=0.0, all_s=0.02).wait()
    engine.stop(0.0)
    again = home.tool(ScriptedTool("safe", safe=True))
    home.tool(ScriptedTool("once"))
    home.boot(cause="restart")
    home.await_completed(turn)
    assert (again.ran, again.contexts[0].again) == (safe.ran, True)
    assert (len(once.ran), len(quick.ran)) == (1, 1)
    assert home.tools["once"].ran == []
    assert [row["name"] for row in home.data(turn, EventType.TOOL_UNKNOWN)] == ["once"]
    before = home.types(turn)
    for tool in (once, safe):
        tool.step.go.set()
    engine.stop(LONG_S)
    assert home.types(turn) == before, "the older generation is fenced"


def test_a_park_in_the_middle_keeps_what_runs_and_begins_nothing(home: Home) -> None:
    tool = _slow("look")
    home.model.script = named([home.tool(tool).name] * 10)
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    wait_for(lambda: len(tool.ran) == 8, LONG_S, "eight calls")
    engine.park(A, turn, "uid 0", LONG_S)
    tool.step.go.set()
    home.await_state(turn, TurnState.PARKED)
    assert len(tool.ran) == 8
    check_invariants(home.events(turn))
    engine.resume(A, turn, "uid 0")
    home.await_completed(turn)
    assert len(set(tool.ran)) == len(tool.ran) == 10


def test_a_cancel_in_the_middle_ends_all_of_it(home: Home) -> None:
    one, deaf, quick = _slow("one"), _slow("deaf", obedient=False), ScriptedTool("quick")
    engine, turn = _begun(home, one, deaf, quick)
    wait_for(lambda: "quick" in _status(home, turn), LONG_S, "the quick one")
    assert engine.cancel(A, turn, "api").state is TurnState.CANCELLED
    assert _status(home, turn) == {"quick": "ok", "one": "interrupted"}
    assert [row["name"] for row in home.data(turn, EventType.TOOL_UNKNOWN)] == ["deaf"]
    check_invariants(home.events(turn))
    behind = home.send(engine, "a", "behind")
    home.model.script = named([])
    deaf.step.go.set()
    home.await_completed(behind)
    assert home.types(turn)[-1] == "turn.cancelled", "what ends late is not written"


def test_no_end_of_a_batch_is_lost_while_the_disk_is_full(home: Home) -> None:
    disk = FullDisk(home)
    one, two = _slow("one"), _slow("two")
    home.model.script = named([home.tool(tool).name for tool in (one, two)])
    turn = home.send(home.boot(store=as_store(disk)), "a", "go")
    one.step.await_begin()
    two.step.await_begin()
    disk.full.set()
    one.step.go.set()
    two.step.go.set()
    wait_for(lambda: disk.refused > 1, LONG_S, "refused writes")
    disk.full.clear()
    home.await_completed(turn)
    assert _status(home, turn) == {"one": "ok", "two": "ok"}
    assert len(one.ran) == len(two.ran) == 1


def test_a_batch_of_a_superseded_engine_ends_and_writes_nothing(home: Home) -> None:
    one, two = _slow("one", obedient=False), _slow("two")
    old, turn = _begun(home, one, two)
    home.tool(ScriptedTool("one"))
    home.tool(ScriptedTool("two"))
    home.boot(store=home.second_store())
    home.await_completed(turn)
    before = home.types(turn)
    one.step.go.set()  # Its end is refused, which ends the other, too.
    wait_for(lambda: not old.running(), LONG_S / 3, "the old worker to let go")
    assert home.types(turn) == before


def test_where_no_thread_can_be_had_the_calls_are_made_one_after_the_other(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = home.tool(ScriptedTool("look"))
    home.model.script = named(["look"] * 3)
    engine = home.boot()

    def no_thread(_name: str, _target: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("tests.daemon.engines.spawn", no_thread)
    object.__setattr__(engine._parts, "spawn", no_thread)
    turn = home.send(engine, "a", "go")
    home.await_completed(turn)
    assert len(tool.ran) == 3


# -- what becomes an event ---------------------------------------------------------------------------


def test_no_secret_reaches_an_event_or_the_model(home: Home) -> None:
    home.tool(ScriptedTool("says", says=f"the key is {SECRET}."))
    home.tool(ScriptedTool("asks", asks=True, asked=f"echo {SECRET}"))
    home.model.script = named(["says", "asks"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    home.await_state(turn, TurnState.PARKED)
    (asked,) = home.store.approvals(pending_only=True)
    assert asked.question == "echo [redacted]"
    engine.decide_approval(asked.id, True, "uid 0")
    home.await_completed(turn)
    assert "the key is [redacted]." in [m.text for m in home.model.heard]
    assert SECRET not in repr(home.events(turn))
    home.model.error = StoreError(f"no {SECRET} here", f"Look for {SECRET}.")
    failed = home.send(engine, "a", "again")
    home.await_state(failed, TurnState.FAILED)
    (told,) = home.data(failed, EventType.TURN_FAILED)
    assert (told["reason"], told["remedy"]) == ("no [redacted] here", "Look for [redacted].")
    assert SECRET not in repr(engine.provider())


def test_a_tool_that_policy_denies_is_not_run_even_after_a_grant(home: Home) -> None:
    home.tool(ScriptedTool("ask", asks=True))
    home.model.script = named(["ask"])
    engine = home.boot()
    turn = home.send(engine, "a", "go")
    home.await_state(turn, TurnState.PARKED)
    (asked,) = home.store.approvals(pending_only=True)
    Drained(engine).wait()
    engine.decide_approval(asked.id, True, "uid 0")
    engine.stop(LONG_S)
    denied = home.tool(ScriptedTool("ask", policy=Policy.DENY))
    home.boot(cause="restart")
    home.await_completed(turn)
    assert denied.ran == []
    assert _status(home, turn) == {"ask": "denied"}
    assert "policy" in home.model.heard[-1].text
    assert "tool.started" not in home.types(turn)


def test_a_call_that_policy_denies_by_now_is_not_issued_again(home: Home) -> None:
    before = _slow("safe", safe=True, obedient=False)
    engine, turn = _begun(home, before)
    engine.stop(0.0)
    denied = home.tool(ScriptedTool("safe", safe=True, policy=Policy.DENY))
    home.boot()
    home.await_completed(turn)
    assert denied.ran == []
    assert "tool.unknown" in home.types(turn)
    before.step.go.set()


def test_a_call_that_can_be_made_only_now_is_not_made_without_being_asked_for(home: Home) -> None:
    class Fickle(ScriptedTool):
        def idempotent(self, call: object) -> bool:  # Asked after the question, before the run.
            self.refuses = None
            return False

    tool = home.tool(Fickle("ask", asks=True, refuses="It is not there."))
    home.model.script = named(["ask"])
    turn = home.send(home.boot(), "a", "go")
    home.await_completed(turn)
    assert tool.ran == []
    (told,) = home.data(turn, EventType.TOOL_FINISHED)
    assert (told["status"], "asked first" in told["text"]) == ("error", True)
