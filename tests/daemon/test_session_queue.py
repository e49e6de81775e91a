"""The queue of sessions, driven at random: nothing is lost, nobody has a session twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.session import SessionId
from netclawd.daemon.session_queue import SessionQueue

A, B, C = (SessionId(name) for name in "abc")


def test_sessions_take_turns() -> None:
    queue = SessionQueue()
    for each in (A, B, C):
        queue.add(each)
    taken = []
    for _ in range(6):
        session = queue.take(gate_open=True)
        assert session is not None
        taken.append(session)
        queue.release(session, again=True)
    assert taken == [A, B, C, A, B, C]


def test_only_the_first_pass_a_closed_gate() -> None:
    queue = SessionQueue()
    queue.add(A)
    queue.add(B)
    queue.add(B, first=True)
    assert (len(queue), queue.first) == (2, 1)
    assert queue.take(gate_open=False) == B
    assert queue.take(gate_open=False) is None
    queue.add(B, first=True)
    queue.release(B, again=False)
    assert queue.take(gate_open=False) == B
    queue.release(B, again=True)
    assert queue.take(gate_open=False) is None
    assert queue.take(gate_open=True) == A


def test_what_is_added_while_a_session_is_held_is_not_forgotten() -> None:
    queue = SessionQueue()
    queue.add(A)
    assert queue.take(gate_open=True) == A
    queue.add(A)
    assert queue.take(gate_open=True) is None
    queue.release(A, again=False)
    assert queue.take(gate_open=True) == A
    queue.release(A, again=False)
    assert queue.take(gate_open=True) is None


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["add", "first", "take", "end"]), st.sampled_from([A, B, C]))
)


def test_what_is_held_back_is_passed_over_and_keeps_its_place() -> None:
    queue, (a, b) = SessionQueue(), (SessionId("a"), SessionId("b"))
    queue.add(a, first=True)
    queue.add(b)
    assert queue.take(gate_open=False, but={a}) is None
    assert queue.peek(gate_open=True, but={a}) == b
    assert queue.take(gate_open=True, but={a}) == b
    assert queue.take(gate_open=False) == a


@given(ACTIONS)
def test_every_session_with_work_is_taken_in_the_end(
    actions: list[tuple[str, SessionId]],
) -> None:
    queue = SessionQueue()
    held: set[SessionId] = set()
    wanted: set[SessionId] = set()
    for action, session in actions:
        match action:
            case "add" | "first":
                queue.add(session, first=action == "first")
                wanted.add(session)
            case "take":
                taken = queue.take(gate_open=True)
                if taken is not None:
                    assert taken not in held
                    assert taken in wanted
                    held.add(taken)
                    wanted.discard(taken)
            case "end" if session in held:
                queue.release(session, again=False)
                held.discard(session)
    for session in held:
        queue.release(session, again=False)
    while (taken := queue.take(gate_open=True)) is not None:
        wanted.discard(taken)
    assert not wanted
