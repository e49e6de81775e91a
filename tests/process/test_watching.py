"""Where inotify is used up the daemon polls, says so, and follows its file all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.harness import Daemon
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]
LIMITED = Path(__file__).with_name("limited.py")


def start_limited(make_daemon: Make, **limits: int) -> Daemon:
    daemon = make_daemon(launcher=LIMITED, environment={"TEST_LIMITS": json.dumps(limits)})
    daemon.start()
    return daemon


def wait_watched(daemon: Daemon, mode: str) -> None:
    wait_for(
        lambda: daemon.status()["watcher"] == mode,
        10.0,
        lambda: f"the watcher to be {mode}: {daemon.status()}",
    )


def netclaw_status(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from netclawd.cli.client import main; main()", "status"],
        env={**os.environ, "NETCLAW_HOME": str(daemon.home)},
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=False,
    )


def test_by_default_it_is_inotify_and_nothing_is_degraded(daemon: Daemon) -> None:
    wait_watched(daemon, "inotify")
    assert daemon.status()["degraded"] == []
    said = netclaw_status(daemon)
    assert (said.returncode, "watched by     inotify\n" in said.stdout) == (0, True)


@pytest.mark.needs_root
def test_without_inotify_the_daemon_polls_and_is_degraded(make_daemon: Make) -> None:
    daemon = start_limited(make_daemon, max_inotify_instances=0)
    wait_watched(daemon, "polling")
    said = netclaw_status(daemon)
    assert said.returncode == 1
    assert "watched by     polling\n" in said.stdout
    assert "are used up. Raise fs.inotify.max_user_instances" in said.stdout

    for workers in (3, 4):
        before = daemon.generation()
        daemon.write_config(tables={"sessions": {"workers": workers}})
        assert daemon.wait_ready(above=before) == before + 1
        wait_watched(daemon, "polling")

    daemon.config_path.unlink()
    daemon.write_config(tables={"sessions": {"workers": 5}})
    assert daemon.wait_ready(above=3) == 4
    assert [entry["trigger"] for entry in daemon.ended_restarts()] == ["file"] * 3


@pytest.mark.needs_root
def test_watches_that_run_out_under_a_running_daemon_are_told_and_cost_no_change(
    make_daemon: Make,
) -> None:
    daemon = start_limited(make_daemon)
    wait_watched(daemon, "inotify")
    subprocess.run(
        ["nsenter", "--user", "--target", str(daemon.pid), "--preserve-credentials", "sh", "-c",
         "echo 1 >/proc/sys/user/max_inotify_watches"],
        check=True, timeout=scaled(10),
    )  # fmt: skip
    assert daemon.status()["watcher"] == "inotify"
    # The same configuration in a new file: nothing restarts, but there is something to watch anew.
    daemon.write_config(text=daemon.config_text() + "# the same\n")
    wait_watched(daemon, "polling")
    assert "Raise fs.inotify.max_user_watches" in daemon.status()["degraded"][0]
    daemon.write_config(tables={"sessions": {"workers": 3}})
    assert daemon.wait_ready(above=1) == 2
    wait_watched(daemon, "polling")
