"""The supervisor keeps the listeners: over a crash and over its own restarts nobody is refused."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.process.client import ask, listens
from tests.process.faults import Fault, kill_points
from tests.process.harness import free_port, full_or
from tests.process.load import (
    LOAD_NEW,
    Ledger,
    Target,
    ask_over,
    check_nothing_lost,
    new_connections,
    under_load,
)
from tests.process.notify_socket import NotifySocket
from tests.process.supervised import Supervised
from tests.process.talk import accepted, check_history, new_session, wait_all_ended, wait_event
from tests.waiting import wait_for

pytestmark = pytest.mark.long

KILLS = full_or(3, 20)

#: Where the listeners change hands; `make prove` tries every point.
_DECISIVE = {("after", "ListenNew"), ("before", "Image"), ("after", "Serve"), ("before", "Retire")}
POINTS = [p for p in kill_points() if full_or((p.when, p.effect) in _DECISIVE, True)]

Make = Callable[..., Supervised]
Supervisor = Callable[..., NotifySocket]


@pytest.fixture
def make_supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with ExitStack() as stack:

        def make(room: int = 16) -> NotifySocket:
            address = str(tmp_path_factory.mktemp("n") / "notify")
            return stack.enter_context(NotifySocket(address, room=room))

        yield make


@pytest.fixture
def supervisor(make_supervisor: Supervisor) -> NotifySocket:
    return make_supervisor()


@pytest.fixture
def make_supervised() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Supervised(*arguments, **options))


def name_of(port: int) -> str:
    return f"tcp4=127.0.0.1={port}"


def wait_kept(supervisor: NotifySocket, *names: str) -> None:
    wanted = sorted(names)
    wait_for(
        lambda: supervisor.names() == wanted,
        10.0,
        lambda: f"{wanted} to be kept; kept are {supervisor.names()}",
    )


def refusals(ledgers: list[Ledger]) -> list[str]:
    return [line for ledger in ledgers for line in ledger.details if " refused: " in line]


def inodes(supervisor: NotifySocket) -> set[int]:
    """Return what tells the Unix sockets and files that are kept from others."""
    return {os.fstat(fd).st_ino for name, fd in supervisor.kept if not name.startswith("tcp4=")}


def connect_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(path))
    return sock


def test_a_kill_under_load_refuses_nobody_and_the_turn_goes_on(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor).start()
    session = ""
    with under_load(Target(daemon.port, session), LOAD_NEW) as ledgers:
        for _ in range(KILLS):
            session = new_session(daemon)
            accepted(daemon, session, "/count 10 0.1")
            wait_event(daemon, session, "turn.started")
            wait_kept(supervisor, name_of(daemon.port))
            before = daemon.generation()
            daemon.kill()
            daemon.spawn()
            assert daemon.wait_ready(above=before) == before + 1
    assert refusals(ledgers) == []
    assert all(ledger.counts["ok"] for ledger in ledgers)
    check_history(wait_all_ended(daemon, [session], timeout_s=60.0)[session])
    assert "nobody claimed" not in daemon.errors()


def test_a_client_that_connects_while_the_daemon_is_dead_is_served(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor).start()
    wait_kept(supervisor, name_of(daemon.port))
    daemon.kill()
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as waiting:
        daemon.start()
        assert ask_over(waiting).generation == 2


def test_an_address_that_goes_is_taken_back_before_it_refuses(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor).start()
    old = daemon.port
    wait_kept(supervisor, name_of(old))
    supervisor.slow.set()
    daemon.move_to(free_port())
    wait_for(
        lambda: "FDSTOREREMOVE" in fields(supervisor, name_of(old)), 20.0, "the old to be removed"
    )
    # The supervisor has not said yet that it is done: the old one still serves.
    assert listens(old)
    supervisor.slow.clear()
    wait_for(lambda: not listens(old), 5.0, "the old address to be refused")
    wait_kept(supervisor, name_of(daemon.port))
    barrier = supervisor.with_field("BARRIER")
    assert barrier
    assert {(notice.fields, notice.descriptors) for notice in barrier} == {((("BARRIER", "1"),), 1)}


def fields(supervisor: NotifySocket, name: str) -> list[str]:
    """Return what was told of this name, in order."""
    return [n.fields[0][0] for n in supervisor.with_field("FDNAME") if n["FDNAME"] == name]


def test_a_reexec_keeps_each_descriptor_once(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor).start()
    for _ in range(2):
        assert daemon.reload(force=True)["outcome"] == "applied"
    wait_for(
        lambda: fields(supervisor, name_of(daemon.port)).count("FDSTORE") == 3,
        10.0,
        "each image to store it",
    )
    wait_kept(supervisor, name_of(daemon.port))


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p.when}-{p.effect}")
def test_a_kill_anywhere_in_a_port_change_leaves_what_the_file_names(
    supervisor: NotifySocket, make_supervised: Make, point: Fault
) -> None:
    daemon = make_supervised(supervisor, faults=[point])
    old, new, stays = free_port(), free_port(), f"127.0.0.1:{daemon.port}"
    daemon.write_config(listen=[stays, f"127.0.0.1:{old}"])
    daemon.start()
    wait_kept(supervisor, name_of(daemon.port), name_of(old))
    wait_for(lambda: "Retire" in daemon.effects(when="after"), 10.0, "the first image to be done")
    with under_load(Target(daemon.port, ""), {"new": new_connections}) as ledgers:
        daemon.write_config(listen=[stays, f"127.0.0.1:{new}"])
        assert daemon.wait_exit() == -signal.SIGKILL
        daemon.spawn()
        daemon.wait_ready()
        # After a settled drain the last good configuration is served until somebody asks.
        daemon.reload(force=True)
        wait_kept(supervisor, name_of(daemon.port), name_of(new))
    assert refusals(ledgers) == []
    assert listens(new)
    wait_for(lambda: not listens(old), 10.0, "the old address to be refused")


def test_a_unix_socket_and_its_file_survive_a_kill(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor)
    path = daemon.home / "api.sock"
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"unix:{path}"])
    daemon.start()
    wait_for(lambda: len(supervisor.kept) == 3, 10.0, "both sockets and the file to be kept")
    inode = path.stat().st_ino
    daemon.kill()
    with connect_unix(path) as waiting:
        daemon.start()
        assert ask_over(waiting).generation == 2
    assert path.stat().st_ino == inode
    wait_for(lambda: fields(supervisor, supervisor.kept[-1][0]), 10.0, "them to be kept again")
    # It is known still whose file it is.
    daemon.write_config()
    wait_for(lambda: not path.exists(), 20.0, "the file to go with its address")
    wait_kept(supervisor, name_of(daemon.port))


@pytest.mark.parametrize("kind", ["tcp", "unix", "abstract"])
def test_what_the_configuration_no_longer_names_is_retired_by_the_next_start(
    supervisor: NotifySocket, make_supervised: Make, kind: str
) -> None:
    daemon = make_supervised(supervisor)
    path, port = daemon.home / "old.sock", free_port()
    old = {"tcp": f"127.0.0.1:{port}", "unix": f"unix:{path}", "abstract": f"unix:@{port}"}[kind]
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", old])
    daemon.start()
    wait_for(lambda: len(supervisor.kept) == (3 if kind == "unix" else 2), 10.0, "both to be kept")
    daemon.kill()
    daemon.write_config()
    daemon.start()
    wait_kept(supervisor, name_of(daemon.port))
    assert "nobody claimed" not in daemon.errors()
    if kind == "unix":
        wait_for(lambda: not path.exists(), 10.0, "the old file to be removed")
    if kind == "tcp":
        wait_for(lambda: not listens(port), 10.0, "the old address to be refused")


def test_what_nobody_claims_is_removed_at_the_start(
    supervisor: NotifySocket, make_supervised: Make, tmp_path: Path
) -> None:
    for name in ("unix=" + "0" * 32, "something"):
        with socket.socket() as other:
            supervisor.kept.append((name, other.detach()))
    daemon = make_supervised(supervisor).start()
    wait_kept(supervisor, name_of(daemon.port))
    assert "nobody claimed them" in daemon.errors()


def test_a_unix_socket_whose_path_was_lost_is_bound_anew(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor)
    path = daemon.home / "api.sock"
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"unix:{path}"])
    daemon.start()
    wait_for(lambda: len(supervisor.kept) == 3, 10.0, "all to be kept")
    old = inodes(supervisor)
    daemon.kill()
    path.unlink()
    daemon.start()
    with connect_unix(path) as sock:
        assert ask_over(sock).generation == 2
    wait_for(
        lambda: len(supervisor.kept) == 3 and not inodes(supervisor) & old,
        10.0,
        "the new one to be kept",
    )
    daemon.kill()
    with connect_unix(path) as waiting:
        daemon.start()
        assert ask_over(waiting).generation == 3


def test_a_socket_of_the_supervisors_own_is_never_stored(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    with socket.socket() as web:
        web.bind(("127.0.0.1", 0))
        web.listen(16)
        port = web.getsockname()[1]
        supervisor.kept.append(("web", web.detach()))
    daemon = make_supervised(supervisor)
    daemon.write_config(listen=["fd:web", f"127.0.0.1:{daemon.port}"])
    daemon.start()
    wait_for(lambda: name_of(daemon.port) in supervisor.names(), 10.0, "ours to be kept")
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert ask(port, "/api/health/live").generation == 2
    assert fields(supervisor, "web") == []


def test_a_restart_by_the_supervisor_refuses_nobody(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor)
    path = daemon.home / "api.sock"
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"unix:{path}"])
    daemon.start()
    with under_load(Target(daemon.port, ""), {"new": new_connections}) as ledgers:
        for number in range(KILLS):
            wait_for(lambda: len(supervisor.kept) == 3, 10.0, "all to be kept")
            assert daemon.stop() == 0
            with connect_unix(path) as waiting:
                daemon.spawn()
                assert daemon.wait_ready(above=number + 1) == number + 2
                assert ask_over(waiting).status == 200
    check_nothing_lost(ledgers)
    # At the stop of the unit the supervisor closes them, and then nobody is there.
    assert daemon.stop() == 0
    supervisor.clear()
    assert not listens(daemon.port)


def test_who_waits_in_the_queue_at_a_stop_is_served_by_the_next_start(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor)
    held = Fault("hold", "before", "Exit", until=daemon.home / "go")
    daemon.faults = [held]
    daemon.start()
    wait_kept(supervisor, name_of(daemon.port))
    daemon.signal(signal.SIGTERM)
    wait_for(lambda: held.reached, 20.0, "the daemon to have come to rest")
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as waiting:
        held.release()
        assert daemon.wait_exit() == 0
        daemon.start()
        answer = ask_over(waiting)
        assert (answer.status, answer.generation) == (200, 2)


def test_a_start_after_exit_75_finds_them_again(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor)
    daemon.faults = [Fault("raise", "before", "Serve", nth=n) for n in range(2, 6)]
    daemon.start()
    wait_kept(supervisor, name_of(daemon.port))
    with under_load(Target(daemon.port, ""), {"new": new_connections}) as ledgers:
        daemon.signal(signal.SIGHUP)
        daemon.control("reload", force=True)
        assert daemon.wait_exit() == 75
        daemon.faults = []
        daemon.spawn()
        daemon.wait_ready()
    assert refusals(ledgers) == []


def test_a_start_that_fails_leaves_them_for_the_next(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor).start()
    wait_kept(supervisor, name_of(daemon.port))
    daemon.kill()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        taken = f"127.0.0.1:{holder.getsockname()[1]}"
        daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", taken])
        daemon.spawn()
        assert daemon.wait_exit() == 75
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as waiting:
        daemon.write_config()
        daemon.start()
        assert ask_over(waiting).status == 200


def test_without_room_nothing_is_kept_and_it_is_said(
    make_supervisor: Supervisor, make_supervised: Make
) -> None:
    small = make_supervisor(room=1)
    daemon = make_supervised(small).start()
    wait_for(
        lambda: any("FileDescriptorStoreMax" in why for why in daemon.status()["degraded"]),
        10.0,
        "the lack of room to be said",
    )
    assert small.names() == []
    assert daemon.stop() == 0
    assert not listens(daemon.port)


def test_a_supervisor_without_a_store_is_nothing_to_complain_of(
    make_supervisor: Supervisor, make_supervised: Make
) -> None:
    daemon = make_supervised(make_supervisor(room=0)).start()
    wait_for(lambda: "keeps no descriptors" in daemon.errors(), 10.0, "it to be told")
    assert daemon.status()["degraded"] == []
    assert daemon.stop() == 0


def test_without_systemd_python_it_serves_degraded(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon = make_supervised(supervisor, environment={"TEST_HIDE": "systemd"})
    daemon.launcher = Path(__file__).with_name("launcher.py")
    daemon.start()
    reasons: Any = wait_for(lambda: daemon.status()["degraded"], 10.0, "it to be degraded")
    assert "python3-systemd" in reasons[0]
    assert "python3-systemd" in daemon.errors()
    wait_for(lambda: "degraded" in supervisor.status(), 5.0, "STATUS= to say so")
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert supervisor.names() == []
    assert daemon.stop() == 0
