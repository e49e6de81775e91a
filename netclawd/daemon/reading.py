"""Takes the look that the metrics show; for whoever serves a scrape, from any thread, in any phase."""

from __future__ import annotations

from netclawd.core.budgets import REMINDER_ON_TIME_S
from netclawd.core.reading import ChannelReading, ListenQueue, Reading
from netclawd.daemon.image import Image
from netclawd.daemon.listen_queues import namespace_trouble, queue_of
from netclawd.daemon.status import channels_and_outbox, degraded_reasons
from netclawd.errors import StoreError
from netclawd.ports.channels import ChannelPhase


def read(image: Image) -> Reading:
    """Take a look: all that the metrics show."""
    totals, census, fresh = image.counters.look(image.store)
    return Reading(
        version=image.parts.version,
        generation=image.generation,
        phase=image.phase.value,
        started_at=image.parts.origin.started_at,
        degraded=len(degraded_reasons(image)),
        refused=image.refusal is not None,
        streams=image.http.streams() if image.http is not None else 0,
        totals=totals,
        census=census,
        store_answers=fresh,
        listeners=_queues(image),
        namespace=namespace_trouble(),
        channels=_channels(image),
        overdue=_overdue(image),
    )


def _channels(image: Image) -> dict[str, ChannelReading]:
    now = image.parts.clock.wall()

    def age(at: float | None) -> float | None:
        return None if at is None else max(0.0, now - at)

    return {
        row["name"]: ChannelReading(
            connected=row["state"] == ChannelPhase.CONNECTED,
            event_age_s=age(row["last_event_at"]),
            alive_age_s=age(row["last_alive_at"]),
            deferred=row["deferred"],
            messages={state: row[state] for state in ("pending", "ambiguous", "failed")},
        )
        for row in channels_and_outbox(image)["channels"]
    }


def _overdue(image: Image) -> int | None:
    store = image.store  # Read once: the arbiter may take it away.
    try:
        late = image.parts.clock.wall() - REMINDER_ON_TIME_S
        return store.reminders.overdue(late) if store is not None else None
    except StoreError:
        return None


def _queues(image: Image) -> dict[str, ListenQueue]:
    found = ((address, queue_of(sock)) for address, sock in image.listeners.pairs())
    return {str(address): queue for address, queue in found if queue is not None}
