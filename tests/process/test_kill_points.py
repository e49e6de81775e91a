"""SIGKILL before and after every effect of a restart; then a start that satisfies the invariants.

No acknowledged input is lost, no turn is run twice, no tool effect is repeated blindly, and the
ledger tool's file has what the events promise.
"""

from __future__ import annotations

import http.client
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.process.client import ask
from tests.process.faults import Fault, kill_points
from tests.process.harness import PROVE, Daemon
from tests.process.talk import (
    accepted,
    check_history,
    check_ledger,
    new_session,
    of_type,
    send,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long

#: Points that a reduced run takes: around the manifest, the store, the commit point and the gate.
REDUCED = {
    ("after", "BindNew"),
    ("before", "MarkManifest"),
    ("after", "MarkManifest"),
    ("after", "DrainTurns"),
    ("before", "Settle"),
    ("after", "Settle"),
    ("before", "Exec"),
    ("before", "Image"),
    ("after", "OpenStore"),
    ("before", "WarmUp"),
    ("after", "OpenGate"),
    ("before", "RecordApplied"),
}


def chosen() -> list[Fault]:
    return [p for p in kill_points() if PROVE or (p.when, p.effect) in REDUCED]


@dataclass
class Poster:
    """Posts messages with keys until the daemon is gone; remembers which were acknowledged."""

    acknowledged: dict[str, Any] = field(default_factory=dict)
    #: Sent, and nobody knows whether they arrived.
    unknown: list[str] = field(default_factory=list)


@contextmanager
def posting(daemon: Daemon, session: str) -> Iterator[Poster]:
    poster, stop = Poster(), threading.Event()

    def post() -> None:
        while not stop.wait(0.02):
            key = uuid.uuid4().hex
            try:
                answer = send(daemon, session, f"note {key}", key)
            except (OSError, http.client.HTTPException):
                poster.unknown.append(key)
                return
            if answer.status in (200, 202):
                poster.acknowledged[key] = answer.json
            else:
                poster.unknown.append(key)

    thread = threading.Thread(target=post, name="poster")
    thread.start()
    try:
        yield poster
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("point", chosen(), ids=lambda p: f"{p.when}-{p.effect}")
def test_a_kill_loses_nothing_and_repeats_nothing(
    make_daemon: Callable[..., Daemon], point: Fault
) -> None:
    drain = {"model_timeout_s": 0.3, "tool_timeout_s": 0.3}
    daemon = make_daemon(faults=[point], tables={"drain": drain}).start()
    streaming, other, idempotent, chatty = (new_session(daemon) for _ in range(4))
    sessions = [streaming, other, idempotent, chatty]
    if point.effect == "Retire":
        wait_for(lambda: "Retire" in daemon.effects(), 10.0, "the first image to have retired")
    accepted(daemon, streaming, "/count 40 0.02")
    accepted(daemon, other, "/ledger 3 0.25")
    accepted(daemon, idempotent, "/ledger 3 0.25 idempotent")
    for session in (other, idempotent):
        wait_event(daemon, session, "tool.started")
    with posting(daemon, chatty) as poster:
        try:
            daemon.control("reload", force=True)
        except OSError:
            pass  # It was dead before it could answer.
        assert daemon.wait_exit(30.0) == -9

    daemon.faults = []
    daemon.start()
    for key in poster.unknown:
        # What the client does who doesn't know: the same key again.
        assert send(daemon, chatty, f"note {key}", key).status in (200, 202)
    found = wait_all_ended(daemon, sessions)
    for rows in found.values():
        check_history(rows)
    check_ledger(daemon, [row for rows in found.values() for row in rows])

    admitted = of_type(found[chatty], "input.admitted")
    texts = [row["text"] for row in admitted]
    assert len(texts) == len(set(texts)), "an input was stored twice"
    wanted = {f"note {key}" for key in (*poster.acknowledged, *poster.unknown)}
    assert set(texts) == wanted
    ids = {row["input_id"] for row in admitted}
    assert {answer["input_id"] for answer in poster.acknowledged.values()} <= ids
    assert len(of_type(found[idempotent], "tool.unknown")) == 0
    assert of_type(found[streaming], "reply.sent")[0]["text"].endswith(" 40")


def test_the_trace_of_a_restart_is_what_the_kill_points_name(
    make_daemon: Callable[..., Daemon],
) -> None:
    """If an effect is added to the restart, the kill points must learn of it."""
    never = Fault("kill", "before", "NoSuchEffect")
    daemon = make_daemon(faults=[never]).start()
    daemon.reload(force=True)
    wait_for(lambda: daemon.effects().count("StartWatching") == 2, 10.0, "the restart to end")
    # What a death while the stub imports leaves is what one at the start of the image leaves.
    others = {"Say", "Record", "Rehearsal", "CancelRehearsal", "Import"}
    known = {p.effect for p in kill_points()} | others
    assert set(daemon.effects()) <= known
    assert ask(daemon.port, "/api/health/ready").status == 200
