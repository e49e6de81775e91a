"""Real providers' model calls, tools and questions that are under way at a SIGKILL, a restart and a stop.

One daemon has a session at each point of a table, and all are interrupted at once. Afterwards: each step
was asked for twice at most, each reply is kept once, no command ran twice, and what the model was sent
last is what the store has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.counterparts import Call, Ending, Reply, Silent, Status
from tests.process.granting import until_granted
from tests.process.harness import PROVE, Daemon, full_or
from tests.process.models import KINDS, Model, Scene, check_model_turns, seen
from tests.process.proposing import ALLOWED
from tests.process.talk import (
    SessionEvent,
    accepted,
    check_ledger,
    events,
    ledger,
    new_session,
    of_type,
    types,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

WHOLE = Reply("one two three")
STALLED = Reply("one two three", after=1, ending=Ending.STALL)
SHELL = Call("shell", {"command": "echo once >> effect; sleep 60; echo twice >> effect"})
QUICK = Call("shell", {"command": "echo once >> effect"})
KEYED = Call("ledger", {"seconds": 1.5, "idempotent": True})
LASTING = Call("ledger", {"seconds": 60, "idempotent": True})
CLOCK = Call("clock", {})
CHANGE = Call("config_propose", {"changes": {"agent.provider": "there"}, "reason": "a test"})

#: The points of a model call, as the server has answered it so far, in the first step and in a later one.
STREAMS = {
    "asked": Silent(),
    "head": Reply("one two three", first_token_s=3600.0),
    "first": STALLED,
    "last": Reply("one two three", ending=Ending.STALL),
}
SCENES = (
    *(Scene(f"1-{name}", (WHOLE,), 1, held) for name, held in STREAMS.items()),
    *(
        Scene(f"2-{name}", (Reply("I look.", (CLOCK,)), WHOLE), 2, held)
        for name, held in STREAMS.items()
    ),
    Scene("summary", (WHOLE,), 0, STALLED),
    Scene("page", (Reply("I see.", usage=(8_000, 1)),)),
    Scene("running", (Reply("I run.", (SHELL, KEYED, CLOCK)), WHOLE)),
    Scene("lasting", (Reply("I run.", (SHELL, LASTING, CLOCK)), WHOLE)),
    Scene("failing", (Reply("I run.", (QUICK,)), Status(401))),
    Scene("again", (WHOLE,)),
    Scene("changing", (Reply("I change it.", (CHANGE, CLOCK)), WHOLE)),
    Scene("waiting", (Reply("May I?", (QUICK,)), WHOLE)),
)
PAGE = " ".join(["word"] * 3_500)


def cases(hows: Sequence[str]) -> list[Any]:
    """Return every kind with each way, or the kinds in turns."""
    if PROVE:
        return [(kind, how) for kind in KINDS for how in hows]
    return [(KINDS[n % 2], how) for n, how in enumerate(hows)]


@pytest.fixture(params=KINDS if PROVE else KINDS[1:])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with Model(request.param, SCENES) as model:
        yield model


def started(make_daemon: Make, model: Model, **tables: Mapping[str, Any]) -> Daemon:
    drain = {"model_timeout_s": 0.3, "model_timeout_at_stop_s": 0.3, "tool_timeout_s": 0.3}
    settings = model.settings(context_tokens=12_000, max_output_tokens=500)
    sessions = {"workers": len(SCENES), **tables.pop("sessions", {})}
    more = {"drain": drain, "sessions": sessions, **tables}
    return make_daemon(tables={**settings, **more}).start()


def held(model: Model, scene: Scene) -> bool:
    """Whether the scene's model call is where it is to be interrupted."""
    assert scene.held_step is not None
    rows = model.asked.get((scene.name, scene.held_step), [])
    return bool(rows) and (isinstance(scene.held, Silent) or rows[0].begun_at is not None)


