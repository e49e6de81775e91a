"""Placing text: whatever arrives in whatever order, a watcher's text has no hole and no repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.http.room import HoleError, Room
from netclawd.core.session import Delta, EventType, SessionEvent, SessionId, TurnId

SESSION = SessionId("s")
TURN = TurnId("t1")


def delta(offset: int, text: str, *, turn: TurnId = TURN, step: int = 1, attempt: int = 1) -> Delta:
    return Delta(SESSION, turn, step, attempt, offset, text)


def event(seq: int, kind: EventType, turn: TurnId | None = TURN, **data: object) -> SessionEvent:
    return SessionEvent(SESSION, seq, kind, 0.0, turn, data)


def room(seq: int = 0) -> Room[str]:
    return Room(SESSION, seq)


def advance(target: Room[str], *events: SessionEvent) -> list[int]:
    return [seq for seq, _ in target.advance(events)]


@given(
    st.text(min_size=1, max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)))
)
def test_any_pieces_of_one_text_give_the_text_once(
    text: str, pieces: list[tuple[int, int]]
) -> None:
    target, heard = room(), ""
    for start, length in [*pieces, (0, len(text))]:
        try:
            placed = target.place(delta(start, text[start : start + length]))
        except HoleError:
            assert start > len(heard)
            continue
        if placed is not None:
            assert placed.offset == len(heard)
            heard += placed.text
        so_far = target.text()
        assert (so_far.text if so_far else "") == heard
    assert heard == text


def test_a_hole_is_reported_and_the_whole_text_mends_it() -> None:
    target = room()
    target.place(delta(0, "ab"))
    with pytest.raises(HoleError):
        target.place(delta(3, "d"))
    placed = target.place(delta(0, "abcd"))
    assert placed == delta(2, "cd")


def test_no_delta_of_a_step_passes_after_its_completion() -> None:
    target = room()
    target.place(delta(0, "ab"))
    assert advance(target, event(1, EventType.MODEL_COMPLETED, step=1, attempt=1)) == [1]
    assert target.text() is None
    assert target.place(delta(2, "c")) is None
    assert target.place(delta(0, "abc")) is None
    assert target.place(delta(0, "new", step=2)) == delta(0, "new", step=2)


def test_no_delta_of_an_attempt_passes_after_the_retry() -> None:
    target = room()
    target.place(delta(0, "ab"))
    advance(target, event(1, EventType.STEP_RETRY, step=1, attempt=2))
    assert target.text() is None
    assert target.place(delta(2, "c")) is None
    assert target.place(delta(0, "x", attempt=2)) == delta(0, "x", attempt=2)


@pytest.mark.parametrize(
    "ending", [EventType.TURN_COMPLETED, EventType.TURN_FAILED, EventType.TURN_CANCELLED]
)
def test_no_delta_of_a_turn_passes_after_its_end(ending: EventType) -> None:
    target = room()
    target.place(delta(0, "ab", step=3))
    advance(target, event(1, ending))
    assert target.text() is None
    assert target.place(delta(2, "c", step=3)) is None
    assert target.place(delta(0, "c", step=4)) is None
    other = delta(0, "c", turn=TurnId("a0"))
    assert target.place(other) == other


def test_a_newer_attempt_replaces_the_text_and_an_older_one_is_late() -> None:
    target = room()
    target.place(delta(0, "old"))
    assert target.place(delta(0, "new", attempt=2)) == delta(0, "new", attempt=2)
    assert target.place(delta(3, "er")) is None
    assert target.text() == delta(0, "new", attempt=2)


def test_what_was_completed_before_the_room_is_known_to_be() -> None:
    target = room(seq=5)
    target.remember([event(5, EventType.MODEL_COMPLETED, step=1, attempt=1)])
    assert target.place(delta(0, "stale")) is None


def test_events_advance_in_order_and_once() -> None:
    target = room(seq=2)
    kind = EventType.TOOL_STARTED
    assert advance(target, event(2, kind), event(3, kind), event(5, kind), event(4, kind)) == [3, 4]
    assert target.seq == 4


def test_remembered_events_serve_who_is_not_too_far_back() -> None:
    target = room(seq=10)
    kind = EventType.TOOL_STARTED
    target.remember([event(seq, kind) for seq in range(8, 11)])
    advance(target, event(11, kind))

    def recent(after: int) -> list[int] | None:
        found = target.recent(after)
        return None if found is None else [seq for seq, _ in found]

    assert recent(6) is None
    assert recent(7) == [8, 9, 10, 11]
    assert recent(10) == [11]
    assert recent(11) == []


def test_the_memory_of_a_room_is_bounded() -> None:
    target = room()
    for seq in range(1, 40):
        advance(target, event(seq, EventType.MODEL_COMPLETED, step=seq, text="x" * 100_000))
    assert target._recent_bytes <= 1 << 20
    assert target.recent(0) is None
    found = target.recent(38)
    assert found is not None
    assert [seq for seq, _ in found] == [39]
