"""The engine on a real store: turns, order, tools, text, a store that fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import (
    Delta,
    EventType,
    FinishReason,
    Role,
    SessionId,
    TurnState,
    Usage,
)
from netclawd.daemon.model_step import MOST_TOKENS
from netclawd.errors import ProviderBusyError, ProviderError
from tests.daemon.engines import (
    LONG_S,
    FullDisk,
    Home,
    ScriptedTool,
    Step,
    as_store,
    named,
)
from tests.waiting import wait_for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()


def test_a_turn_runs_from_admission_to_its_reply(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "hello")
    home.await_completed(turn)
    assert home.types(turn) == [
        "input.admitted",
        "turn.started",
        "model.completed",
        "reply.sent",
        "turn.completed",
    ]
    assert home.data(turn, EventType.REPLY_SENT) == [{"text": "re: hello", "receipt": "api"}]
    (entry,) = home.store.outbox()
    assert (entry.state, entry.text, entry.receipt) == ("sent", "re: hello", "api")
    assert home.store.turn(turn).state is TurnState.COMPLETED


def test_turns_of_a_session_run_one_after_the_other_in_order_of_admission(home: Home) -> None:
    engine = home.boot()
    turns = [home.send(engine, "a", f"{n}") for n in range(8)]
    home.await_completed(*turns)
    assert home.model.seen == [(f"{n}", 1) for n in range(8)]
    spans = [[e.seq for e in home.events(t)][1:] for t in turns]
    assert all(a[-1] < b[0] for a, b in itertools.pairwise(spans))


def test_the_model_reads_what_was_said_before(home: Home) -> None:
    engine = home.boot()
    home.await_completed(home.send(engine, "a", "one"))
    home.await_completed(home.send(engine, "a", "two"))
    heard = [(m.role, m.text) for m in home.model.heard]
    assert heard == [(Role.USER, "one"), (Role.ASSISTANT, "re: one"), (Role.USER, "two")]


def test_tokens_are_recorded_with_the_reply(home: Home) -> None:
    home.model.usage = Usage(12, 3)
    home.model.script = named(["clock"])
    home.tool(ScriptedTool("clock"))
    engine = home.boot()
    turn = home.send(engine, "a", "hello")
    home.await_completed(turn)
    counted = [data["usage"] for data in home.data(turn, EventType.MODEL_COMPLETED)]
    assert counted == [{"input_tokens": 12, "output_tokens": 3}] * 2
    assert home.store.turn(turn).usage == Usage(24, 6)
    assert home.store.session(SessionId("a")).usage == Usage(24, 6)


def test_a_server_that_counts_no_tokens_or_nonsense_harms_nobody(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "hello")
    home.await_completed(turn)
    assert "usage" not in home.data(turn, EventType.MODEL_COMPLETED)[0]
    home.model.usage = Usage(-5, 10**30)
    for _ in range(2):
        home.await_completed(home.send(engine, "a", "hello"))
    counted = home.store.session(SessionId("a")).usage
    assert (counted.input_tokens, counted.output_tokens) == (0, 2 * MOST_TOKENS)


@pytest.mark.parametrize("finish", [FinishReason.LENGTH, FinishReason.FILTERED])
def test_a_reply_that_the_model_or_its_server_ended_is_a_reply_and_says_so(
    home: Home, finish: FinishReason
) -> None:
    home.model.finish = finish
    engine = home.boot()
    turn = home.send(engine, "a", "hello")
    home.await_completed(turn)
    assert home.data(turn, EventType.MODEL_COMPLETED)[0]["finish"] == finish.value
    assert home.data(turn, EventType.REPLY_SENT)[0]["text"] == "re: hello"


def test_the_log_hears_once_that_the_model_fails_and_that_it_answers_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "netclawd.daemon.provider_state")
    engine = home.boot()
    for error in (ProviderError("A"), ProviderError("B"), ProviderBusyError("C"), None, None):
        home.model.error = error
        home.await_state(home.send(engine, "a", "go"), TurnState.FAILED, TurnState.COMPLETED)
        told = engine.provider()["error"]
        assert (told and told["what"]) == (error and error.what)
    said = [r.message for r in caplog.records if r.name == "netclawd.daemon.provider_state"]
    assert said == [
        "model provider fails: A",
        "model provider fails: C",
        "model provider answers again",
    ]


def test_a_long_queue_in_one_session_does_not_hold_up_another(tmp_path: Path) -> None:
    home = Home(tmp_path, workers=1)
    engine = home.boot(is_open=False)
    many = [home.send(engine, "a", f"a{n}") for n in range(5)]
    other = home.send(engine, "b", "b")
    engine.open()
    home.await_completed(other, *many)
    assert home.model.seen.index(("b", 1)) == 1
    home.close()


def test_nothing_queued_starts_while_the_gate_is_closed(home: Home) -> None:
    home.workers = 1
    engine = home.boot(is_open=False)
    turns = [home.send(engine, name, name) for name in "abc"]
    assert engine.counts() == {"running": 0, "queued": 0, "deferred": 3, "parked": 0}
    assert [w.state for w in engine.work_in_flight()] == ["deferred"] * 3
    engine.open()
    home.await_completed(*turns)
    assert [text for text, _ in home.model.seen] == ["a", "b", "c"]
    wait_for(lambda: not any(engine.counts().values()), LONG_S, "an idle engine")


def test_a_tool_runs_between_two_model_calls(home: Home) -> None:
    tool = home.tool(ScriptedTool("look"))
    home.model.script = named(["look", "look"])
    turn = home.send(home.boot(), "a", "go")
    home.await_completed(turn)
    assert tool.ran == [f"{turn}-1-1", f"{turn}-1-2"]
    started, _ = home.data(turn, EventType.TOOL_STARTED)
    assert started == {
        "step": 1,
        "call_id": f"{turn}-1-1",
        "name": "look",
        "arguments": {"question": "May I?"},
        "idempotent": False,
        "again": False,
    }
    assert [m.text for m in home.model.heard if m.role is Role.TOOL] == ["look done"] * 2
    assert home.data(turn, EventType.TURN_COMPLETED) == [{"steps": 2}]


def test_a_tool_that_fails_or_is_not_there_is_an_answer_to_the_model(home: Home) -> None:
    home.tool(ScriptedTool("broken", error=ValueError("secret")))
    home.model.script = named(["broken", "absent"])
    turn = home.send(home.boot(), "a", "go")
    home.await_completed(turn)
    absent, broken = home.data(turn, EventType.TOOL_FINISHED)
    assert (broken["status"], broken["text"]) == ("error", "The tool failed (ValueError).")
    assert absent["status"] == "error"
    assert absent["text"].startswith("There is no tool 'absent'")
    assert [row["name"] for row in home.data(turn, EventType.TOOL_STARTED)] == ["broken"]
    heard = [m.text for m in home.model.heard if m.role is Role.TOOL]
    assert heard == [f"[error] {absent['text']}", f"[error] {broken['text']}"]


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (
            ProviderError("It is away.", "Wait."),
            {"slug": "provider-failed", "reason": "It is away.", "remedy": "Wait."},
        ),
        (
            ValueError("secret"),
            {"slug": "internal-error", "reason": "The provider failed (ValueError)."},
        ),
    ],
)
def test_a_provider_that_fails_fails_its_turn_and_no_other(
    home: Home, error: Exception, data: dict[str, str]
) -> None:
    engine = home.boot()
    home.model.error = error
    failed = home.send(engine, "a", "one")
    home.await_state(failed, TurnState.FAILED)
    assert home.data(failed, EventType.TURN_FAILED) == [data]
    home.model.error = None
    home.await_completed(home.send(engine, "a", "two"))


class Listener:
    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.commits: list[tuple[SessionId, int]] = []

    def on_events(self, session_id: SessionId, last_seq: int) -> None:
        self.commits.append((session_id, last_seq))

    def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)


def test_a_watcher_hears_text_and_commits_and_a_joiner_gets_the_text_so_far(home: Home) -> None:
    engine = home.boot()
    listener = Listener()
    home.broadcast.watch(listener)
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    live = engine.live_text(SessionId("a"))
    assert live is not None
    assert (live.turn_id, live.step, live.attempt, live.offset, live.text) == (turn, 1, 1, 0, "re")
    (running,) = engine.running()
    assert (running.turn_id, running.what, running.left_s) == (turn, "model call", None)
    home.model.gate.go.set()
    home.await_completed(turn)
    text = ""
    for delta in listener.deltas:
        assert delta.offset == len(text)
        text += delta.text
    assert text == "re: x /hold"
    assert engine.live_text(SessionId("a")) is None
    wait_for(lambda: (SessionId("a"), 5) in listener.commits, LONG_S, "the last commit")
    home.broadcast.unwatch(listener)
    heard = len(listener.commits)
    home.await_completed(home.send(engine, "a", "again"))
    assert len(listener.commits) == heard


def test_what_a_tool_did_is_not_lost_while_the_disk_is_full(home: Home) -> None:
    disk = FullDisk(home)
    tool = home.tool(ScriptedTool("look", step=Step()))
    home.model.script = named(["look"])
    engine = home.boot(store=as_store(disk))
    turn = home.send(engine, "a", "go")
    tool.step.await_begin()
    disk.full.set()
    tool.step.go.set()
    wait_for(lambda: disk.refused > 1, LONG_S, "two refused writes")
    assert home.types(turn)[-1] == "tool.started"
    disk.full.clear()
    home.await_completed(turn)
    assert len(tool.ran) == 1
    assert disk.refused < 5, "the retries pause"


def test_an_engine_stops_while_the_disk_is_full(home: Home) -> None:
    disk = FullDisk(home)
    engine = home.boot(store=as_store(disk))
    disk.full.set()
    turn = home.send(engine, "a", "go")
    wait_for(lambda: disk.refused > 0, LONG_S, "a refused write")
    engine.stop(LONG_S)
    assert not [t for t in threading.enumerate() if t.name.startswith("turn-")]
    assert home.store.turn(turn).state is TurnState.QUEUED


def test_a_stopped_engine_leaves_no_thread_and_the_turn_to_the_next_start(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "x /hold")
    home.model.gate.await_begin()
    engine.stop(LONG_S)
    assert not [t for t in threading.enumerate() if t.name.startswith("turn-")]
    assert home.store.turn(turn).state is TurnState.RUNNING
    home.model.gate.go.set()
    home.boot()
    home.await_completed(turn)


def test_a_model_that_calls_tools_for_ever_is_ended(home: Home) -> None:
    tool = home.tool(ScriptedTool("again"))
    home.model.script = lambda _text, _step: ("again",)
    home.step_limit = 3
    turn = home.send(home.boot(), "a", "go")
    home.await_state(turn, TurnState.FAILED)
    (failed,) = home.data(turn, EventType.TURN_FAILED)
    assert failed["slug"] == "step-limit"
    assert "3 model calls" in failed["reason"]
    assert len(tool.ran) == len(home.model.seen) == 3
