"""What the tests of the store share: backends that can be opened again, and short ways to write."""

from __future__ import annotations

import itertools
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.session import (
    AdmitInput,
    Change,
    EventType,
    InputId,
    Lease,
    NewEvent,
    SessionEvent,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.ports import Store

T = TypeVar("T")
R = TypeVar("R")

#: Each opens the store that lives in a folder, creating it the first time. To add a backend that
#: must keep the port's contract, add it here.
BACKENDS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore.open(str(folder / "netclawd.db")),
}

A, B = SessionId("s-a"), SessionId("s-b")
_numbers = itertools.count(1)


class Backend:
    """One store in one folder, opened as often as a test likes, closed at its end."""

    def __init__(self, name: str, folder: Path) -> None:
        self._open = BACKENDS[name]
        self._folder = folder
        self._opened: list[Store] = []

    def open(self) -> Store:
        store = self._open(self._folder)
        self._opened.append(store)
        return store

    def reopen(self) -> Store:
        """Close what is open and open it again, as a restart does."""
        self.close()
        return self.open()

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self._opened.clear()


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = Backend(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(backend: Backend) -> Store:
    """An open store with the sessions A and B and no event yet."""
    made = backend.open()
    made.create_session(A, 1.0)
    made.create_session(B, 2.0)
    return made


def an_input(
    session: SessionId = A, text: str = "hello", key: str | None = None, *, deferred: bool = False
) -> AdmitInput:
    n = next(_numbers)
    return AdmitInput(session, InputId(f"in-{n:09}"), TurnId(f"t-{n:09}"), text, key, deferred)


def admit(store: Store, session: SessionId = A, text: str = "hello") -> TurnId:
    """Admit an input and return its turn."""
    return store.admit(an_input(session, text), 10.0).turn_id


def leased(store: Store, session: SessionId = A, text: str = "hello") -> Lease:
    """Admit an input and lease its turn to the current generation, beginning one if need be."""
    turn_id = admit(store, session, text)
    if not generations.get(store):
        generations[store] = store.begin_generation(5.0, None)
    return store.lease(turn_id, generations[store])


#: The generation that :func:`leased` began in each store.
generations: weakref.WeakKeyDictionary[Store, int] = weakref.WeakKeyDictionary()


def note(kind: EventType = EventType.TURN_STARTED, **data: object) -> NewEvent:
    return NewEvent(kind, data)


def end(store: Store, lease: Lease, state: TurnState = TurnState.COMPLETED) -> None:
    kind = {TurnState.COMPLETED: EventType.TURN_COMPLETED, TurnState.FAILED: EventType.TURN_FAILED}
    store.commit(Change(lease, (note(kind.get(state, EventType.TURN_CANCELLED)),), state), 20.0)


def all_events(store: Store, session: SessionId = A) -> tuple[SessionEvent, ...]:
    return store.events(session, 0, 1_000_000)


def numbers(store: Store, session: SessionId = A) -> list[int]:
    return [event.seq for event in all_events(store, session)]


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Run the work on every item, each in its own thread, all starting together."""
    todo = list(items)
    barrier = threading.Barrier(len(todo))

    def start(item: T) -> R:
        barrier.wait(30)
        return work(item)

    with ThreadPoolExecutor(len(todo)) as pool:
        return list(pool.map(start, todo))


def outcome(work: Callable[[], R]) -> R | Exception:
    """Return what the work returns or raises."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - a refusal of any kind is what is asked for
        return error


def leave_a_store(path: str) -> None:
    """Leave a closed SQLite store with the session A and three events."""
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        for _ in range(3):
            admit(made)


def copy_as_a_crash_leaves_it(path: str, target: str) -> None:
    """Copy the database and its WAL; by another process, or our locks on them would be lost."""
    Path(target).parent.mkdir()
    for suffix in ("", "-wal"):
        subprocess.run(["cp", path + suffix, target + suffix], check=True)
