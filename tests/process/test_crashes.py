"""What an error that nobody expected leaves: a crash log, an exit code, and a daemon that starts again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.faults import Fault
from tests.process.harness import Daemon
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def crash_logs(daemon: Daemon) -> list[Path]:
    return sorted((daemon.home / "state" / "logs").glob("crash-*.log"))


def check_crash_log(daemon: Daemon, thread: str) -> None:
    (path,) = crash_logs(daemon)
    text = path.read_text()
    assert text.startswith("reason: OSError: injected by the test\ngeneration: 1\nphase: ")
    assert "threads:" in text
    assert thread in text
    assert str(path) in daemon.errors()


def check_starts_again(daemon: Daemon) -> None:
    daemon.faults.clear()
    daemon.start()
    assert daemon.generation() > 1
    assert daemon.status()["degraded"] == []


def test_an_error_of_the_arbiter_ends_the_daemon_with_a_crash_log(make_daemon: Make) -> None:
    daemon = make_daemon(faults=[Fault("raise", "before", "BindNew")]).start()
    daemon.write_config(tables={"sessions": {"workers": 3}})
    assert daemon.wait_exit() == 1
    check_crash_log(daemon, "MainThread")
    check_starts_again(daemon)


@pytest.mark.parametrize("thread", ["http", "store"])
def test_the_death_of_a_vital_thread_ends_the_daemon(make_daemon: Make, thread: str) -> None:
    fault = Fault("thread", "before", "BindNew", thread=thread)
    daemon = make_daemon(faults=[fault]).start()
    daemon.write_config(tables={"sessions": {"workers": 3}})
    assert daemon.wait_exit() == 1
    check_crash_log(daemon, thread)
    check_starts_again(daemon)


def test_the_death_of_another_thread_degrades_it_until_the_restart(make_daemon: Make) -> None:
    fault = Fault("thread", "after", "StartWatching", thread="imports of old")
    daemon = make_daemon(faults=[fault]).start()
    wait_for(lambda: daemon.status()["degraded"], 10, "the death to be told")
    (told,) = daemon.status()["degraded"]
    assert "The thread imports of old died" in told
    assert str(crash_logs(daemon)[0]) in told
    check_crash_log(daemon, "imports of old")
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.status()["degraded"] == []
