"""Starts real servers on loopback sockets, hands what one leaves to the next, and ends them all."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from netclawd.adapters.http.options import HttpOptions
from netclawd.adapters.http.server import WaitressHttpServer
from netclawd.adapters.metrics import PrometheusExposition
from netclawd.core.listeners import Kept
from netclawd.core.session import SessionId
from netclawd.ports import Quiesced
from tests.http.live_service import LiveService
from tests.http.wire import Answer, Wire
from tests.waiting import scaled, wait_for


def spawn(name: str, run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def listening(host: str = "127.0.0.1") -> tuple[str, socket.socket]:
    """Return a listening socket on a free port, with its descriptor name."""
    sock = socket.create_server((host, 0), backlog=1024)
    sock.setblocking(False)
    return f"tcp4={host}={sock.getsockname()[1]}", sock


class Running:
    """One image's HTTP side."""

    def __init__(
        self,
        service: LiveService | None = None,
        listeners: dict[str, socket.socket] | None = None,
        kept: Sequence[Kept] = (),
        **options: Any,
    ) -> None:
        self.service = service or LiveService()
        exposition = PrometheusExposition(self.service.metrics)
        self.server = WaitressHttpServer(self.service, HttpOptions(**options), spawn, exposition)
        self.listeners = dict([listening()]) if listeners is None else listeners
        self.address = ("", 0)
        for sock in self.listeners.values():
            self.address = sock.getsockname()[:2]
        self.server.start(self.listeners, kept)

    def wire(self) -> Wire:
        return Wire(self.address)

    def ask(self, method: str, path: str, body: Any = None, /, **headers: str | None) -> Answer:
        """Ask on a connection of its own."""
        with self.wire() as wire:
            return wire.ask(method, path, body, **headers)

    def new_session(self) -> SessionId:
        return self.service.create_session().id

    def channels(self) -> list[Any]:
        return self.server._loop.channels()

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, 10, what, interval_s=0.002)

    def wait_connected(self, count: int) -> None:
        """Wait until the server has accepted this many connections and they are idle."""
        self.wait_until(
            lambda: len(self.channels()) == count and not any(c.busy for c in self.channels()),
            f"{count} idle connections",
        )

    def begin_quiesce(self, timeout_s: float = 10.0) -> Quiescing:
        return Quiescing(self, timeout_s)

    def quiesce(self, timeout_s: float = 10.0) -> Quiesced:
        return self.begin_quiesce(timeout_s).result()

    def stop(self, timeout_s: float = 5.0) -> None:
        self.service.may_answer.set()
        self.server.stop(scaled(timeout_s))


class Quiescing:
    """A quiesce under way."""

    def __init__(self, running: Running, timeout_s: float) -> None:
        self._done = threading.Event()
        self._found: list[Quiesced] = []
        self._began_at = time.monotonic()
        self.took_s = 0.0
        running.server.quiesce(self._began_at + scaled(timeout_s), 7, self._on_done)

    def _on_done(self, found: Quiesced) -> None:
        self.took_s = time.monotonic() - self._began_at
        self._found.append(found)
        self._done.set()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def result(self) -> Quiesced:
        assert self._done.wait(scaled(20)), "the server did not come to rest"
        assert len(self._found) == 1
        return self._found[0]


class Images:
    """The images of one process, one after the other: what execve would carry over is duplicated."""

    def __init__(self) -> None:
        self.all: list[Running] = []

    def first(self, **arguments: Any) -> Running:
        running = Running(**arguments)
        self.all.append(running)
        return running

    def after(self, old: Running, found: Quiesced, **options: Any) -> Running:
        """Serve in a second server what the first has left; the first's descriptors are closed."""
        kept = [Kept(os.dup(k.fd), k.peer, k.listener, k.lingering) for k in found.kept]
        listeners = {name: sock.dup() for name, sock in old.listeners.items()}
        self._forget(old)
        old.service.status_values["generation"] += 1
        running = Running(old.service, listeners, kept, **options)
        self.all.append(running)
        return running

    def _forget(self, old: Running) -> None:
        """End an image as execve does: its threads and descriptors vanish, nothing is sent."""
        loop = old.server._loop

        def vanish() -> None:
            for channel in loop.channels():
                channel.socket.close()
            loop.end()

        loop.post(vanish)
        old.stop()
        self.all.remove(old)

    def stop(self) -> None:
        for running in self.all:
            running.stop()
