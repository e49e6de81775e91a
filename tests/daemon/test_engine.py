"""The engine on a real store: turns, order, tools, people, failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import EventType, TurnState
from tests.daemon.engines import Home


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
