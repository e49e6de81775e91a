"""Starts after a death at every commit, budgets, fencing, and a thousand sessions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netclawd.core.manifest import Manifest, Work, WorkState
from netclawd.core.session import (
    Approval,
    Change,
    EventType,
    NewEvent,
    ParkReason,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.engine import Engine
from netclawd.errors import StoreClosedError
from tests.daemon.engines import LONG_S, Drained, Home, ScriptedTool, Step, Wrapped, as_store, named
from tests.waiting import wait_for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()


class Mortal(Wrapped):
    """A store that makes so many more writes for turns, and then none: the process is dead."""

    def __init__(self, home: Home, lives: int) -> None:
        super().__init__(home.store)
        self.lives = lives
        self.dead = False

    def before_write(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            self.dead = True
            raise StoreClosedError("The process is dead.")


def _play(home: Home, lives: int, turn: TurnId | None) -> TurnId:
    """Run one generation until the turn has ended or the process has died."""
    store = Mortal(home, lives)
    try:
        engine = home.boot(store=as_store(store))
    except StoreClosedError:
        assert turn is not None
        return turn
    if turn is None:
        turn = home.send(engine, "a", "go")
    played = turn
    wait_for(
        lambda: store.dead or home.store.turn(played).state.ended, LONG_S, "an end of either kind"
    )
    engine.stop(LONG_S)
    return played


@pytest.mark.parametrize("again", [None, 1, 3])
def test_a_turn_survives_a_death_at_every_commit(tmp_path: Path, again: int | None) -> None:
    for lives in itertools.count(0):
        folder = tmp_path / f"{lives}"
        folder.mkdir()
        home = Home(folder, workers=1)
        once, safe = home.tool(ScriptedTool("once")), home.tool(ScriptedTool("safe", safe=True))
        home.model.script = named(["once", "safe"])
        turn = _play(home, lives, None)
        whole = home.store.turn(turn).state.ended
        if again is not None and not whole:
            _play(home, again, turn)
        home.boot()
        home.await_completed(turn)
        home.close()
        # At most the call that was under way is repeated, and an unsafe one never.
        assert len(once.ran) <= 1
        assert len(safe.ran) <= (3 if again else 2)
        deaths = 2 if again else 1
        assert all(n <= 1 + deaths for n in Counter(home.model.seen).values())
        if whole:
            return
    raise AssertionError("the turn never ends")


def test_a_crash_is_told_to_the_session_and_the_step_repeated(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    engine.stop(LONG_S)
    home.model.gate.go.set()
    home.boot()
    home.await_completed(turn)
    assert home.types(turn)[2:6] == [
        "turn.interrupted",
        "restart",
        "turn.resumed",
        "step.retry",
    ]
    assert home.data(turn, EventType.TURN_INTERRUPTED) == [
        {"cause": "crash", "restart_id": "r-1", "state": "cut"}
    ]
    assert home.data(turn, EventType.STEP_RETRY)[0]["reason"] == "crash"


def _crash_times(home: Home, count: int) -> TurnId:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    for n in range(count):
        wait_for(lambda n=n: len(home.model.seen) > n, LONG_S, "a model call")  # type: ignore[misc]
        engine.stop(LONG_S)
        engine = home.boot()
    return turn


def test_the_third_resume_is_the_last_one(home: Home) -> None:
    turn = _crash_times(home, 3)
    wait_for(lambda: len(home.model.seen) == 4, LONG_S, "the last model call")
    assert home.store.turn(turn).resumes == 3
    behind = home.send(None, "a", "behind")
    engine = home.boot()
    parked = home.await_state(turn, TurnState.PARKED)
    assert parked.park_reason is ParkReason.RESUME_LIMIT
    assert home.data(turn, EventType.TURN_PARKED) == [{"reason": "resume-limit"}]
    check_invariants(home.events(turn))
    wait_for(lambda: engine.counts()["parked"] == 1, LONG_S, "the parked turn to be counted")
    # A person decides what becomes of it; then the session goes on.
    engine.cancel(SessionId("a"), turn, "uid 0")
    home.await_completed(behind)


def _crash_while_asked(home: Home, engine: Engine, bad: TurnId) -> Engine:
    """Let every turn that may run come to its model call, then end the daemon and start it again.

    What may run before a new turn is taken before it; so once that has ended, nothing else comes.
    """
    wait_for(lambda: bad in {each.turn_id for each in engine.running()}, LONG_S, "the bad turn")
    home.await_completed(home.send(engine, "new", "hello"))
    engine.stop(LONG_S)
    return home.boot()


def test_a_turn_that_ends_the_daemon_again_and_again_parks_no_other(home: Home) -> None:
    home.workers = 4
    engine = home.boot()
    others = [home.send(engine, name, f"{name} /hold") for name in ("a", "b")]
    wait_for(lambda: len(home.model.seen) == 2, LONG_S, "two model calls")
    bad = home.send(engine, "c", "bad /hold")
    for crash in range(4):
        assert home.store.turn(bad).resumes <= crash
        engine = _crash_while_asked(home, engine, bad)
    assert home.await_state(bad, TurnState.PARKED).park_reason is ParkReason.RESUME_LIMIT
    assert [home.store.turn(turn).resumes for turn in others] == [2, 2]
    home.model.gate.go.set()
    home.await_completed(*others)


def test_turns_that_were_restarted_often_are_not_held_back(home: Home) -> None:
    home.workers = 3
    engine = home.boot()
    turns = [home.send(engine, name, f"{name} /hold") for name in ("a", "b")]
    for n in range(1, 4):
        wait_for(lambda n=n: len(home.model.seen) == 2 * n, LONG_S, "two model calls")  # type: ignore[misc]
        Drained(engine, model_s=0.0).wait()
        engine.stop(LONG_S)
        engine = home.boot(cause="restart")
    wait_for(lambda: len(home.model.seen) == 8, LONG_S, "both at the same time")
    assert {home.store.turn(turn).resumes for turn in turns} == {3}


def test_a_turn_that_was_interrupted_long_ago_is_parked(home: Home) -> None:
    turn = _crash_times(home, 1)
    home.clock.wall_s += 601
    engine = home.engine()
    warm_up = home.warm_up(engine)
    assert (warm_up.resumed, warm_up.parked) == (0, 1)
    assert home.store.turn(turn).park_reason is ParkReason.RESUME_DEADLINE
    warm_up = home.warm_up(home.engine())
    assert (warm_up.resumed, warm_up.parked, warm_up.waiting) == (0, 0, 1)


def test_a_superseded_engine_writes_nothing_more_and_ends_quietly(home: Home) -> None:
    home.model.gate.obedient = False
    old = home.boot()
    turn = home.send(old, "a", "x /hold")
    home.model.gate.await_begin()
    first, home.model.gate = home.model.gate, Step()
    new = home.boot(store=home.second_store())
    home.model.gate.await_begin()
    before = home.types(turn)
    first.go.set()
    wait_for(lambda: not old.running(), LONG_S, "the old worker to let go")
    assert home.types(turn) == before
    home.model.gate.go.set()
    home.await_completed(turn)
    assert len(home.data(turn, EventType.MODEL_COMPLETED)) == 1
    wait_for(lambda: not new.running(), LONG_S, "an idle engine")


def _crowd(home: Home, count: int) -> list[TurnId]:
    """Leave behind as many turns that a process died over."""
    generation = home.store.begin_generation(home.clock.wall(), None)
    turns = [home.send(None, f"s{n}", f"{n} /hold") for n in range(count)]
    leases = home.store.lease_all(turns, generation)
    started = (NewEvent(EventType.TURN_STARTED, {"generation": generation}),)
    home.store.commit_all(
        [Change(lease, started, state=TurnState.RUNNING) for lease in leases], home.clock.wall()
    )
    return turns


def test_a_thousand_interrupted_sessions_are_judged_in_a_few_transactions(home: Home) -> None:
    turns = _crowd(home, 1000)
    engine = home.engine()
    before = home.store.counters()["commits"]
    warm_up = home.warm_up(engine)
    commits = home.store.counters()["commits"] - before
    assert warm_up.resumed == 1000
    # A lease and a checkpoint for each of 5 batches; the workers' own are among them.
    assert commits <= 20
    wait_for(lambda: len(home.model.seen) == 2, LONG_S, "two turns that run")
    assert [home.store.turn(turn).resumes for turn in turns] == [0] * 998 + [1, 1]
    assert {text for text, _ in home.model.seen} == {"999 /hold", "998 /hold"}


def test_the_manifest_says_what_goes_first(home: Home) -> None:
    home.workers = 1
    home.model.gate.go.set()
    turns = _crowd(home, 4)
    rows = tuple(Work(f"s{n}", turns[n], 2, WorkState.CUT, "api", None) for n in (1, 3))
    manifest = Manifest(1, "r-1", "reload", "hup", 0.0, "", "", "0", {}, rows)
    home.boot(manifest=manifest, cause="restart")
    home.await_completed(*turns)
    assert [text for text, _ in home.model.seen] == ["1 /hold", "3 /hold", "2 /hold", "0 /hold"]


class Meddled(Wrapped):
    """Somebody decides about a turn after the warm-up has read it, before its batch is written."""

    def __init__(self, home: Home) -> None:
        super().__init__(home.store)
        self.meddle: Callable[[], object] = lambda: None

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]:
        self.meddle()
        return self.wrapped.approvals(pending_only)


def test_a_turn_cancelled_during_the_warm_up_does_not_hold_up_the_others(home: Home) -> None:
    turns = _crowd(home, 3)
    home.model.gate.go.set()
    store = Meddled(home)
    engine = home.engine(as_store(store))
    store.meddle = lambda: engine.cancel(SessionId("s1"), turns[1], "api")
    home.warm_up(engine)
    home.await_completed(turns[0], turns[2])
    assert home.store.turn(turns[1]).state is TurnState.CANCELLED


@pytest.mark.parametrize("again", [False, True])
def test_a_turn_parked_during_the_warm_up_stays_parked(home: Home, again: bool) -> None:
    turns = _crowd(home, 3)
    home.model.gate.go.set()
    store = Meddled(home)
    engine = home.engine(as_store(store))

    def meddle() -> None:
        assert engine.park(SessionId("s1"), None, "uid 0", LONG_S).state is TurnState.PARKED
        if again:
            engine.resume(SessionId("s1"), None, "uid 0")

    store.meddle = meddle
    home.warm_up(engine)
    home.await_completed(turns[0], turns[2])
    if again:
        home.await_completed(turns[1])
        assert [row["cause"] for row in home.data(turns[1], EventType.TURN_RESUMED)] == ["request"]
        return
    assert home.types(turns[1])[-1] == "turn.parked"
    assert home.data(turns[1], EventType.TURN_PARKED)[0]["state"] == "cut"
    wait_for(lambda: engine.counts()["parked"] == 1, LONG_S, "the parked turn to be counted")
