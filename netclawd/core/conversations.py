"""What a conversation is told of a restart or a stop, and how its sentences are named.

Pure. One conversation hears at most one of these sentences for each restart, whichever comes first.
"""

from __future__ import annotations

from netclawd.core.outgoing import OutgoingId

DEFERRED = "Restarting, I'll answer in a moment."
REJECTED = "Restarting, try again in a minute."
DEFERRED_AT_STOP = "I'm being stopped and will answer when I'm back."
REJECTED_AT_STOP = "I'm being stopped, try again later."
LATE = "I was restarted and am still working on this."

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
