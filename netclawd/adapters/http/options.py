"""What the HTTP side is told once, at its construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from netclawd.core.listeners import Address
from netclawd.core.settings import HookSettings
from netclawd.core.values import field, frozen


@frozen
class HookOptions:
    """The hooks that there are, and what they are judged by."""

    #: By name.
    hooks: Mapping[str, HookSettings]
    #: What each refers to, by name.
    secrets: Mapping[str, str]
    #: Wall clock, seconds since the epoch.
    wall: Callable[[], float]

    def __repr__(self) -> str:
        return f"HookOptions({sorted(self.hooks)})"  # No secret.


def _never() -> float:
    raise RuntimeError("without hooks nobody asks for the time")


def _no_hooks() -> HookOptions:
    return HookOptions({}, {}, _never)


@frozen
class HttpOptions:
    """Limits and names; the sockets come with :meth:`WaitressHttpServer.start`."""

    #: Threads that run requests.
    threads: int = 8
    #: Event streams, long polls and chat completions open at the same time, at most.
    max_streams: int = 1024
    #: Configured addresses: their hosts are acceptable in Host and Origin.
    addresses: tuple[Address, ...] = ()
    #: Further acceptable hosts (``daemon.allowed_hosts``).
    allowed_hosts: tuple[str, ...] = ()
    #: CIDR networks whose X-Forwarded-Host is believed.
    trusted_proxies: tuple[str, ...] = ()
    #: A connection on which nothing happens is closed after this long, seconds.
    idle_timeout_s: float = 120.0
    #: A request must have arrived whole this long after its first byte, seconds; else 408.
    receive_timeout_s: float = 60.0
    #: An event stream gets a comment line this often, seconds.
    heartbeat_s: float = 15.0
    #: Webhooks.
    hooks: HookOptions = field(default_factory=_no_hooks)


#: Largest body of a request.
MAX_BODY_BYTES = 1 << 20
#: Largest request line and headers together.
MAX_HEADER_BYTES = 64 << 10
#: Longest ``wait_s`` of a long poll, seconds.
MAX_WAIT_S = 60.0