def effects(daemon: Daemon, session: str) -> list[str]:
    path = Path(daemon.home / "state" / "workspaces" / session / "effect")
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize(("model", "how"), cases(("kill", "restart", "stop")), indirect=["model"])
def test_whatever_is_under_way_is_made_once_more_or_never_again(
    make_daemon: Make, model: Model, how: str
) -> None:
    daemon = started(make_daemon, model)
    streams = [scene for scene in SCENES if scene.held_step]
    calls = "running" if how == "kill" else "lasting"
    names = [*(scene.name for scene in streams), calls, "waiting", "summary"]
    sessions = {name: new_session(daemon) for name in names}
    running, waiting, pages = (sessions[name] for name in names[-3:])
    accepted(daemon, pages, f"page {PAGE}")
    for scene in streams:
        accepted(daemon, sessions[scene.name], scene.name)
    wait_event(daemon, pages, "turn.completed")
    accepted(daemon, pages, f"summary {PAGE}")
    wait_for(
        lambda: all(held(model, scene) for scene in SCENES if scene.held_step is not None),
        10.0,
        lambda: f"the calls to be held; there are {sorted(model.asked)}",
    )
    accepted(daemon, running, calls)
    wait_for(until_granted(daemon), 10.0, "the question about the command")
    accepted(daemon, waiting, "waiting")
    wait_event(daemon, waiting, "approval.requested")
    wait_event(daemon, running, "tool.started", count=3)
    wait_for(lambda: effects(daemon, running), 10.0, "the command to have had its effect")

    daemon.interrupt(how)
    wait_for(until_granted(daemon), 10.0, "the question to be there still")
    found = wait_all_ended(daemon, list(sessions.values()))
    for name, session in sessions.items():
        check_model_turns(model, name, found[session])
    for scene in streams:
        check_stream(model, scene, found[sessions[scene.name]], how)
    assert model.times("summary", 0) == 2
    assert len(of_type(found[pages], "context.summarised")) == 1
    check_running(daemon, running, found[running], how)
    assert effects(daemon, waiting) == ["once"]
    assert of_type(found[waiting], "restart", "turn.interrupted") == []


def check_stream(model: Model, scene: Scene, rows: list[SessionEvent], how: str) -> None:
    """Assert that the call was made once more, announced, and told about; and its reply kept once."""
    step = scene.held_step
    assert step is not None
    asked = [model.times(scene.name, n) for n in range(1, len(scene.replies) + 1)]
    assert asked == [1] * (step - 1) + [2]
    retry = [(row["step"], row["attempt"]) for row in of_type(rows, "step.retry")]
    assert retry == [(step, 2)]
    cause = {"kill": "crash"}.get(how, how)
    (stopped,) = of_type(rows, "turn.interrupted")
    assert (stopped["cause"], stopped["state"]) == (cause, "cut")
    (note,) = (text for who, text in seen(model.last(scene.name).body) if who == "note")
    assert note == f"restart: generation {of_type(rows, 'restart')[0]['generation']}"
    assert of_type(rows, "reply.sent")[0]["text"] == "one two three"


def check_running(daemon: Daemon, session: str, rows: list[SessionEvent], how: str) -> None:
    """Assert what became of three calls of one reply, of which one had ended."""
    check_ledger(daemon, rows)
    shell, keyed, clock = (call["id"] for call in of_type(rows, "model.completed")[0]["calls"])
    ends = {row["call_id"]: row.get("status", "unknown") for row in rows if row["type"] in VERDICTS}
    begun = [row["call_id"] for row in of_type(rows, "tool.started")]
    assert effects(daemon, session) == ["once"]
    if how == "kill":
        assert ends == {shell: "unknown", keyed: "ok", clock: "ok"}
        assert sorted(begun) == sorted([shell, keyed, keyed, clock])
        assert ledger(daemon) == [keyed]
    else:
        assert ends == {shell: "interrupted", keyed: "interrupted", clock: "ok"}
        assert sorted(begun) == sorted([shell, keyed, clock])
        assert ledger(daemon) == []
    assert of_type(rows, "step.retry") == []


VERDICTS = ("tool.finished", "tool.unknown")


