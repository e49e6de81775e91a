"""SIGKILL at each point of a turn with a real provider: of its model calls, its commits, its tools.

The points are read off an undisturbed turn, which has two model calls, a question about a command, and a
call beside it that may be repeated; :func:`test_the_points_are_all_that_a_turn_meets` sees that the table
is whole. Whatever point it is: each step is asked for twice at most and kept once, the command runs once
at most, what may be repeated has its effect once, and the model was told what the store has.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.counterparts import Call, Reply
from tests.process.faults import MODEL, Fault
from tests.process.granting import finish, wait_killed
from tests.process.harness import PROVE, Daemon
from tests.process.models import KINDS, SUMMARY, Model, Scene, check_model_turns
from tests.process.proposing import ALLOWED, check_turn, commented, outcomes
from tests.process.talk import (
    SessionEvent,
    accepted,
    check_ledger,
    events,
    ledger,
    new_session,
    of_type,
    send,
    wait_event,
)

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

SHELL = Call("shell", {"command": "echo once >> ../effect"})
KEYED = Call("ledger", {"seconds": 0.1, "idempotent": True})
CHANGE = Call("config_propose", {"changes": {"drain.timeout_s": 25}, "reason": "slow tools"})
SCENES = (
    Scene("work", (Reply("I run.", (SHELL, KEYED)), Reply("All is done."))),
    Scene("page", (Reply("I see.", usage=(8_000, 1)),)),
    Scene("summary", (Reply("It is condensed."),), 0, Reply(SUMMARY)),
    Scene("change", (Reply("I change it.", (CHANGE,)), Reply("It is changed."))),
)
#: How often an undisturbed turn meets each point: its commits are started, reply, asked, granted, taken
#: up, two starts, two ends, reply; of its pieces of text two are of the first reply.
POINTS: Mapping[tuple[str, str], int] = {
    ("before", "Checkpoint"): 10,
    ("after", "Checkpoint"): 10,
    ("before", "AskModel"): 2,
    ("after", "AskModel"): 2,
    ("after", "Token"): 5,
    ("after", "ModelReply"): 2,
    ("before", "Deliver"): 1,
    ("after", "Deliver"): 1,
}
#: What a reduced run takes, the kinds in turns: the first call's request, head and first word, the second
#: call's last word, whole reply and commit. test_call_kill_points.py has the others.
REDUCED = [
    ("before", "AskModel", 1),
    ("after", "AskModel", 1),
    ("after", "Token", 1),
    ("after", "Token", 5),
    ("after", "ModelReply", 2),
    ("after", "Checkpoint", 10),
]
#: Of a change of the configuration: its start, its end, and the second call, behind the restart.
CHANGE_POINTS = {
    ("after", "OpenProposal"): 1,
    ("before", "CloseProposal"): 1,
    ("after", "CloseProposal"): 1,
    ("before", "AskModel"): 2,
    ("after", "AskModel"): 2,
    ("after", "Token"): 6,
    ("after", "ModelReply"): 2,
}
CHANGE_REDUCED = [("after", "AskModel", 2)]
#: How often a turn meets each point that has the one before it summarised, and how often that one did: the
#: commits are started, summary, reply; of the pieces of text three are of the summary.
SUMMARY_POINTS = {
    ("before", "Checkpoint"): 3,
    ("after", "Checkpoint"): 3,
    ("before", "AskModel"): 2,
    ("after", "AskModel"): 2,
    ("after", "Token"): 6,
    ("after", "ModelReply"): 2,
}
EARLIER = {"Checkpoint": 2, "AskModel": 1, "Token": 2, "ModelReply": 1}
SUMMARY_REDUCED = [("after", "ModelReply", 1)]
PAGE = " ".join(["word"] * 3_500)


def enumerated(
    points: Mapping[tuple[str, str], int], reduced: list[tuple[str, str, int]]
) -> list[tuple[str, Fault]]:
    """Return every point with every kind, or the reduced ones with one kind each."""
    every = [(*point, nth) for point, count in points.items() for nth in range(1, count + 1)]
    assert set(reduced) <= set(every)
    taken = [(kind, point) for point in every for kind in KINDS]
    if not PROVE:
        taken = [(KINDS[n % 2], point) for n, point in enumerate(reduced)]
    return [(kind, Fault("kill", when, effect, nth)) for kind, (when, effect, nth) in taken]


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else f"{value.when}-{value.effect}-{value.nth}"


def never() -> list[Fault]:
    """Return faults that don't fire, for the trace."""
    return [Fault("kill", "after", effect, nth=99) for effect in (*MODEL, "Checkpoint")]


def effects(daemon: Daemon) -> list[str]:
    path = daemon.home / "state" / "workspaces" / "effect"
    return path.read_text().split() if path.exists() else []


