"""What the ``Store`` port promises of sessions that a client knows by a name of its own."""

from __future__ import annotations

from netclawd.core.session import SessionId
from netclawd.ports import Store
from tests.adapters.stores import A, Backend, admit, at_once, backend, store

__all__ = ["backend", "store"]


def test_an_alias_makes_a_session_the_first_time(store: Store) -> None:
    made = store.open_session("alice", SessionId("s-new"), 7.0)
    assert (made.id, made.created_at, made.channel, made.last_seq) == ("s-new", 7.0, "api", 0)
    assert store.session(made.id) == made
    assert made.id in [session.id for session in store.sessions(None, 10).sessions]


def test_an_alias_finds_its_session_as_it_stands(store: Store) -> None:
    first = store.open_session("alice", SessionId("s-new"), 7.0, "slack")
    admit(store, first.id)
    found = store.open_session("alice", SessionId("s-other"), 8.0, "slack")
    assert (found.id, found.created_at, found.channel, found.last_seq) == ("s-new", 7.0, "slack", 1)
    assert found.alias == "alice"


def test_an_alias_is_a_name_within_its_channel(store: Store) -> None:
    ids = [store.open_session("alice", SessionId(f"s-{c}"), 7.0, c).id for c in ("api", "slack")]
    assert ids == ["s-api", "s-slack"]
    assert store.outgoing.session_of("slack", "alice") == "s-slack"
    assert store.outgoing.session_of("slack", "bob") is None


def test_another_alias_is_another_session_and_no_alias_is_a_sessions_id(store: Store) -> None:
    ids = [store.open_session(a, SessionId(f"s-{n}"), 7.0).id for n, a in enumerate((A, "b", "B"))]
    assert ids == ["s-0", "s-1", "s-2"]


def test_an_alias_is_known_after_the_store_was_opened_anew(backend: Backend) -> None:
    store = backend.open()
    store.open_session("grüße 👋", SessionId("s-new"), 7.0)
    assert backend.reopen().open_session("grüße 👋", SessionId("s-other"), 8.0).id == "s-new"


def test_of_many_who_ask_at_once_with_one_alias_all_get_one_session(store: Store) -> None:
    found = at_once(
        lambda n: store.open_session("alice", SessionId(f"s-new-{n}"), 7.0).id, range(8)
    )
    assert len(set(found)) == 1
