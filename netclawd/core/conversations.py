"""What a conversation is told of a restart, a stop, and a turn that comes to no reply, and how its sentences
are named.

Pure. One conversation hears at most one sentence for each restart, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

from netclawd.core.outgoing import OutgoingId
from netclawd.core.session import EventType, NewEvent, ParkReason

DEFERRED = "Restarting, I'll answer in a moment."
REJECTED = "Restarting, try again in a minute."
DEFERRED_AT_STOP = "I'm being stopped and will answer when I'm back."
REJECTED_AT_STOP = "I'm being stopped, try again later."
LATE = "I was restarted and am still working on this."

CANCELLED = "Cancelled."
#: Where a turn stands that waits for somebody who isn't asked here.
PARKED = {
    ParkReason.RESUME_LIMIT: "I've stopped working on this: restarts have interrupted it too often. "
    "An operator can let it go on.",
    ParkReason.RESUME_DEADLINE: "I've stopped working on this: it was interrupted too long ago. "
    "An operator can let it go on.",
    ParkReason.REQUEST: "An operator has paused this. It goes on when they resume it.",
}

#: After the end of a drain its sentences are not true any more, seconds.
GRACE_S = 10.0
#: So long the sentence about a late reply is worth sending, seconds.
LATE_S = 60.0


def sentence(*, deferred: bool, stopping: bool) -> str:
    """Return what is said of a message that comes while the gate is closed."""
    if deferred:
        return DEFERRED_AT_STOP if stopping else DEFERRED
    return REJECTED_AT_STOP if stopping else REJECTED


def notice_id(occasion: str, channel: str, route: str) -> OutgoingId:
    """Name the one sentence of a conversation about a restart."""
    return OutgoingId(f"notice:{occasion}:{channel}:{route}")


def late_id(known: OutgoingId) -> OutgoingId:
    """Name the sentence about a late reply where the one before it was dropped unsent."""
    return OutgoingId(f"{known}:late")


def occasion(restart_id: str, generation: int) -> str:
    """Name a restart: by its id, or by the generation that a crash has brought."""
    return restart_id or f"generation-{generation}"


def said_instead(events: Sequence[NewEvent]) -> str | None:
    """Return what is said in the place of a reply by events that end a turn without one, else None."""
    for event in events:
        if event.type is EventType.TURN_CANCELLED:
            return CANCELLED
        if event.type is EventType.TURN_FAILED:
            words = ("I couldn't answer:", event.data.get("reason"), event.data.get("remedy"))
            return " ".join(word for word in words if word)
    return None


def said_meanwhile(events: Sequence[NewEvent]) -> str | None:
    """Return what is said of events that park a turn for somebody who isn't asked here, else None."""
    for event in events:
        if event.type is EventType.TURN_PARKED and event.data.get("reason") in PARKED:
            return PARKED[event.data["reason"]]
    return None