def killed_and_started(daemon: Daemon, session: str, text: str) -> None:
    """Send, wait for the kill and start again; who got no answer sends the same with the same key."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        accepted(daemon, session, text, key="k")
    wait_killed(daemon)
    daemon.start()
    assert send(daemon, session, text, key="k").status in (200, 202)


@pytest.mark.parametrize("kind", KINDS)
def test_the_points_are_all_that_a_turn_meets(make_daemon: Make, kind: str) -> None:
    with Model(kind, SCENES) as model:
        daemon = make_daemon(tables=model.settings(), faults=never()).start()
        session = new_session(daemon)
        accepted(daemon, session, "work")
        rows = finish(daemon, session)
        check_model_turns(model, "work", rows)
    for (when, effect), count in POINTS.items():
        assert daemon.effects(when=when).count(effect) == count, (when, effect)
    assert effects(daemon) == ["once"]


@pytest.mark.parametrize(("kind", "point"), enumerated(POINTS, REDUCED), ids=name_of)
def test_a_kill_repeats_nothing_that_must_not_be_repeated(
    make_daemon: Make, kind: str, point: Fault
) -> None:
    with Model(kind, SCENES) as model:
        daemon = make_daemon(tables=model.settings(), faults=[point]).start()
        session = new_session(daemon)
        killed_and_started(daemon, session, "work")
        rows = finish(daemon, session)
        check_model_turns(model, "work", rows)
    check_ledger(daemon, rows)
    asked = [model.times("work", step) for step in (1, 2)]
    assert asked == expected(point)
    assert len(of_type(rows, "step.retry")) == announced(rows)
    assert len(of_type(rows, "approval.requested")) == len(of_type(rows, "approval.granted")) == 1
    command, keyed = (call["id"] for call in of_type(rows, "model.completed")[0]["calls"])
    assert ledger(daemon) == [keyed]
    ended = {row["call_id"]: row for row in of_type(rows, "tool.finished", "tool.unknown")}
    unknown = ended[command]["type"] == "tool.unknown"
    assert effects(daemon) == ["once"] or (unknown and effects(daemon) == [])
    assert of_type(rows, "reply.sent")[0]["text"] == "All is done."


def expected(point: Fault, words: int = 2, last: int = 10) -> list[int]:
    """Return how often the two calls are asked for: again whatever was asked and not committed.

    ``words``: pieces of text of the first reply; ``last``: number of the second reply's commit.
    """
    first = {
        ("before", "Checkpoint"): 2,
        ("after", "AskModel"): 1,
        ("after", "Token"): words,
        ("after", "ModelReply"): 1,
    }.get((point.when, point.effect))
    if first is None or (point.effect == "Checkpoint" and point.nth not in (2, last)):
        return [1, 1]
    return [2, 1] if point.nth <= first else [1, 2]


def announced(rows: list[SessionEvent]) -> int:
    """Return how many repeats are to be announced: of what ran, with the model's call next, at the kill."""
    before = [row["type"] for row in rows]
    before = before[: before.index("turn.interrupted")] if "turn.interrupted" in before else []
    if not before or "turn.started" not in before:
        return 0
    replies = before.count("model.completed")
    answered = before.count("tool.finished") + before.count("tool.unknown") == 2
    return int(replies == 0 or (replies == 1 and answered))


@pytest.mark.parametrize(
    ("kind", "point"), enumerated(SUMMARY_POINTS, SUMMARY_REDUCED), ids=name_of
)
def test_a_kill_has_a_summary_kept_once(make_daemon: Make, kind: str, point: Fault) -> None:
    own = replace(point, nth=point.nth + EARLIER[point.effect])
    with Model(kind, SCENES) as model:
        tables = model.settings(context_tokens=12_000, max_output_tokens=500)
        daemon = make_daemon(tables=tables, faults=[own]).start()
        session = new_session(daemon)
        accepted(daemon, session, f"page {PAGE}")
        finish(daemon, session)
        killed_and_started(daemon, session, f"summary {PAGE}")
        wait_event(daemon, session, "turn.completed", count=2)
        rows = events(daemon, session)
        check_model_turns(model, "summary", rows)
    (summary,) = of_type(rows, "context.summarised")
    assert summary["text"] == SUMMARY
    asked = [model.times("page", 1), *(model.times("summary", step) for step in (0, 1))]
    assert asked == [1, *expected(point, words=3, last=3)]


@pytest.mark.parametrize(("kind", "point"), enumerated(CHANGE_POINTS, CHANGE_REDUCED), ids=name_of)
def test_a_kill_has_a_change_written_once_and_told_once(
    make_daemon: Make, kind: str, point: Fault
) -> None:
    wrote = Fault("kill", "after", "WriteProposal", nth=99)
    with Model(kind, SCENES) as model:
        daemon = make_daemon(tables={**model.settings(), **ALLOWED}, faults=[point, wrote])
        before = commented(daemon)
        daemon.start()
        session = new_session(daemon)
        killed_and_started(daemon, session, "change")
        rows = finish(daemon, session)
        check_turn(rows)
        check_model_turns(model, "change", rows)
    assert daemon.effects(when="after").count("WriteProposal") == 1
    assert daemon.config_path.read_text() == before + "\n[drain]\ntimeout_s = 25\n"
    assert len(outcomes(rows)) == 1
    assert [model.times("change", step) for step in (1, 2)] == expected(point, words=3)
