"""Our files in the runtime folder: no address may take their place, and the control socket comes back.

Cleaners of temporary folders empty it under a running daemon. That is looked for on the main thread,
once a second; one stat(2) while all is well. The lock is held on a file without a name then; whoever
starts a second daemon meanwhile meets the first one's addresses before it touches the store.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from netclawd.core.lifecycle import Phase
from netclawd.core.words import shown
from netclawd.daemon import records
from netclawd.daemon.image import Image
from netclawd.daemon.signals import blocked
from netclawd.errors import ConfigMeaningError, NetclawError

log = logging.getLogger("netclawd.lifecycle")

#: What lies in the runtime folder under names that nobody else may use.
OURS = {"control.sock": "control socket", "netclawd.lock": "lock", "netclawd.pid": "PID file"}


def refuse_our_files(listen: Sequence[str], runtime: str) -> None:
    """Raise ConfigMeaningError for a Unix socket in the place of one of our files.

    A start would bind it there first, and then put its own file over it.
    """
    for text in listen:
        folder, name = os.path.split(text.removeprefix("unix:"))
        if not text.startswith("unix:/") or name not in OURS:
            continue
        if os.path.realpath(folder) == os.path.realpath(runtime):
            raise ConfigMeaningError(
                f"The address {shown(text)} in daemon.listen is the daemon's own {OURS[name]}.",
                "Choose another name, for example api.sock in the same folder.",
            )


def restore_control(image: Image) -> None:
    """Listen at the control socket's path again when nothing lies there any more."""
    folders = image.parts.folders
    path = folders.control_socket
    if image.phase is not Phase.READY or image.control is None or os.path.lexists(path):
        return
    try:
        os.makedirs(folders.runtime, mode=0o755, exist_ok=True)
        fresh = image.parts.bind_control()
    except (OSError, NetclawError) as error:
        if "control" not in image.degraded:
            log.error(
                "the control socket has gone and can't be made again: %s",
                error,
                extra=records.DEGRADED,
            )
        image.degraded["control"] = f"The control socket has gone: {error}"
        return
    image.control.stop()
    with blocked():
        image.control.start(fresh)
    image.control_socket = fresh
    image.degraded.pop("control", None)
    log.warning("the control socket had gone; it is there again: %s", path)
