"""A summary whose model call is under way at a kill, a restart or a stop: made once more, kept once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.counterparts import Answer, Asked, ChatServer, Reply, Silent
from tests.counterparts.talk import answer_by_input
from tests.process.harness import Daemon
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    of_type,
    types,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

PAGE = "word " * 1_000


def is_summary(asked: Asked) -> bool:
    return bool(asked.body["messages"][0]["content"].startswith("You condense"))


class Model:
    """Condenses, or keeps silent about it; refuses what its real window doesn't hold."""

    def __init__(self) -> None:
        self.silent = threading.Event()
        self.server = ChatServer(answer=self._answer)

    def _answer(self, asked: Asked) -> Answer:
        if is_summary(asked):
            return Silent() if self.silent.is_set() else Reply("They exchanged pages.")
        return answer_by_input(asked) if len(asked.body["messages"]) == 2 else Reply("I see.")

    @property
    def summaries(self) -> list[Asked]:
        return [asked for asked in self.server.asked if is_summary(asked)]


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    with model.server:
        yield model


def started(make_daemon: Make, model: Model) -> Daemon:
    provider = {
        "kind": "openai",
        "base_url": model.server.base_url,
        "model": "test-model",
        "context_tokens": 10_000,
        "max_output_tokens": 500,
    }
    tables = {
        "agent": {"provider": "local"},
        "providers.local": provider,
        "drain": {"model_timeout_s": 0.3, "model_timeout_at_stop_s": 0.3},
    }
    return make_daemon(tables=tables).start()


def fill(daemon: Daemon, session: str, model: Model) -> None:
    """Say as much as fits without a summary; it is then made for the next input."""
    model.silent.set()
    for _ in range(30):
        accepted(daemon, session, PAGE)
        wait_for(
            lambda: model.summaries or types(daemon, session)[-1] == "turn.completed",
            20.0,
            lambda: f"a reply or a summary: {types(daemon, session)}",
        )
        if model.summaries:
            return
    raise AssertionError("no summary was ever asked for")


@pytest.mark.parametrize("how", ["kill", "restart", "stop"])
def test_it_is_made_once_more_and_kept_once(make_daemon: Make, model: Model, how: str) -> None:
    daemon = started(make_daemon, model)
    session = new_session(daemon)
    fill(daemon, session, model)
    model.silent.clear()
    daemon.interrupt(how)
    wait_event(daemon, session, "context.summarised")
    (rows,) = wait_all_ended(daemon, [session]).values()
    check_history(rows)
    assert len(model.summaries) == 2
    (summary,) = of_type(rows, "context.summarised")
    assert summary["text"] == "They exchanged pages."
    assert summary["usage"]["output_tokens"] == 3
    (retry,) = of_type(rows, "step.retry")
    assert retry["seq"] < summary["seq"] < of_type(rows, "model.completed")[-1]["seq"]
    assert rows[-1]["type"] == "turn.completed"
    told = model.server.asked[-1].body["messages"]
    assert told[1]["content"].startswith("[netclawd] Summary of the earlier part")
    assert "They exchanged pages." in told[1]["content"]
    assert len(of_type(rows, "input.admitted")) == len(of_type(rows, "reply.sent"))

    # And the next generation begins with it.
    daemon.reload(force=True)
    accepted(daemon, session, "short")
    wait_all_ended(daemon, [session])
    assert len(model.summaries) == 2
    told = model.server.asked[-1].body["messages"]
    assert told[1]["content"].startswith("[netclawd] Summary of the earlier part")
