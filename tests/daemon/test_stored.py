"""What the supervisor keeps, as the daemon sees it: a store that takes, lacks room, or does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from netclawd.daemon import stored
from netclawd.daemon.descriptors import Named
from netclawd.daemon.stored import Stored
from netclawd.errors import NetclawError

ONE, TWO = Named("one", 10), Named("two", 11)


class Store:
    """A supervisor's store with room for so many."""

    def __init__(self, room: int = 9) -> None:
        self.room = room
        self.kept: dict[str, int] = {}
        self.told: list[str] = []
        #: Called before each answer.
        self.before: Callable[[], object] = lambda: None

    def store(self, name: str, fd: int) -> None:
        self.before()
        self.told.append(f"store {name}")
        if name in self.kept or len(self.kept) < self.room:
            self.kept[name] = fd

    def takes(self) -> bool:
        self.before()
        return len(self.kept) < self.room

    def remove(self, names: Sequence[str]) -> bool:
        self.before()
        self.told.append(f"remove {' '.join(names)}")
        for name in names:
            self.kept.pop(name, None)
        return True


def test_without_a_supervisor_nothing_is_kept_and_no_thread_is_started() -> None:
    here = Stored(None)
    here.keep([ONE], ["other"])
    assert here.rest()
    assert not here.keeps("one")
    here.remove(["one"])


def test_what_nobody_claimed_goes_before_what_is_served_comes() -> None:
    """They may have one name: a Unix socket that was bound anew."""
    store = Store()
    here = Stored(lambda: store)
    here.keep([ONE, TWO], ["one", "other"])
    assert here.rest()
    assert store.told == ["remove one other", "store one", "store two"]
    assert here.keeps("one")


def test_what_was_taken_back_is_not_kept() -> None:
    store = Store()
    here = Stored(lambda: store)
    here.keep([ONE, TWO], [])
    here.remove(["two"])
    assert store.kept == {"one": 10}
    assert here.keeps("one")
    assert not here.keeps("two")


def test_without_room_for_all_none_is_kept_and_it_is_said() -> None:
    store = Store(room=2)
    here = Stored(lambda: store)
    here.keep([ONE, TWO], [])
    assert here.rest()
    assert store.kept == {}
    assert not here.keeps("one")
    assert "FileDescriptorStoreMax= of the unit to 3" in here.trouble


def test_a_supervisor_that_keeps_nothing_is_no_trouble() -> None:
    here = Stored(lambda: Store(room=0))
    here.keep([ONE], [])
    assert here.rest()
    assert not here.keeps("one")
    assert here.trouble == ""


def test_a_missing_library_is_trouble() -> None:
    def reach() -> Store:
        raise NetclawError("It is missing.", "Install it.")

    here = Stored(reach)
    here.keep([ONE], [])
    assert here.rest()
    assert not here.keeps("one")
    assert here.trouble == "It is missing. Install it."


def test_what_may_have_been_kept_counts_as_kept() -> None:
    """Made invisible it would be adopted by the next start, and nobody would find it."""
    store = Store()

    def gone() -> None:
        if store.kept:
            raise TimeoutError("no answer")

    store.before = gone
    here = Stored(lambda: store)
    here.keep([ONE, TWO], [])
    assert here.rest()
    assert here.keeps("one")
    assert here.keeps("two")


def test_a_supervisor_that_does_not_answer_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "_TIMEOUT_S", 0.05)
    store, answer = Store(), threading.Event()
    store.before = lambda: answer.wait(10)
    here = Stored(lambda: store)
    here.keep([ONE, TWO], [])
    assert not here.rest()
    here.remove(["two"])
    here.keep([ONE], [])
    assert here.keeps("two")
    answer.set()
    monkeypatch.setattr(stored, "_TIMEOUT_S", 10.0)
    assert here.rest()
    # Told to rest, it touched no further descriptor.
    assert store.told == ["store one"]


def test_after_a_failed_execve_it_goes_on() -> None:
    store = Store()
    here = Stored(lambda: store)
    here.keep([ONE], [])
    assert here.rest()
    here.keep([ONE], [])
    here.remove(["one"])
    assert store.told == ["store one", "store one", "remove one"]
