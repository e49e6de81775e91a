"""A stage: somewhere the image's definitions run, under a real s6, as the tests and an operator see it.

Each kind of stage brings up the same files in another place: :mod:`tests.container.namespace` under a plain
s6 and as PID 1 of a namespace, :mod:`tests.container.podman` in a container. What a stage answers to is here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tests.systemd.machine import Result

#: As the image sets it.
ENVIRONMENT = {
    "CONFIGURATION_DIRECTORY": "/etc/netclaw",
    "NETCLAW_CONTAINER_SUPERVISOR": "s6",
    "RUNTIME_DIRECTORY": "/run/netclaw",
    "STATE_DIRECTORY": "/var/lib/netclaw",
}
CONFIG, STATE = ENVIRONMENT["CONFIGURATION_DIRECTORY"], ENVIRONMENT["STATE_DIRECTORY"]


class Stage(Protocol):
    """Started by :meth:`start`, not by the context, whose end removes all of it in whatever state it is."""

    #: The folders outside that are its volumes; they outlive its end, so that it can be started again.
    config: Path
    state: Path
    #: Its service folder, inside.
    service: str
    #: PID of its PID 1 as this system sees it.
    pid: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def start(self) -> None:
        """Begin, or begin again on the same volumes; return once its s6 supervises the service."""

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 30.0,
        user: str | None = None,
        stdin: str | bytes = "",
    ) -> Result:
        """Run a command inside, with the image's environment, as the container's own user by default."""

    def proc(self, pid: int, name: str) -> Path:
        """Return the place of a file in /proc about a process; ``pid`` is what it is inside."""

    def network(self) -> AbstractContextManager[None]:
        """Put this thread, and those that it starts, into its network."""

    def words(self) -> str:
        """Return all that it has printed since it was first started: the container's log."""

    def terminate(self) -> None:
        """Ask it to stop, as a runtime does (TERM to PID 1); return at once."""

    def wait_end(self, timeout_s: float) -> int:
        """Wait until it has ended; return its exit code."""

    def kill(self) -> None:
        """End it as a power failure does."""
