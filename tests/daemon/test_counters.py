"""The totals over a real store: counted once, over images, rollbacks and closed stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.counters import GAP, EventCounts, Totals, buckets, of_type
from netclawd.core.session import EventType, SessionId
from netclawd.daemon import counters
from netclawd.daemon.counters import Counters
from tests.adapters.stores import A, admit, at_once


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "netclawd.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        yield made


def admissions(found: Counters, store: SqliteStore | None) -> float:
    totals, _census, _fresh = found.look(store)
    return sum(of_type(totals, EventType.INPUT_ADMITTED).values())


def begun(store: SqliteStore, handed_over: Totals | None = None) -> Counters:
    made = Counters()
    made.begin(store, handed_over or {})
    return made


def test_a_cold_start_counts_from_now_on(store: SqliteStore) -> None:
    admit(store)
    found = begun(store)
    assert admissions(found, store) == 0
    admit(store)
    assert admissions(found, store) == 1


def test_the_next_image_goes_on_with_what_the_one_before_had_not_looked_at(
    store: SqliteStore,
) -> None:
    old = begun(store)
    admit(store)
    assert admissions(old, store) == 1
    admit(store)
    new = begun(store, old.totals)
    admit(store)
    assert admissions(new, store) == 3


def test_what_an_image_that_failed_committed_is_counted_after_the_rollback(
    store: SqliteStore,
) -> None:
    """Both images begin with the same record; the first one's look doesn't count for the second."""
    old = begun(store)
    handed_over = old.totals
    failed = begun(store, handed_over)
    failed.observe_restart(0.1, None)
    admit(store)
    assert admissions(failed, store) == 1
    assert admissions(begun(store, handed_over), store) == 1


def test_a_record_of_an_image_that_counted_nothing_is_a_beginning(store: SqliteStore) -> None:
    admit(store)
    assert admissions(begun(store, {}), store) == 0


def test_a_closed_store_leaves_the_last_known(store: SqliteStore) -> None:
    found = begun(store)
    admit(store)
    totals, census, fresh = found.look(store)
    assert fresh
    assert census is not None
    assert census.turns == {"queued": 1}
    store.close()
    assert found.look(store) == (totals, census, False)
    assert found.look(None) == (totals, census, False)


def test_a_store_that_does_not_answer_holds_up_no_start(store: SqliteStore, path: str) -> None:
    admit(store)
    store.close()
    found = begun(store)
    assert found.totals == {}
    with closing(SqliteStore.open(path)) as again:
        assert admissions(found, again) == 0
        admit(again)
        assert admissions(found, again) == 1


def test_nothing_is_known_before_the_first_look(store: SqliteStore) -> None:
    _totals, census, fresh = Counters().look(None)
    assert (census, fresh) == (None, False)


class Overtaken:
    """A store of which somebody else counts the same events while the first is being answered."""

    def __init__(self, store: SqliteStore, found: Counters) -> None:
        self._store = store
        self._found = found

    def count_events(self, after: int, most: int) -> EventCounts:
        counts = self._store.count_events(after, most)
        self._found.look(self._store)
        return counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_look_that_is_overtaken_by_another_counts_nothing_again(store: SqliteStore) -> None:
    found = begun(store)
    admit(store)
    overtaken: Any = Overtaken(store, found)
    assert admissions(found, overtaken) == 1
    assert admissions(found, store) == 1


def test_many_looks_at_the_same_time_count_each_event_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "AT_ONCE", 3)
    found = begun(store)
    others = [SessionId(f"s-{n}") for n in range(4)]
    for session in others:
        store.create_session(session, 1.0)

    def work(number: int) -> None:
        for _ in range(15):
            if number < 4:
                admit(store, others[number])
            else:
                found.look(store)
                found.observe_restart(0.06, None)

    at_once(work, range(8))
    assert admissions(found, store) == 60
    rows, total = buckets(found.totals, GAP)
    assert (rows[-1][1], round(total, 3)) == (60, 3.6)


def test_a_restart_is_observed_with_its_drain_if_it_had_one(store: SqliteStore) -> None:
    found = begun(store)
    found.observe_restart(0.12, None)
    found.observe_restart(0.5, 3.0)
    assert found.totals["restart.gap sum"] == pytest.approx(0.62)
    assert found.totals["restart.drain sum"] == 3.0
