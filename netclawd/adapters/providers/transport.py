"""HTTP over requests: a pool of connections, each of which a call's :class:`Line` can end.

requests' adapter is used without its Session, because a session follows redirects, keeps cookies and
reads ``~/.netrc``, and a call must do none of it. What differs from requests' own connections:
connecting is the line's, who holds the socket from then on.

A proxy is taken from the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) as curl does,
but never for the loopback. Certificates are always verified, against REQUESTS_CA_BUNDLE or
SSL_CERT_FILE where one is set.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3

from netclawd.adapters.providers.deadlines import Cut, Line

#: Idle connections that are kept for each server.
KEPT = 16
PIECE_BYTES = 64 * 1024

_here = threading.local()


class UnreachableError(Exception):
    """No answer came; the text says why, in words that follow a colon."""

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.why = why
        self.again = again


class BrokenOffError(Exception):
    """The connection broke in the midst of an answer."""


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        super().begin()
        _here.line.answer = self


class _Connecting:
    """What both kinds of connection do differently: see the module."""

    response_class = _Answer

    def connect(self) -> None:
        """Connect, TLS and a proxy's tunnel included."""
        _here.line.allow(Cut.CONNECT, _here.timeouts_s[0])
        _here.line.reused = False
        super().connect()  # type: ignore[misc]
        _here.line.allow(Cut.FIRST_BYTE, _here.timeouts_s[1])

    def _new_conn(self) -> Any:
        this: Any = self
        return _here.line.connect(this.host.strip("[]"), this.port, this.socket_options or ())

    def putrequest(self, *arguments: Any, **more: Any) -> None:
        this: Any = self
        if this.sock is not None and _here.line.reused:
            _here.line.attach(this.sock)
            _here.line.allow(Cut.FIRST_BYTE, _here.timeouts_s[1])
        super().putrequest(*arguments, **more)  # type: ignore[misc]


class _HttpConnection(_Connecting, urllib3.connection.HTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_Connecting, urllib3.connection.HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(urllib3.HTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _HttpsConnection


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(requests.adapters.HTTPAdapter):  # type: ignore[misc]
    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **more: Any) -> Any:
        found = super().proxy_manager_for(*arguments, **more)
        found.pool_classes_by_scheme = _POOLS
        return found


class Answer:
    """An answer whose head has come."""

    def __init__(self, line: Line, response: Any) -> None:
        self._line = line
        self._response = response
        self._body: http.client.HTTPResponse = line.answer
        self.status: int = response.status_code
        #: Any case will do.
        self.headers: Mapping[str, str] = response.headers

    def read(self) -> bytes:
        """Return the next piece as soon as there is one, nothing at the end."""
        try:
            return self._body.read1(PIECE_BYTES)
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise BrokenOffError(type(error).__name__) from None

    def finish(self) -> None:
        """Keep the connection if all of the body was read, else close it."""
        if self._body.length == 0:
            # http.client notices the end of a body of known length only by a read beyond it.
            self._body.close()
        if self._body.isclosed() and self._line.why is None:
            self._response.raw.release_conn()
        else:
            self._response.close()


class Transport:
    def __init__(self) -> None:
        self._adapter = _Adapter(pool_connections=4, pool_maxsize=KEPT)

    def post(
        self,
        line: Line,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts_s: tuple[float, float],
    ) -> Answer:
        """Send a request and wait for the head of the answer: seconds to connect, and from then on.

        UnreachableError when none comes.
        """
        try:
            prepared = requests.Request("POST", url, headers=dict(headers), data=body).prepare()
            proxies = find_proxies(url)
        except (requests.RequestException, ValueError):
            raise UnreachableError("its address can't be used", again=False) from None
        _here.line, _here.timeouts_s = line, timeouts_s
        try:
            line.check()
            response = self._adapter.send(
                prepared, stream=True, timeout=None, verify=find_certificates(), proxies=proxies
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _explain(error) from None
        finally:
            _here.line = None
        return Answer(line, response)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._adapter.close()


def find_proxies(url: str) -> dict[str, str]:
    """Return the proxy for this URL as the environment names it."""
    if on_loopback(urlsplit(url).hostname or ""):
        return {}
    return dict(requests.utils.get_environ_proxies(url, no_proxy=None))


def on_loopback(host: str) -> bool:
    """Whether a host is this one by its name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_certificates() -> str | bool:
    """Return the file or folder of the authorities to trust; True: those that requests brings."""
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := os.environ.get(name):
            return path
    return True


def _explain(error: BaseException) -> UnreachableError:
    """Say why a request failed, never in a library's words: they may hold anything."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted ({cause.verify_message})"
            return UnreachableError(why, again=False)
        if isinstance(cause, ssl.SSLError):
            return UnreachableError(f"TLS fails ({cause.reason or 'cut off'})", again=True)
        if isinstance(cause, http.client.RemoteDisconnected | ConnectionError):
            words = getattr(cause, "strerror", None)
            return UnreachableError(words or "it closed the connection", again=True)
        if isinstance(cause, http.client.HTTPException):
            return UnreachableError("it does not speak HTTP", again=False)
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            words = cause.strerror or str(cause)
            return UnreachableError(words or type(cause).__name__, again=True)
    retried = isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError)
    return UnreachableError(f"the request fails ({type(error).__name__})", again=retried)


def _causes(error: BaseException) -> list[BaseException]:
    """Return the innermost cause first; libraries keep it in ``args`` or ``reason`` as well."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 16:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__context__, one.__cause__, getattr(one, "reason", None), *one.args]
    return found[::-1]