def test_a_turn_with_tools_goes_on_over_restarts_in_a_row_as_often_as_it_may(
    make_daemon: Make, model: Model
) -> None:
    daemon = started(make_daemon, model, sessions={"resume_limit": 2})
    running = new_session(daemon)
    accepted(daemon, running, "running")
    wait_for(until_granted(daemon), 10.0, "the question about the command")
    wait_for(lambda: effects(daemon, running), 10.0, "the command to have had its effect")
    for count in (1, 2, 3):
        daemon.kill()
        daemon.start()
        if count < 3:
            # The call that may be repeated runs once more, and takes a second.
            wait_event(daemon, running, "tool.started", count=3 + count)
    assert wait_event(daemon, running, "turn.parked", count=2)["reason"] == "resume-limit"
    turn = of_type(events(daemon, running), "turn.started")[0]["turn_id"]
    daemon.control("resume", session_id=running, turn_id=turn)
    (rows,) = wait_all_ended(daemon, [running]).values()
    check_model_turns(model, "running", rows)
    check_ledger(daemon, rows)
    assert effects(daemon, running) == ["once"]
    assert len(ledger(daemon)) == 1
    assert len(of_type(rows, "tool.unknown")) == 1
    assert len(of_type(rows, "restart")) == 3
    assert model.times("running", 1) == model.times("running", 2) == 1


@pytest.mark.parametrize(
    ("model", "how"), cases(("kill", "stop")[: full_or(1, 2)]), indirect=["model"]
)
def test_a_question_that_expires_while_nothing_runs_is_denied_at_the_start(
    make_daemon: Make, model: Model, how: str
) -> None:
    daemon = started(make_daemon, model, approvals={"timeout_s": 1})
    session = new_session(daemon)
    accepted(daemon, session, "waiting")
    until = float(wait_event(daemon, session, "approval.requested")["expires_at"])
    daemon.end(how)
    wait_for(lambda: time.time() > until, 5.0, "the time of the question to be over")
    daemon.start()
    (rows,) = wait_all_ended(daemon, [session]).values()
    check_model_turns(model, "waiting", rows)
    assert [row["by"] for row in of_type(rows, "approval.expired")] == [""]
    assert effects(daemon, session) == []
    assert "[denied] Nobody answered in time" in str(model.last("waiting").body)
    assert "approval.granted" not in types(daemon, session)


def test_what_a_turn_had_done_before_it_failed_is_told_to_the_next(
    make_daemon: Make, model: Model
) -> None:
    daemon = started(make_daemon, model)
    session = new_session(daemon)
    accepted(daemon, session, "failing")
    wait_for(until_granted(daemon), 10.0, "the question about the command")
    assert wait_event(daemon, session, "turn.failed")["slug"] == "provider-unauthorized"
    daemon.kill()
    daemon.start()
    accepted(daemon, session, "again")
    wait_event(daemon, session, "turn.completed")
    view = seen(model.last("again").body)
    assert [who for who, _ in view] == ["user", "assistant", "call", "outcome", "note", "user"]
    assert "The turn failed here and has no reply: " in view[4][1]
    assert effects(daemon, session) == ["once"]


@pytest.mark.parametrize(
    ("model", "kind"), [KINDS, KINDS[::-1]][: full_or(1, 2)], indirect=["model"]
)
def test_a_turn_that_changes_its_own_model_goes_on_with_the_other(
    make_daemon: Make, model: Model, kind: str
) -> None:
    with Model(kind, SCENES) as other:
        there = {"providers.there": other.settings()["providers.counterpart"]}
        daemon = started(make_daemon, model, **{**there, **ALLOWED})
        session = new_session(daemon)
        accepted(daemon, session, "changing")
        (rows,) = wait_all_ended(daemon, [session]).values()
        check_model_turns(other, "changing", rows)
    assert (model.times("changing", 1), model.times("changing", 2)) == (1, 0)
    assert (other.times("changing", 1), other.times("changing", 2)) == (0, 1)
    assert seen(other.last("changing").body)[-1][0] == "note"
    assert of_type(rows, "config.outcome")[0]["outcome"] == "applied"
