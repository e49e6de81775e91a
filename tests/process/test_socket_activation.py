"""Sockets that a supervisor hands over: claimed by name, kept through restarts, retired like any."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from netclawd.errors import EXIT_CONFIG
from tests.process.client import ask, listens
from tests.process.harness import Daemon
from tests.waiting import wait_for

#: Does what systemd does between fork and exec: argv is the inherited descriptor and the command.
ACTIVATE = """
import os, sys
number = int(sys.argv[1])
if number != 3:
    os.dup2(number, 3)
    os.close(number)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, "-m", "netclawd"])
"""


class Activated(Daemon):
    """A daemon that is started with one listening socket named ``web``."""

    def __init__(self, web: socket.socket, **options: Any) -> None:
        super().__init__(**options)
        self.web = web

    def command(self) -> list[str]:
        return [sys.executable, "-c", ACTIVATE, str(self.web.fileno())]


#: Not a loopback address, and nobody's: nothing can really come in by it.
DOCUMENTATION_HOST = "192.0.2.1"


def listening(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
    sock.bind((host, 0))
    sock.listen(16)
    return sock


@pytest.fixture
def activated() -> Iterator[Activated]:
    with listening() as web:
        daemon = Activated(web)
        with daemon:
            yield daemon


def test_a_socket_is_kept_through_restarts_and_retired_when_it_is_no_longer_named(
    activated: Activated,
) -> None:
    daemon, port = activated, activated.web.getsockname()[1]
    daemon.write_config(listen=["fd:web", f"127.0.0.1:{daemon.port}"])
    daemon.start(pass_fds=[daemon.web.fileno()])
    assert ask(port, "/api/health/live").generation == 1

    assert daemon.reload(force=True)["outcome"] == "applied"
    assert ask(port, "/api/health/live").generation == 2

    # The supervisor keeps its own end, here we let go of it: then the last to close ends it.
    daemon.web.close()
    daemon.write_config()
    assert daemon.reload()["outcome"] in ("applied", "unchanged")
    wait_for(lambda: not listens(port), 5.0, "the socket to be closed")
    assert "nobody claimed" not in daemon.errors()
    daemon.write_config(listen=["fd:web", f"127.0.0.1:{daemon.port}"])
    refused = daemon.reload()
    assert (refused["outcome"], refused["slug"]) == ("refused", "address-unavailable")
    assert "handed over no socket named 'web'" in refused["reason"]


def test_a_socket_that_others_reach_is_refused_at_the_start() -> None:
    with listening(DOCUMENTATION_HOST) as web, Activated(web) as daemon:
        daemon.write_config(listen=["fd:web"])
        daemon.spawn([web.fileno()])
        assert daemon.wait_exit() == EXIT_CONFIG
        assert "Daemon startup aborted: The socket fd:web" in daemon.errors()
        assert "Remediation: " in daemon.errors()


def test_a_loopback_socket_handed_over_is_nothing_for_a_proxy_elsewhere() -> None:
    behind = {
        "exposure": "reverse-proxy",
        "trusted_proxies": ["192.0.2.0/24"],
        "allow_unauthenticated": True,
    }
    with listening() as web, Activated(web, tables={"daemon": behind}) as daemon:
        daemon.write_config(listen=["fd:web"])
        daemon.spawn([web.fileno()])
        assert daemon.wait_exit() == EXIT_CONFIG
        assert "every address in daemon.listen is a loopback one" in daemon.errors()


def test_a_socket_that_others_reach_is_refused_by_a_reload() -> None:
    exposed = {
        "exposure": "reverse-proxy",
        "trusted_proxies": ["192.0.2.0/24"],
        "allow_unauthenticated": True,
    }
    with listening(DOCUMENTATION_HOST) as web, Activated(web, tables={"daemon": exposed}) as daemon:
        listen = ["fd:web", f"127.0.0.1:{daemon.port}"]
        daemon.write_config(listen=listen)
        daemon.start(pass_fds=[web.fileno()])
        daemon.write_config(listen=listen, tables={"daemon": {"exposure": "local"}})
        entry = daemon.reload()
        assert (entry["outcome"], entry["slug"]) == ("refused", "config-meaning")
        assert "fd:web" in entry["reason"]
        assert daemon.generation() == 1
