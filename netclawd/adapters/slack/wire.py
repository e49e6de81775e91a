"""One TCP connection, with TLS and a proxy's tunnel where they are due, that can be cut from any thread.

slack_sdk opens its sockets where nobody else can reach them: a handshake that hangs, or a call, would outlive
the moment before execve in which descriptors are put in their places. So its sockets are these. All of them
belong to one :class:`Wires`, which ends them together.

The socket never blocks; what waits is poll(2), which shutdown(2) ends. A TLS connection isn't for two threads
at once, so each step of it is made under a lock, and no wait is.
"""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from netclawd.core.slack import is_local

_PIECE_BYTES = 64 * 1024
_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
#: A send that the other side does not take is given up after this.
SEND_S = 5.0
#: Longest head of a proxy's answer.
_HEAD_BYTES = 16 * 1024


class WireError(OSError):
    """The connection can't be had, or has ended; the text says why, in words that follow a colon."""


class WireCutError(WireError):
    """It was cut from outside."""


class Wires:
    """All connections of a channel; once closed it has none and makes none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Wire] = set()
        self._closed = False

    def open(self, url: str, deadline: float) -> Wire:
        """Connect to the host of a URL before ``deadline`` (monotonic); WireError."""
        wire = Wire(self._forget)
        with self._lock:
            if self._closed:
                raise WireCutError("the channel is at rest")
            self._open.add(wire)
        try:
            wire.connect(url, deadline)
        except (ValueError, KeyError):
            wire.close()
            raise WireError("its address is none") from None
        except BaseException:
            wire.close()
            raise
        return wire

    def cut(self) -> None:
        """End all of them, and what is made from now on; does not wait."""
        with self._lock:
            self._closed = True
            wires = list(self._open)
        for wire in wires:
            wire.cut()

    @property
    def any(self) -> bool:
        with self._lock:
            return bool(self._open)

    def _forget(self, wire: Wire) -> None:
        with self._lock:
            self._open.discard(wire)


class Wire:
    def __init__(self, on_close: Callable[[Wire], None]) -> None:
        self._on_close = on_close
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False
        self._woken = threading.Event()
        #: Monotonic instant at which something was last heard.
        self.heard_at = time.monotonic()

    # -- connecting --

    def connect(self, url: str, deadline: float) -> None:
        target = urlsplit(url)
        host, port = target.hostname or "", target.port or _PORTS[target.scheme]
        proxy = _find_proxy(target)
        if proxy is None:
            self._reach(host, port, deadline)
        else:
            self._reach(proxy.hostname or "", proxy.port or 80, deadline)
            self._ask_proxy(proxy, host, port, deadline)
        if target.scheme in ("https", "wss"):
            self._encrypt(host, deadline)

    def _reach(self, host: str, port: int, deadline: float) -> None:
        problem = WireError("its name has no address")
        addresses = self._resolve(host, port, deadline)
        for place, (family, kind, protocol, _, address) in enumerate(addresses):
            left = (deadline - time.monotonic()) / (len(addresses) - place)
            self._take(socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
            try:
                self._try(address, time.monotonic() + left)
            except WireCutError:
                raise
            except WireError as error:
                problem = error
            else:
                return
        raise problem

    def _take(self, fresh: socket.socket) -> None:
        """Hold a socket instead of the one before."""
        fresh.setblocking(False)
        with self._lock:
            before, self._socket = self._socket, fresh
        if before is not None:
            before.close()
        self._check()

    def _try(self, address: Any, deadline: float) -> None:
        here = self._held()
        try:
            here.connect(address)
        except BlockingIOError:
            self._wait(select.POLLOUT, deadline, "it does not answer")
        except OSError as error:
            raise WireError(error.strerror or "it can't be reached") from None
        if (code := here.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
            self._check()
            raise WireError(os.strerror(code))
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _resolve(self, host: str, port: int, deadline: float) -> Sequence[Any]:
        """Find the addresses of a name, in a thread of its own: nothing ends a getaddrinfo(3)."""
        try:
            return socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            pass  # It is no address but a name.
        found: list[Sequence[Any]] = []

        def look() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError):
                found.append(())
            self._woken.set()

        threading.Thread(target=look, name="resolve", daemon=True).start()
        self._woken.wait(max(0.0, deadline - time.monotonic()))
        self._check()
        if not found or not found[0]:
            raise WireError("its name can't be resolved")
        return found[0]

    def _ask_proxy(self, proxy: SplitResult, host: str, port: int, deadline: float) -> None:
        lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
        if proxy.username is not None:
            pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {b64encode(pair.encode()).decode()}")
        self.send_all(("\r\n".join([*lines, "", ""])).encode(), deadline)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = self.recv(1, deadline)
            head += piece
            if not piece or len(head) > _HEAD_BYTES:
                raise WireError("the proxy breaks the connection off")
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            code = status[0].decode("ascii", "replace")[:3] if status else "no HTTP"
            raise WireError(f"the proxy refuses the connection ({code})")

    def _encrypt(self, host: str, deadline: float) -> None:
        context = _context()
        with self._lock:
            plain = self._socket
            if plain is None:
                raise WireCutError("it was ended")
            self._socket = context.wrap_socket(
                plain, server_hostname=host, do_handshake_on_connect=False
            )
        self._check()
        self._do(lambda here: here.do_handshake(), deadline, "TLS is not spoken in time")

    # -- talking --

    def recv(self, size: int, deadline: float | None = None) -> bytes:
        """Return what there is, nothing at the end of the stream; WireError."""
        piece = bytes(self._do(lambda here: here.recv(size), deadline, "it does not answer"))
        self.heard_at = time.monotonic()
        return piece

    def send_all(self, data: bytes, deadline: float | None = None) -> None:
        if deadline is None:
            deadline = time.monotonic() + SEND_S
        left = memoryview(data)
        while left:
            part = left
            sent = self._do(lambda here: here.send(part), deadline, "it is deaf", select.POLLOUT)  # noqa: B023
            left = left[sent:]

    def cut(self) -> None:
        """End it; from any thread, and nothing waits."""
        self._cut = True
        self._woken.set()
        with self._lock:
            if self._socket is not None:
                try:
                    # Not the method of a TLS socket, which would go on in the clear.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    pass  # It is not connected: nothing waits for it.

    def close(self) -> None:
        with self._lock:
            held, self._socket = self._socket, None
        if held is not None:
            held.close()
        self._on_close(self)

    def _do(
        self,
        act: Callable[[Any], Any],
        deadline: float | None,
        late: str,
        blocked: int = select.POLLIN,
    ) -> Any:
        """Do one step of the socket; while it would block, wait for ``blocked`` and do it again."""
        while True:
            try:
                with self._lock:
                    self._check()
                    return act(self._held())
            except BlockingIOError:
                wanted = blocked
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            except ssl.SSLCertVerificationError as error:
                raise WireError(
                    f"its certificate is not trusted ({error.verify_message})"
                ) from None
            except ssl.SSLError as error:
                self._check()
                raise WireError(f"TLS fails ({error.reason or 'cut off'})") from None
            except WireError:
                raise
            except OSError as error:
                self._check()
                raise WireError(error.strerror or "it breaks the connection off") from None
            self._wait(wanted, deadline, late)

    def _wait(self, wanted: int, deadline: float | None, late: str) -> None:
        waiting = select.poll()
        try:
            waiting.register(self._held(), wanted)
        except ValueError:
            raise WireCutError("it was ended") from None
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = waiting.poll(left)
        self._check()
        if not ready:
            raise WireError(late)

    def _held(self) -> socket.socket:
        if self._socket is None:
            raise WireCutError("it was ended")
        return self._socket

    def _check(self) -> None:
        if self._cut:
            raise WireCutError("it was ended")


class Reader(io.RawIOBase):
    """What http.client reads of a wire, until an instant."""

    def __init__(self, wire: Wire, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._wire.recv(min(len(buffer), _PIECE_BYTES), self._deadline)
        buffer[: len(piece)] = piece
        return len(piece)


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _find_proxy(target: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for this target, as curl reads it."""
    host = target.hostname or ""
    scheme = {"wss": "https", "ws": "http"}.get(target.scheme, target.scheme)
    proxies = getproxies()
    address = proxies.get(scheme) or proxies.get("all")
    if not address or is_local(host) or proxy_bypass(host):
        return None
    return urlsplit(address if "//" in address else f"http://{address}")
