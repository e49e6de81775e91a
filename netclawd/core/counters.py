"""What is counted and goes on over a restart.

Pure. Nothing is counted while the daemon works: the durable events of the store are the count. A
look folds those that came since the last one into **totals**, a flat map of numbers that remembers
with :data:`PLACE` up to which event it has counted. The totals cross execve in the handoff record;
what an image committed and had not yet counted is counted by the next one, also when that image
failed and was rolled back. What the store doesn't hold (how long a restart took) is added to the same map.

Keys of the totals: ``turn.parked approval`` (an event's type and what tells it apart, if anything),
``restart.gap 0.1`` (observations up to that bound and above the one before), ``restart.gap sum``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from netclawd.core.session import EventType
from netclawd.core.values import frozen

Totals = Mapping[str, float]

#: Key of the place of the newest event that is counted.
PLACE = "place"


@frozen
class EventCounts:
    """How many durable events there are behind a place, by type and by what tells them apart."""

    #: Place of the newest event among them; the place that was asked about when there are none.
    place: int
    #: (type, detail); the detail is empty where a type has none.
    counts: Mapping[tuple[str, str], int]

    @property
    def events(self) -> int:
        return sum(self.counts.values())


@frozen
class Histogram:
    name: str
    #: Upper bounds, ascending; the last is infinite.
    bounds: tuple[float, ...]


#: From the last accept of the old image to the first turn of the new one's loop, seconds.
GAP = Histogram("restart.gap", (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, math.inf))
#: From closing the gate to the last turn's checkpoint, seconds.
DRAIN = Histogram("restart.drain", (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, math.inf))


def place_of(totals: Totals) -> int | None:
    """Return the place up to which events are counted, None when no counting has begun."""
    place = totals.get(PLACE)
    return None if place is None else int(place)


def count_from(totals: Totals, place: int) -> dict[str, float]:
    """Return the totals as they begin to count behind a place."""
    return {**totals, PLACE: float(place)}


def add_events(totals: Totals, counts: EventCounts) -> dict[str, float]:
    """Return the totals with these events in them."""
    result = count_from(totals, counts.place)
    for (kind, detail), count in counts.counts.items():
        _add(result, f"{kind} {detail}".rstrip(), count)
    return result


def of_type(totals: Totals, kind: EventType) -> dict[str, float]:
    """Return how many events of a type there were, by what tells them apart."""
    found = {}
    for key, count in totals.items():
        name, _, detail = key.partition(" ")
        if name == kind.value:
            found[detail] = count
    return found


def observe(totals: Totals, histogram: Histogram, value: float) -> dict[str, float]:
    """Return the totals with one more observation."""
    result = dict(totals)
    bound = next(bound for bound in histogram.bounds if value <= bound)
    _add(result, f"{histogram.name} {bound:g}", 1)
    _add(result, f"{histogram.name} sum", value)
    return result


def buckets(totals: Totals, histogram: Histogram) -> tuple[tuple[tuple[float, float], ...], float]:
    """Return (bound, observations up to it) for each bound, and the sum of what was observed.

    Bounds of a release with others count in the next higher one of this release.
    """
    exact = dict.fromkeys(histogram.bounds, 0.0)
    total = 0.0
    for key, count in totals.items():
        name, _, rest = key.partition(" ")
        if name != histogram.name:
            continue
        if rest == "sum":
            total = count
        else:
            exact[next(bound for bound in histogram.bounds if float(rest) <= bound)] += count
    running, rows = 0.0, []
    for bound in histogram.bounds:
        running += exact[bound]
        rows.append((bound, running))
    return tuple(rows), total


def _add(totals: dict[str, float], key: str, value: float) -> None:
    totals[key] = totals.get(key, 0.0) + value
