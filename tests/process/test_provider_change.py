"""A turn whose provider becomes one of another kind in its middle goes on with that one, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.counterparts import Call, Ending, Reply
from tests.process.harness import Daemon
from tests.process.models import KINDS, Model, Scene, check_model_turns, seen
from tests.process.talk import accepted, new_session, of_type, wait_all_ended, wait_event
from tests.waiting import wait_for

pytestmark = pytest.mark.long

CLOCK = Call("clock", {})
#: With an id and arguments as only some servers make them.
BROKEN = Call("list_files", '{"path"', id="toolu_01-with.much:in/it")
STALLED = Reply("one two three", after=1, ending=Ending.STALL)
REPLIES = (
    Reply("I look.", (CLOCK, BROKEN)),
    Reply("I look again.", (CLOCK,), reasoning="hm"),
    Reply("Done."),
)


def tables_of(one: Model, other: Model, chosen: Model) -> dict[str, Any]:
    """Return the tables with both providers, of which the agent uses the chosen one."""
    found = {f"providers.{m.kind}": m.settings()["providers.counterpart"] for m in (one, other)}
    return {"agent": {"provider": chosen.kind}, "drain": {"model_timeout_s": 0.2}, **found}


@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1]], ids=" then ".join)
def test_a_turn_goes_on_with_a_provider_of_another_kind(
    make_daemon: Callable[..., Daemon], kinds: tuple[str, str]
) -> None:
    with (
        Model(kinds[0], [Scene("go", REPLIES, 2, STALLED)]) as one,
        Model(kinds[1], [Scene("go", REPLIES, 3, STALLED)]) as other,
    ):
        daemon = make_daemon(tables=tables_of(one, other, one)).start()
        session = new_session(daemon)
        accepted(daemon, session, "go")
        for step, (before, after) in enumerate([(one, other), (other, one)], 2):
            wait_for(functools.partial(before.times, "go", step), 10.0, "the call to be under way")
            daemon.write_config(tables=tables_of(one, other, after))
            wait_event(daemon, session, "turn.resumed", count=step - 1)
        (rows,) = wait_all_ended(daemon, [session]).values()
        check_model_turns(one, "go", rows)
        refused = [a for rows in other.asked.values() for a in rows if not a.hung_up_at]
        assert all(isinstance(asked.answer, Reply) for asked in refused)
        assert [one.times("go", n) for n in (1, 2, 3)] == [1, 1, 1]
        assert [other.times("go", n) for n in (1, 2, 3)] == [0, 1, 1]
        notes = [text for who, text in seen(one.last("go").body) if who == "note"]
        assert notes == ["restart: generation 2", "restart: generation 3"]
        statuses = [row["status"] for row in of_type(rows, "tool.finished")]
        assert sorted(statuses) == ["error", "ok", "ok"]
        assert len(of_type(rows, "step.retry")) == 2
