"""An execve that fails: the old generation goes on, with its connections, its turns and its addresses."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port, full_or
from tests.process.talk import accepted, new_session, wait_event
from tests.process.test_faults import check_ends
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


@contextmanager
def idle_connection(daemon: Daemon) -> Iterator[Callable[[], int]]:
    """A connection that stays open; calling it makes a request over it and returns the status."""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=scaled(10)) as connection:

        def request() -> int:
            connection.sendall(b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = connection.recv(65536)
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(65536)
            return int(answer.split()[1])

        assert request() == 200
        yield request


def own_interpreter(daemon: Daemon) -> Path:
    """Start the daemon by an interpreter that can be taken away: a link in its home."""
    link = daemon.home / "bin" / "python"
    link.parent.mkdir()
    link.symlink_to(os.path.realpath(sys.executable))
    daemon.interpreter = str(link)
    paths = [str(Path(__file__).parents[2]), sysconfig.get_paths()["purelib"]]
    daemon.environment["PYTHONPATH"] = os.pathsep.join(paths)
    return link


def gone(link: Path) -> None:
    link.unlink()


def not_executable(link: Path) -> None:
    link.unlink()
    link.write_bytes(b"\x7fELF")
    link.chmod(0o644)


def not_a_program(link: Path) -> None:
    link.unlink()
    link.write_bytes(b"\x00 no program\n")
    link.chmod(0o755)


#: A reduced run takes the first of these, and of what the kernel refuses.
SPOILT = {
    "ENOENT": (gone, "No such file or directory"),
    "EACCES": (not_executable, "Permission denied"),
    "ENOEXEC": (not_a_program, "Exec format error"),
}
REFUSED = [("ENOMEM", "Cannot allocate memory"), ("E2BIG", "Argument list too long")]


@pytest.mark.parametrize("case", full_or(["ENOENT"], [*SPOILT]))
def test_an_interpreter_that_is_spoilt_after_the_rehearsal_fails_the_restart(
    make_daemon: Make, case: str
) -> None:
    spoil, words = SPOILT[case]
    daemon = make_daemon()
    hold = Fault("hold", "before", "Exec", until=daemon.home / "go")
    daemon.faults = [hold]
    link = own_interpreter(daemon)
    daemon.start()

    def break_it() -> None:
        wait_for(lambda: hold.reached, 20.0, "the execve to be near")
        spoil(link)
        hold.release()

    def mend_it() -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.realpath(sys.executable))

    check_failed_restart(daemon, words, break_it, mend_it)


@pytest.mark.parametrize(("errno", "words"), full_or(REFUSED[:1], REFUSED))
def test_an_execve_that_the_kernel_refuses_fails_the_restart(
    make_daemon: Make, errno: str, words: str
) -> None:
    daemon = make_daemon(faults=[Fault("execve", "before", "Exec", errno=errno)]).start()
    check_failed_restart(daemon, words, lambda: None, lambda: None)


def test_an_execve_that_fails_where_the_store_has_gone_ends_in_words_and_loses_no_turn(
    make_daemon: Make,
) -> None:
    """There is no way forward and none back: the supervisor's start is the way."""
    daemon = make_daemon()
    hold = Fault("hold", "before", "Exec", until=daemon.home / "go")
    daemon.faults = [hold]
    link = own_interpreter(daemon)
    daemon.tables["drain"] = {"model_timeout_s": 0.2}
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 40 0.05")
    wait_event(daemon, session, "turn.started")
    daemon.control("reload", force=True)
    wait_for(lambda: hold.reached, 20.0, "the execve to be near")
    link.unlink()
    state, away = daemon.home / "state", daemon.home / "away"
    state.rename(away)
    hold.release()
    assert daemon.wait_exit() == 1
    assert "execve failed: [Errno 2] No such file or directory" in daemon.errors()
    assert f"The session store {state}/netclawd.db can't be created" in daemon.errors()
    assert "Check that its folder exists" in daemon.errors()
    assert "Traceback" not in daemon.errors()

    away.rename(state)
    link.symlink_to(os.path.realpath(sys.executable))
    daemon.faults = []
    daemon.start()
    check_ends(daemon, session, " 40")
    assert daemon.restarts()[0]["outcome"] == "crashed"
    assert daemon.stop() == 0


def check_failed_restart(
    daemon: Daemon, words: str, break_it: Callable[[], None], mend_it: Callable[[], None]
) -> None:
    """The old generation goes on with its connections and turns; the next restart succeeds."""
    session, port = new_session(daemon), free_port()
    accepted(daemon, session, "/count 40 0.05")
    wait_event(daemon, session, "turn.started")
    with idle_connection(daemon) as request:
        old = [f"127.0.0.1:{daemon.port}"]
        daemon.write_config(listen=[*old, f"127.0.0.1:{port}"])
        break_it()
        wait_for(lambda: failed(daemon), 30.0, lambda: f"the failure to be told{daemon.errors()}")
        last = daemon.status()["last_restart"]
        assert words in last["reason"]
        assert "interpreter" in last["remedy"]
        assert daemon.status()["addresses"] == old, "the new address is closed again"
        assert request() == 200, "the connection was kept"
        check_ends(daemon, session, " 40")
        mend_it()
        entry: Any = daemon.reload(force=True)
        assert (entry["outcome"], entry["new_generation"]) == ("applied", 2)
        assert request() == 200
    assert daemon.ask("/api/health/ready").status == 200
    assert len(daemon.status()["addresses"]) == 2
    assert daemon.stop() == 0


def failed(daemon: Daemon) -> bool:
    last = daemon.status()["last_restart"]
    return last is not None and last["outcome"] == "failed"
