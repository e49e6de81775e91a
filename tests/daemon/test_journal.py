"""The restart journal: waited for, durable where something happened, bounded. A real store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.daemon.journal import KEPT, Journal
from netclawd.ports import Store
from tests.waiting import scaled


def record(name: str, outcome: Outcome = Outcome.APPLIED, at: float = 1.0) -> RestartRecord:
    return RestartRecord(
        id=RestartId(name), outcome=outcome, trigger="hup", actor="", requested_at=at, ended_at=at
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqliteStore.open(str(tmp_path / "netclawd.db"))) as opened:
        opened.begin_generation(1.0, None)
        yield opened


@pytest.fixture
def journal(store: Store) -> Journal:
    made = Journal()
    made.attach(store)
    return made


def test_an_outcome_is_known_at_once(journal: Journal) -> None:
    journal.record(record("a"))
    assert journal.outcome(RestartId("a"), 0.0) == record("a")


def test_an_outcome_is_waited_for(journal: Journal) -> None:
    """By several; nobody is woken by the outcome of another request."""
    found: list[RestartRecord | None] = []
    waiting = [
        threading.Thread(target=lambda: found.append(journal.outcome(RestartId("a"), scaled(20.0))))
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    journal.record(record("b"))
    assert found == []
    journal.record(record("a", Outcome.REFUSED))
    for thread in waiting:
        thread.join()
    assert found == [record("a", Outcome.REFUSED)] * 3


def test_a_wait_has_an_end(journal: Journal) -> None:
    began = time.monotonic()
    assert journal.outcome(RestartId("never"), 0.05) is None
    assert 0.05 <= time.monotonic() - began < scaled(5)


def test_what_happened_is_durable(journal: Journal, store: Store) -> None:
    for name, outcome in (("a", Outcome.REFUSED), ("b", Outcome.FAILED), ("c", Outcome.STOPPED)):
        journal.record(record(name, outcome))
    assert {r.id for r in store.restarts(10)} == {"a", "b", "c"}


def test_what_changed_nothing_never_fills_the_store(journal: Journal, store: Store) -> None:
    for number in range(50):
        journal.record(record(f"r{number}", Outcome.UNCHANGED))
    assert store.restarts(100) == ()
    known = journal.outcome(RestartId("r49"), 0.0)
    assert known is not None
    assert known.outcome is Outcome.UNCHANGED, "but who asked is answered"


def test_memory_is_bounded_and_the_store_knows_the_rest(journal: Journal, store: Store) -> None:
    for number in range(KEPT + 10):
        journal.record(record(f"u{number}", Outcome.UNCHANGED))
    journal.record(record("kept"))
    for number in range(KEPT):
        journal.record(record(f"v{number}", Outcome.UNCHANGED))
    assert len(journal._recent) == KEPT
    assert journal.outcome(RestartId("u0"), 0.0) is None
    assert journal.outcome(RestartId("kept"), 0.0) == record("kept")


def test_the_outcome_of_an_earlier_image_is_not_waited_for(journal: Journal, store: Store) -> None:
    """A client that lost its connection asks the new image for the old one's answer."""
    store.record_restart(record("old"))
    began = time.monotonic()
    assert journal.outcome(RestartId("old"), 60.0) == record("old")
    assert time.monotonic() - began < scaled(5)


def test_a_restart_under_way_has_no_outcome_yet(journal: Journal, store: Store) -> None:
    store.record_restart(record("a", Outcome.PENDING))
    assert journal.outcome(RestartId("a"), 0.0) is None


def test_while_the_store_is_closed_outcomes_are_still_told(journal: Journal, store: Store) -> None:
    """Between the close and the end of the process, and before the arbiter has detached it."""
    store.close()
    assert journal.outcome(RestartId("a"), 0.0) is None
    journal.record(record("a"))
    assert journal.outcome(RestartId("a"), 0.0) == record("a")
    journal.attach(None)
    journal.record(record("b"))
    assert journal.outcome(RestartId("b"), 0.0) == record("b")
    assert journal.outcome(RestartId("c"), 0.0) is None


def test_a_store_that_fails_is_logged_and_the_one_who_waits_is_answered(
    journal: Journal, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.close()
    journal.record(record("a", Outcome.REFUSED))
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "restart not recorded" in caplog.text
    assert journal.outcome(RestartId("a"), 0.0) is not None


def test_what_could_not_be_written_is_written_when_there_is_a_store_again(
    journal: Journal, store: Store, tmp_path: Path
) -> None:
    store.close()
    journal.record(record("a", Outcome.REFUSED))
    journal.record(record("b"))
    with closing(SqliteStore.open(str(tmp_path / "netclawd.db"))) as again:
        journal.attach(again)
        assert {entry.id for entry in again.restarts(9)} == {"a", "b"}
        journal.attach(again)
        assert len(again.restarts(9)) == 2


def test_the_last_is_the_newest_that_changed_something(journal: Journal) -> None:
    assert journal.last() is None
    journal.record(record("a", Outcome.REFUSED))
    journal.record(record("b", Outcome.UNCHANGED))
    assert journal.last() == record("a", Outcome.REFUSED)
