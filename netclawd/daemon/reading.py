"""Takes the look that the metrics show; for whoever serves a scrape, from any thread, in any phase."""

from __future__ import annotations

from netclawd.core.reading import ListenQueue, Reading
from netclawd.daemon.image import Image
from netclawd.daemon.listen_queues import namespace_trouble, queue_of
from netclawd.daemon.status import degraded_reasons


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
    )


def _queues(image: Image) -> dict[str, ListenQueue]:
    found = ((address, queue_of(sock)) for address, sock in image.listeners.pairs())
    return {str(address): queue for address, queue in found if queue is not None}
