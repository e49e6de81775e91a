"""What the HTTP side is told once, at its construction."""

from __future__ import annotations

from netclawd.core.listeners import Address
from netclawd.core.values import frozen


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


#: Largest body of a request.
MAX_BODY_BYTES = 1 << 20
#: Largest request line and headers together.
MAX_HEADER_BYTES = 64 << 10
#: Longest ``wait_s`` of a long poll, seconds.
MAX_WAIT_S = 60.0
