"""The guard itself: what a test leaves behind is found."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests import leftovers


@pytest.fixture(scope="module")
def started_by_a_supervisor() -> Iterator[None]:
    """What the environment may hold when the tests begin; set up before anything is cleared."""
    with pytest.MonkeyPatch.context() as patch:
        names = ("NETCLAW_HOME", "NETCLAW_CONTAINER_SUPERVISOR", "NETCLAW_S6_SERVICE")
        for name in (*names, "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
            patch.setenv(name, "/nonexistent")
        yield


@pytest.mark.usefixtures("started_by_a_supervisor")
def test_what_netclawd_reads_is_cleared_from_the_environment() -> None:
    prefixes = ("NETCLAW_", "LISTEN_", "WATCHDOG_")
    assert not [name for name in os.environ if name.startswith(prefixes)]
    assert "NOTIFY_SOCKET" not in os.environ


def test_a_descriptor_left_behind_is_found() -> None:
    left: list[socket.socket] = []
    with (
        pytest.raises(AssertionError, match="descriptor"),
        leftovers.nothing_left_behind("none", timeout_s=0.05),
    ):
        left.append(socket.socket())
    left[0].close()


def test_a_thread_left_behind_is_found() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="straggler")
    with (
        pytest.raises(AssertionError, match="thread straggler"),
        leftovers.nothing_left_behind("none", timeout_s=0.05),
    ):
        thread.start()
    done.set()
    thread.join()


def leave_an_ended_child() -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


def test_a_child_left_behind_is_found_even_when_it_has_ended() -> None:
    left: list[subprocess.Popen[bytes]] = []
    with (
        pytest.raises(AssertionError, match="process"),
        leftovers.nothing_left_behind("none", timeout_s=0.05),
    ):
        left.append(leave_an_ended_child())
    left[0].wait()


def leave_an_orphan(mark: str, stdin: int) -> None:
    """Start a process that starts another, which reads its input to the end, and ends itself."""
    grandchild = "import sys; sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {grandchild!r}])"
    environment = {**os.environ, leftovers.MARK: mark}
    subprocess.run([sys.executable, "-c", code], stdin=stdin, env=environment, check=True)


def test_an_orphan_is_found_by_its_mark() -> None:
    reader, writer = os.pipe()
    try:
        with (
            pytest.raises(AssertionError, match="process"),
            leftovers.nothing_left_behind("an-orphan", timeout_s=0.05),
        ):
            leave_an_orphan("an-orphan", reader)
    finally:
        # With both ends gone the orphan goes too.
        os.close(reader)
        os.close(writer)
