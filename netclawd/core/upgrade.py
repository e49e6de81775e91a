"""What a package upgrade in progress means for a restart: it is held back, and tried again later.

Pure. While a package is being replaced the code on disk may be half of one release and half of the
next, and a new image, or the rehearsal of one, would be made of both. So the package's scripts leave a
marker in the runtime folder before anything is unpacked and take it away when all is in place.

Invariant: nobody waits for ever. A marker that is older than :data:`budgets.UPGRADE_MARKER_S`, or as far
ahead of the clock, was forgotten (dpkg was killed, the clock jumped) and holds nothing back.
"""

from __future__ import annotations

from netclawd.core import budgets
from netclawd.core.events import BY_ITSELF, Refusal, Request
from netclawd.core.values import replace

#: Name of the marker in the runtime folder.
MARKER = "upgrading"
#: The one for the daemons of single users, whose runtime folders the package doesn't know.
PACKAGE_MARKER = "/run/netclawd.upgrading"
#: Below it lies the code that the package replaces.
PACKAGED_CODE = "/usr/lib/python3/"
#: What a restart is refused as. It says nothing of the configuration, so nothing is remembered by it.
SLUG = "upgrading"


def markers(runtime_marker: str, code: str) -> tuple[str, ...]:
    """Return where a daemon looks for a marker that runs the code of this folder."""
    packaged = code.startswith(PACKAGED_CODE)
    return (runtime_marker, PACKAGE_MARKER) if packaged else (runtime_marker,)


def is_fresh(written_at: float, wall: float) -> bool:
    """Tell whether a marker holds restarts back: wall clock, seconds since the epoch."""
    return abs(wall - written_at) < budgets.UPGRADE_MARKER_S


def refusal(path: str) -> Refusal:
    """Return what a restart is told while the marker at ``path`` is fresh."""
    minutes = budgets.UPGRADE_MARKER_S / 60
    return Refusal(
        SLUG,
        f"A package upgrade is under way ({path} is there), so the code on disk may be incomplete.",
        "Wait: it is tried again by itself once the upgrade is over. If none is, run "
        f"`dpkg --configure -a` or remove the file; after {minutes:.0f} minutes it counts as forgotten.",
    )


def join(held: Request | None, came: Request) -> Request:
    """Return the one request that stands for both when the upgrade is over.

    Who asked by name gets more than a change of the file does (new code is run, what was refused is
    tried again), so that is the one to keep.
    """
    if held is None:
        return came
    kept = came if held.trigger.kind in BY_ITSELF else held
    return replace(kept, force=held.force or came.force)
