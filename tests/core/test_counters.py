"""The totals: events and observations go in, nothing is lost or counted twice, and it all crosses execve."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.counters import (
    DRAIN,
    GAP,
    EventCounts,
    add_events,
    buckets,
    count_from,
    observe,
    of_type,
    place_of,
)
from netclawd.core.session import EventType

ADMITTED, COMPLETED = EventType.INPUT_ADMITTED, EventType.TURN_COMPLETED


def test_counting_begins_where_it_is_told_to() -> None:
    assert place_of({}) is None
    assert place_of(count_from({}, 0)) == 0
    assert place_of(count_from({"turn.completed": 2.0}, 17)) == 17


def test_events_are_added_to_what_is_known() -> None:
    first = EventCounts(5, {(ADMITTED, "false"): 3, (COMPLETED, ""): 2})
    second = EventCounts(9, {(ADMITTED, "true"): 1, (ADMITTED, "false"): 2, ("later", "x y"): 1})
    assert first.events == 5
    before = count_from({}, 0)
    totals = add_events(add_events(before, first), second)
    assert place_of(totals) == 9
    assert of_type(totals, ADMITTED) == {"false": 5, "true": 1}
    assert of_type(totals, COMPLETED) == {"": 2}
    assert of_type(totals, EventType.TURN_PARKED) == {}
    assert totals["later x y"] == 1, "what a newer release counted is kept"
    assert before == count_from({}, 0), "the totals before are left as they were"


def test_one_event_type_is_not_taken_for_another_that_begins_alike() -> None:
    totals = add_events({}, EventCounts(2, {("restart", ""): 1, ("restart.gap", ""): 1}))
    assert of_type(totals, EventType.RESTART) == {"": 1}


@given(st.lists(st.floats(0, 100, allow_nan=False)))
def test_a_histogram_holds_every_observation(values: list[float]) -> None:
    totals: dict[str, float] = {"turn.completed": 1.0}
    for value in values:
        totals = observe(totals, GAP, value)
    rows, total = buckets(totals, GAP)
    assert [bound for bound, _ in rows] == list(GAP.bounds)
    assert [count for _, count in rows] == [sum(v <= bound for v in values) for bound in GAP.bounds]
    assert math.isclose(total, sum(values), abs_tol=1e-9)
    assert buckets(totals, DRAIN) == (tuple((bound, 0.0) for bound in DRAIN.bounds), 0.0)


def test_a_bound_of_another_release_counts_in_the_next_higher_one() -> None:
    rows, _ = buckets({"restart.gap 0.07": 2.0, "restart.gap 60": 1.0}, GAP)
    assert dict(rows) == {bound: (bound >= 0.1) * 2.0 + math.isinf(bound) for bound in GAP.bounds}


def test_every_histogram_ends_with_infinity_and_ascends() -> None:
    for histogram in (GAP, DRAIN):
        assert list(histogram.bounds) == sorted(set(histogram.bounds))
        assert histogram.bounds[-1] == math.inf
