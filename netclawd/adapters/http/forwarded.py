"""What proxies say of a request, taken from those that are listed and from nobody else.

One hop: a proxy appends what it knows to the list that it got, so its own word is the last entry, and
all before it is hearsay. Only X-Forwarded-Host has a use here: behind a proxy it is the host that the
client asked for, which is judged in place of Host. Who the client is (X-Forwarded-For) and by which
scheme it came (X-Forwarded-Proto) decides nothing. So no forwarded header gets past this place, and no
part of the application can come to believe one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from netclawd.adapters.http.origin import Gatekeeper

#: In the WSGI environment: the host that a trusted proxy was asked for.
ENV_FORWARDED_HOST = "netclawd.forwarded-host"
_HOST = "HTTP_X_FORWARDED_HOST"

Environ = MutableMapping[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


def without_forwarded(application: Application, gate: Gatekeeper) -> Application:
    """Return the application behind the only reader of forwarded headers."""

    def serve(environ: Environ, start_response: Any) -> Iterable[bytes]:
        take_forwarded(environ, gate)
        return application(environ, start_response)

    return serve


def take_forwarded(environ: Environ, gate: Gatekeeper) -> None:
    """Take the forwarded headers out, and keep the last hop's host if its peer is trusted."""
    found = [name for name in environ if _is_forwarded(name)]
    if not found:
        return
    host = environ.get(_HOST)
    for name in found:
        del environ[name]
    if host is not None and gate.proxy_trusted(environ["REMOTE_ADDR"]):
        environ[ENV_FORWARDED_HOST] = host.rpartition(",")[2].strip()


def _is_forwarded(name: str) -> bool:
    return name == "HTTP_FORWARDED" or name.startswith("HTTP_X_FORWARDED")
