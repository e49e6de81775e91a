"""One daemon per home: the lock, and files that a dead daemon left behind."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.process.harness import Daemon
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long


def start_second(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """Start another daemon on the same home and wait for its end."""
    return subprocess.run(
        daemon.command(),
        env=daemon.full_environment(),
        cwd=daemon.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(20.0),
        check=False,
    )


@pytest.mark.parametrize("reexecs", [0, 2], ids=["first image", "after re-execs"])
def test_a_second_daemon_says_who_holds_the_home(daemon: Daemon, reexecs: int) -> None:
    for _ in range(reexecs):
        daemon.reload(force=True)
    second = start_second(daemon)
    assert second.returncode == 1
    assert str(daemon.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert daemon.generation() == reexecs + 1
    assert daemon.control("status")["pid"] == daemon.pid


def test_files_of_a_dead_daemon_are_in_nobodys_way(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    run = daemon.home / "run"
    run.mkdir(parents=True)
    (run / "netclawd.pid").write_text(f"{os.getpid()} 41\n")
    (run / "netclawd.lock").touch()
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(run / "control.sock"))
    daemon.start()
    assert daemon.control("status")["pid"] == daemon.pid
    assert (run / "netclawd.pid").read_text().split() == [str(daemon.pid), "1"]


def test_a_start_after_sigkill_finds_its_way(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()
    assert daemon.generation() == 2
    assert daemon.control("status")["generation"] == 2


def test_the_pid_file_follows_the_generation(daemon: Daemon) -> None:
    path = daemon.home / "run" / "netclawd.pid"
    assert path.read_text().split() == [str(daemon.pid), "1"]
    daemon.reload(force=True)
    wait_for(
        lambda: path.read_text().split() == [str(daemon.pid), "2"], 5.0, "the pid file to follow"
    )
    assert daemon.stop() == 0
    assert not path.exists()
    assert not daemon.control_path.exists()


def test_generations_are_never_given_twice(daemon: Daemon) -> None:
    seen = [daemon.generation()]
    daemon.reload(force=True)
    seen.append(daemon.generation())
    daemon.kill()
    daemon.start()
    seen.append(daemon.generation())
    assert daemon.stop() == 0
    daemon.start()
    seen.append(daemon.generation())
    assert seen == [1, 2, 3, 4]
