"""Keeps the way in: a runtime folder that was emptied under the daemon gets its control socket back.

Cleaners of temporary folders do that. Called on the main thread, once a second; one stat(2) while
all is well. The lock is held on a file without a name then; whoever starts a second daemon meanwhile
meets the first one's addresses before it touches the store.
"""

from __future__ import annotations

import logging
import os

from netclawd.core.lifecycle import Phase
from netclawd.daemon.image import Image
from netclawd.daemon.signals import blocked
from netclawd.errors import NetclawError

log = logging.getLogger("netclawd.lifecycle")


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
            log.error("the control socket has gone and can't be made again: %s", error)
        image.degraded["control"] = f"The control socket has gone: {error}"
        return
    image.control.stop()
    with blocked():
        image.control.start(fresh)
    image.control_socket = fresh
    image.degraded.pop("control", None)
    log.warning("the control socket had gone; it is there again: %s", path)
