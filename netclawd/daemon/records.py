"""Log records that an operator looks for: their words, their MESSAGE_ID and their ids.

Every record of a running image also has GENERATION, PHASE and, while a restart or a stop is under
way, RESTART_ID.
"""

from __future__ import annotations

import logging

from netclawd.core.lifecycle import Phase
from netclawd.core.notices import Notice
from netclawd.core.session import Lease, ParkReason, Turn
from netclawd.core.settings import Exposure
from netclawd.daemon.image import Image
from netclawd.daemon.status import Tally

_log = logging.getLogger("netclawd.lifecycle")
_turns = logging.getLogger("netclawd.turns")

#: Of a record that tells why the daemon is degraded.
DEGRADED = {"MESSAGE_ID": Notice.DEGRADED}


class _Circumstances(logging.Filter):
    """Passes every record, and gives it the fields that it doesn't bring along."""

    def __init__(self, image: Image) -> None:
        super().__init__()
        self._image = image

    def filter(self, record: logging.LogRecord) -> bool:
        image = self._image
        known = {
            "GENERATION": str(image.generation or ""),
            "PHASE": image.phase.value,
            "RESTART_ID": image.restart_id or _restart_id_of_start(image),
        }
        for name, value in known.items():
            if value:
                vars(record).setdefault(name, value)
        return True


def _restart_id_of_start(image: Image) -> str:
    record = image.parts.handoff
    under_way = image.phase in (Phase.STARTING, Phase.WARMING)
    return str(record.restart.id) if record is not None and under_way else ""


def describe_records(image: Image) -> None:
    """Let every record say which image it comes from, and what that is about."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Circumstances(image))


# -- of the lifecycle ----------------------------------------------------------------------------


def say_started(image: Image) -> None:
    record = image.parts.handoff
    addresses = [str(a) for a in image.listeners.held if a not in image.retiring]
    # The walk that waited for this may have led on to the next phase already.
    extra: dict[str, str] = {"MESSAGE_ID": Notice.STARTED, "PHASE": Phase.READY}
    if record is not None:
        extra["RESTART_ID"] = record.restart.id
    _log.info("ready: generation %d serves %s", image.generation, ", ".join(addresses), extra=extra)


def say_last_good(image: Image) -> None:
    """Say so where this start could not serve what the file has."""
    refusal = image.parts.beginning.refusal
    if refusal is not None:
        _log.error(
            "the last good configuration is served: %s %s",
            refusal.reason,
            refusal.remedy,
            extra={"MESSAGE_ID": Notice.LAST_GOOD},
        )


def say_unauthenticated(image: Image) -> None:
    """Say at each start that nobody is authenticated, where the operator has allowed that."""
    daemon = image.settings.daemon
    if not daemon.allow_unauthenticated:
        return
    if daemon.exposure is Exposure.LOCAL:
        _log.warning("daemon.allow_unauthenticated is set, without effect: the exposure is local")
        return
    _log.warning(
        "the daemon authenticates nobody (daemon.allow_unauthenticated): whoever comes in by %s can"
        " drive every session",
        daemon.exposure.value,
        extra={"MESSAGE_ID": Notice.UNAUTHENTICATED},
    )


def say_drained(tally: Tally, drain_s: float | None) -> None:
    _log.info(
        "drained turns: %d at a checkpoint, %d cut, %d parked, %d deferred, in %.1f s",
        tally.drained,
        tally.cut,
        tally.parked,
        tally.deferred,
        drain_s or 0.0,
        extra={"MESSAGE_ID": Notice.DRAINED},
    )


# -- of turns ------------------------------------------------------------------------------------


def ids(turn: Turn | Lease) -> dict[str, str]:
    """Return the fields that name a turn."""
    turn_id = turn.turn_id if isinstance(turn, Lease) else turn.id
    return {"SESSION_ID": turn.session_id, "TURN_ID": turn_id}


def say_parked(turn: Turn | Lease, reason: ParkReason) -> None:
    """Say that a turn waits for a person; after the commit of that."""
    extra = {**ids(turn), "MESSAGE_ID": Notice.PARKED, "REASON": reason.value}
    _turns.info("turn parked: %s", reason.value, extra=extra)


def say_resumed(turn: Turn | Lease, cause: str, restart_id: str = "") -> None:
    """Say that a turn goes on (cause: restart, stop, crash, approval, request); after its commit."""
    extra = {**ids(turn), "MESSAGE_ID": Notice.RESUMED, "CAUSE": cause}
    if restart_id:
        extra["RESTART_ID"] = restart_id
    _turns.info("turn resumed: cause %s", cause, extra=extra)
