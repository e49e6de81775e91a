"""Events as large as a message may be: a stream gets past them, alone and while a reply is made."""

from __future__ import annotations

import pytest

from netclawd.adapters.http.options import MAX_BODY_BYTES
from netclawd.core.session import EventType
from tests.http.running import Running

#: A message of the largest body, and a call whose arguments repeat it.
MESSAGE = "x" * (MAX_BODY_BYTES - len('{"text":""}'))
LARGEST = "y" * (3 * MAX_BODY_BYTES)


@pytest.mark.parametrize("text", [MESSAGE, LARGEST], ids=["message", "larger"])
def test_a_joiner_gets_past_a_large_event(running: Running, text: str) -> None:
    session_id = running.new_session()
    for each in ("before", text, text, "behind"):
        running.service.admit(session_id, each, None)
    with running.wire() as wire:
        wire.listen(session_id)
        assert [wire.hear().data["text"] for _ in range(4)] == ["before", text, text, "behind"]


def test_a_large_event_does_not_part_a_joiner_from_the_text_so_far(running: Running) -> None:
    session_id = running.new_session()
    running.service.say(session_id, "said before")
    running.service.admit(session_id, LARGEST, None)
    with running.wire() as wire:
        wire.listen(session_id)
        assert wire.hear().data["text"] == LARGEST
        assert wire.hear().data["text"] == "said before"


def test_a_reader_that_keeps_up_is_not_dropped_for_a_large_event(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as wire:
        wire.listen(session_id)
        running.wait_until(lambda: running.server.streams() == 1, "the stream")
        admitted = running.service.admit(session_id, MESSAGE, None)
        running.service.add(session_id, admitted.turn_id, EventType.TURN_STARTED, generation=1)
        running.service.say(session_id, "and a word", turn=admitted.turn_id)
        heard = [wire.hear() for _ in range(3)]
    assert [each.type for each in heard] == ["input.admitted", "turn.started", "delta"]
