"""What a container tells its programs: that something else starts the daemon, and where s6 supervises it.

Pure. The marker means that and nothing more: under it nobody but the supervisor ever starts a daemon of
this home; stopping and restarting one is as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from netclawd.core.values import frozen

#: The marker; its value names the supervisor.
MARKER = "NETCLAW_CONTAINER_SUPERVISOR"
#: The service folder that s6 supervises, if it is not :data:`SERVICE_FOLDER`.
SERVICE = "NETCLAW_S6_SERVICE"
#: Where s6-overlay has it.
SERVICE_FOLDER = "/run/service/netclawd"
#: What to do when s6 can't say why there is no daemon.
CONTAINER_LOG = "Look at the container's log: `podman logs`, `docker logs` or `kubectl logs`."


@frozen
class Container:
    """The supervisor of a container, which owns the lifecycle of this home."""

    #: What the marker says, "s6" in our image.
    supervisor: str
    #: Absolute path of the service folder, which need not exist.
    service: str

    @property
    def label(self) -> str:
        return "the container's supervisor"


def read_marker(environ: Mapping[str, str]) -> Container | None:
    """Return what the environment says; None without a marker, which an empty one is."""
    supervisor = environ.get(MARKER, "")
    if not supervisor:
        return None
    return Container(supervisor, environ.get(SERVICE, "") or SERVICE_FOLDER)
