"""The HTTP side as the daemon knows it: threads, start, quiesce, resume, retire, stop.

Called by the arbiter only. The threads: ``http`` (loop.py), ``http-worker-N`` (the application), ``pump``.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from netclawd.adapters.http.app import create_app
from netclawd.adapters.http.loop import Loop
from netclawd.adapters.http.options import HttpOptions
from netclawd.adapters.http.pump import Pump
from netclawd.adapters.http.quiescence import Closing, Quiescence
from netclawd.adapters.http.workers import Spawn, Workers
from netclawd.core.listeners import Kept
from netclawd.ports import Exposition, Quiesced, Service

logger = logging.getLogger("netclawd.http")

#: Descriptors left for everything that isn't a connection.
_RESERVED_FDS = 128
#: Connections left for what isn't a stream, however few descriptors there are.
_RESERVED_CONNECTIONS = 64
#: The loop must have begun to accept within this, seconds.
_START_S = 10.0
#: At a stop without a quiesce: what unfinished requests get, seconds.
_STOP_REQUEST_S = 0.2


class WaitressHttpServer:
    """Implements :class:`netclawd.ports.HttpServer`."""

    def __init__(
        self, service: Service, options: HttpOptions, spawn: Spawn, expose: Exposition
    ) -> None:
        self._service = service
        self._options = options
        self._spawn = spawn
        limit = _connection_limit()
        most = min(options.max_streams, limit - _RESERVED_CONNECTIONS)
        if most < options.max_streams:
            logger.warning("RLIMIT_NOFILE allows only %d of %d streams", most, options.max_streams)
        self._loop: Loop
        self._pump = Pump(
            service,
            most,
            options.heartbeat_s,
            on_end=lambda watcher: self._loop.on_stream_end(watcher),
            on_fewer=lambda: self._loop.pull_trigger(),
        )
        application = create_app(service, options, self._pump, expose)
        self._loop = Loop(application, service.generation, options, limit)
        self._loop.pump = self._pump
        self._threads: list[threading.Thread] = []

    def start(self, listeners: Mapping[str, Any], kept: Sequence[Kept]) -> None:
        """Serve these listening sockets (name -> socket.socket) and the connections kept open.

        The sockets and the descriptors of ``kept`` are the server's from here on.
        """
        loop = self._loop
        loop.workers = Workers(self._spawn, self._options.threads)
        for name, sock in listeners.items():
            loop.listen(name, sock)
        for connection in kept:
            loop.adopt(connection)
        self._service.watch(self._pump)
        self._threads = [self._spawn("pump", self._pump.run), self._spawn("http", loop.run)]
        if not loop.serving.wait(_START_S):
            raise RuntimeError("the http loop did not start")

    def serving_since(self) -> float:
        """Return the monotonic instant at which the loop began to accept."""
        return self._loop.serving_since

    def last_turn(self) -> float | None:
        """Return the monotonic instant of the loop's last turn, of which one comes each second at
        least; None in its pause between quiesce and resume, and when it has ended."""
        loop = self._loop
        return loop.turned_at if self._threads and not loop.paused else None

    def streams(self) -> int:
        """Return how many event streams, long polls and chat completions are open."""
        return self._pump.open()

    def quiesce(
        self, deadline: float, retry_after_s: int, done: Callable[[Quiesced], None]
    ) -> None:
        """Stop accepting, end streams, let requests finish until ``deadline`` (monotonic), then
        answer the rest 503; call ``done`` from the loop's thread when nothing is in progress.

        From then on no thread touches a descriptor of HTTP until :meth:`resume` or :meth:`stop`.
        """
        self._loop.post(Quiescence(self._loop, deadline, retry_after_s, done).begin)

    def resume(self) -> None:
        """Undo a quiesce: accept again, go on with the kept connections (execve failed)."""
        self._pump.resume()
        self._loop.post(self._resume)

    def _resume(self) -> None:
        self._loop.each_turn = None
        self._loop.quiescing = False
        self._loop.paused = False

    def retire(self, names: Sequence[str], done: Callable[[], None]) -> None:
        """Accept what is queued on these listeners, then close them; the connections live on."""
        self._loop.post(partial(self._loop.retire, names, done))

    def empty(self, listeners: Mapping[str, Any]) -> None:
        """Accept what is queued on sockets that are not served, and close them."""
        self._loop.post(partial(self._loop.empty, listeners))

    def stop(self, timeout_s: float, leave: Collection[str] = ()) -> None:
        """Close everything politely and end the threads; it takes ``timeout_s`` at most.

        Clients that have sent something get 503 with Retry-After, the others an orderly end; those in
        the queues of the listeners in ``leave`` are the next daemon's.
        """
        until = time.monotonic() + timeout_s
        if not self._threads:
            return
        self._service.unwatch(self._pump)
        self._loop.post(partial(self._begin_stop, until, leave))
        pump, http = self._threads
        http.join(max(0.0, until - time.monotonic()))
        if http.is_alive():
            self._loop.post(self._loop.end)
            http.join(_STOP_REQUEST_S)
        self._pump.stop()
        pump.join(_STOP_REQUEST_S + max(0.0, until - time.monotonic()))
        if self._loop.workers.end(max(until, time.monotonic() + _STOP_REQUEST_S)):
            self._loop.close()
        else:
            # Its worker will still pull the trigger.
            logger.warning("a request was still running at the end of the http server")
        self._threads = []

    def _begin_stop(self, until: float, leave: Collection[str]) -> None:
        retry_after_s = self._service.retry_after_s()
        closing = Closing(self._loop, retry_after_s, until, leave)
        if self._loop.paused:
            closing.begin()
            return
        deadline = min(until, time.monotonic() + _STOP_REQUEST_S)

        def on_quiet(_quiet: Quiesced) -> None:
            closing.begin()

        Quiescence(self._loop, deadline, retry_after_s, on_quiet).begin()


def _connection_limit() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    return max(soft - _RESERVED_FDS, 2 * _RESERVED_CONNECTIONS)
