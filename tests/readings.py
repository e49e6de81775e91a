"""A look at the metrics as a daemon in the middle of its life gives it."""

from __future__ import annotations

from typing import Any

from netclawd.core.counters import DRAIN, GAP, observe
from netclawd.core.reading import Census, ChannelReading, ListenQueue, ListenTrouble, Reading
from netclawd.core.values import replace

TOTALS = {
    "place": 90.0,
    "input.admitted false": 7.0,
    "input.admitted true": 2.0,
    "turn.completed": 5.0,
    "turn.failed provider-busy": 1.0,
    "turn.interrupted drained": 2.0,
    "turn.interrupted cut": 1.0,
    "turn.resumed restart": 3.0,
    "turn.parked approval": 1.0,
    "tool.unknown": 1.0,
    "reply.sent": 5.0,
}


def a_reading(**changes: Any) -> Reading:
    """Return one in which there is something of everything."""
    totals = observe(observe(TOTALS, GAP, 0.12), DRAIN, 1.5)
    reading = Reading(
        version="0.1.0",
        generation=3,
        phase="ready",
        started_at=1_700_000_000.0,
        degraded=0,
        refused=False,
        streams=4,
        totals=totals,
        census=Census(
            {"idle": 6, "queued": 1},
            {"queued": 2},
            {"pending": 1},
            {"applied": 2},
            {"input": 900, "output": 70},
            {"active": 3, "paused": 1},
            {"started": 2, "done": 8, "skipped": 4},
        ),
        store_answers=True,
        listeners={"127.0.0.1:5199": ListenQueue(waiting=1, limit=2048, drops=3)},
        namespace=ListenTrouble(overflows=11, drops=12),
        channels={
            "slack": ChannelReading(
                connected=True,
                event_age_s=60.5,
                alive_age_s=1.5,
                deferred=2,
                messages={"pending": 3, "ambiguous": 1, "failed": 0},
            )
        },
        overdue=5,
    )
    return replace(reading, **changes)
