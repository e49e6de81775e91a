"""Makes the adapters at the edges of the process: HTTP, control socket, watcher, supervisor, journal.

Names adapters only. What serving needs is imported first and alone, so each import stands where it is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from socket import socket
from typing import TYPE_CHECKING, Any

from netclawd.adapters.log import Send
from netclawd.core.settings import Settings
from netclawd.ports import Exposition, FdStore, HttpServer, Service

if TYPE_CHECKING:
    from netclawd.adapters.control.server import ControlServer
    from netclawd.adapters.http.workers import Spawn


def journal_sender() -> Send:
    from netclawd.adapters.journal import JournalSender

    return JournalSender()


def make_http(
    service: Service, settings: Settings, spawn: Spawn, resolve: Callable[[str], str]
) -> HttpServer:
    """Return the HTTP side; ``resolve`` returns the secret that a reference names."""
    from netclawd.adapters.clock import SystemClock
    from netclawd.adapters.http.options import HookOptions, HttpOptions
    from netclawd.adapters.http.server import WaitressHttpServer
    from netclawd.core.listeners import parse_addresses

    daemon, hooks = settings.daemon, settings.hooks
    secrets = {name: resolve(hook.secret) for name, hook in hooks.items()}
    options = HttpOptions(
        threads=daemon.http_threads,
        max_streams=daemon.max_streams,
        addresses=parse_addresses(daemon.listen),
        allowed_hosts=daemon.allowed_hosts,
        trusted_proxies=daemon.trusted_proxies,
        hooks=HookOptions(hooks, secrets, SystemClock().wall),
    )
    return WaitressHttpServer(service, options, spawn, _exposition(service))


def _exposition(service: Service) -> Exposition:
    """Return what renders the metrics; its library is not needed to serve."""
    made: Exposition | None = None

    def expose(accept: str | None) -> tuple[str, bytes]:
        nonlocal made
        if made is None:
            from netclawd.adapters.metrics import PrometheusExposition

            made = PrometheusExposition(service.metrics)
        return made(accept)

    return expose


def make_control(service: Service, spawn: Spawn) -> ControlServer:
    from netclawd.adapters.control.server import ControlServer
    from netclawd.cli.agent import is_of_a_command

    return ControlServer(service, spawn, is_of_a_command)


def bind_control_socket(path: str) -> socket:
    from netclawd.adapters.control.server import bind_control

    return bind_control(path)


def make_watcher(path: str, spawn: Spawn) -> Any:
    from netclawd.adapters.watch import FileWatcher

    return FileWatcher(path, spawn)


def reach_fd_store(address: str) -> Callable[[], FdStore] | None:
    """Return the way to what the supervisor keeps, None where none asks to be told."""

    def reach() -> FdStore:
        from netclawd.adapters.fd_store import SystemdFdStore

        return SystemdFdStore(address)

    return reach if address else None


class HostCalendar:
    """Implements :class:`netclawd.ports.reminders.Calendar`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        from netclawd.adapters.cron import CroniterCron

        self.cron = CroniterCron()
        self._environ = environ

    def host_zone(self) -> str:
        from netclawd.adapters.zone import host_zone

        return host_zone(self._environ)


def import_rest() -> None:
    """Import what answers what is seldom asked."""
    import netclawd.adapters.control.outbox
    import netclawd.adapters.control.reminders
    import netclawd.adapters.http.hooks
    import netclawd.adapters.http.openapi
    import netclawd.adapters.metrics
    import netclawd.core.listing  # noqa: F401
