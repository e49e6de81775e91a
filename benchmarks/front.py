"""The daemon's HTTP side alone: its server, its application and its thread count, and nothing behind.

No arbiter and so no tick, watchdog or status line; no store, engine, watcher, control socket, lock or
metrics. What the whole daemon serves less than this is what that machinery costs.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from socket import socket
from typing import Any

from netclawd.adapters.http.options import HttpOptions
from netclawd.adapters.http.server import WaitressHttpServer
from netclawd.core.listeners import parse_addresses

#: As daemon.backlog is by default.
BACKLOG = 1024


class NoDaemon:
    """Stands for the service: health is all that is asked of it."""

    def generation(self) -> int:
        return 1

    def retry_after_s(self) -> int:
        return 1

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return True, {"phase": "ready", "generation": 1, "digest": "0" * 64}

    def watch(self, watch: Any) -> None: ...
    def unwatch(self, watch: Any) -> None: ...


def spawn(name: str, run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(name=name, target=run, daemon=True)
    thread.start()
    return thread


def no_metrics(_accept: str | None) -> tuple[str, bytes]:
    return "text/plain", b""


def main() -> None:
    port, threads = int(sys.argv[1]), int(sys.argv[2])
    options = HttpOptions(threads=threads, addresses=parse_addresses([f"127.0.0.1:{port}"]))
    service: Any = NoDaemon()
    listening = socket()
    listening.setblocking(False)
    listening.bind(("127.0.0.1", port))
    listening.listen(BACKLOG)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = WaitressHttpServer(service, options, spawn, no_metrics)
    server.start({f"tcp4=127.0.0.1={port}": listening}, ())
    gc.freeze()  # As the daemon does.
    signal.sigwait({signal.SIGTERM})
    server.stop(1.0)


if __name__ == "__main__":
    main()
