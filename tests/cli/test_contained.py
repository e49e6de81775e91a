"""``netclaw daemon`` where a container's supervisor owns the daemon: a real s6, with the folders of s6/."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import s6, s6_known, s6_start, units
from netclawd.cli.demo_story import free_ports
from netclawd.cli.reach import Daemon, own_paths
from netclawd.cli.s6_known import Known
from netclawd.core.container import Container
from netclawd.core.paths import Paths
from netclawd.errors import NoAnswerError
from tests.cli.conftest import CommandLine
from tests.process.scan import Scan, needs_s6
from tests.service_double import ServiceDouble
from tests.waiting import wait_for

# Debian 12's libraries are under the s6 of `make test-container`.
pytestmark = pytest.mark.long

MANAGED = "managed by the container's supervisor (PID {})"
CLIENT = [sys.executable, "-P", "-c", "from netclawd.cli.client import main; main()"]


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def config(home: Path, port: int) -> Path:
    path = home / "netclaw.toml"
    path.write_text(f'[daemon]\nlisten = ["127.0.0.1:{port}"]\n')
    return path


@pytest.fixture
def marked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The marker, and a service folder that need not exist."""
    monkeypatch.setenv("NETCLAW_CONTAINER_SUPERVISOR", "s6")
    monkeypatch.setenv("NETCLAW_S6_SERVICE", str(home / "scan" / "netclawd"))
    return home / "scan" / "netclawd"


@pytest.fixture
def scan(home: Path, config: Path, marked: Path) -> Iterator[Scan]:
    """The service under s6, not started by itself."""
    with Scan(home) as scan:
        scan.keep_down()
        scan.start()
        yield scan


@pytest.fixture
def never_spawns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "netclawd.cli.daemon.launch", lambda *_: pytest.fail("a daemon was spawned")
    )


# -- who owns it ---------------------------------------------------------------------------------


def test_the_marker_decides_and_systemd_is_not_asked(
    marked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BOOTED", "/")
    monkeypatch.setattr(units, "look", lambda *_: pytest.fail("systemctl was asked"))
    assert units.find_owner(own_paths()) == Container("s6", str(marked))


@pytest.mark.parametrize("command", [("install", "--user"), ("uninstall",)])
def test_no_unit_is_installed_or_removed_in_a_container(
    run: CommandLine, marked: Path, command: tuple[str, ...]
) -> None:
    result = run("daemon", *command)
    assert result.exit_code == 1
    assert "the container's supervisor (s6) starts the daemon" in result.stderr
    assert run.json("daemon", *command)["error"]["slug"] == "conflict"


# -- nobody can be asked -------------------------------------------------------------------------


@pytest.mark.usefixtures("never_spawns")
def test_without_a_service_folder_a_start_fails_and_points_at_the_container_s_log(
    run: CommandLine, home: Path, marked: Path
) -> None:
    for command in ("start", "restart"):
        result = run("daemon", command)
        assert result.exit_code == 1
        assert f"There is no service folder {marked}" in result.stderr
        assert "the container's log" in result.stderr
    assert "only the container's supervisor (s6) starts one" in run("daemon", "start").stderr
    assert run.json("daemon", "start")["error"]["slug"] == "supervisor-failed"
    stop = run("daemon", "stop")
    assert (stop.exit_code, "nothing to stop" in stop.stdout) == (0, True)
    assert "s6-svc" not in stop.stdout, "it would fail as well"
    assert not (home / "state").exists()
    assert not (home / "run").exists()


@needs_s6
@pytest.mark.usefixtures("never_spawns", "config")
def test_a_service_folder_that_nobody_watches_is_named(
    run: CommandLine, marked: Path, home: Path
) -> None:
    with Scan(home) as scan:
        untouched = run("daemon", "start")
        scan.keep_down()
        scan.start()
        scan.end()
        stale = run("daemon", "start")
    for result in (untouched, stale):
        assert result.exit_code == 1
        assert f"No s6-supervise watches the service folder {marked}" in result.stderr
        assert "s6-svscan" in result.stderr


@needs_s6
@pytest.mark.usefixtures("never_spawns", "scan")
def test_a_missing_program_of_s6_is_named(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(s6, "PLACES", str(tmp_path))
    result = run("daemon", "start")
    assert result.exit_code == 1
    assert "s6-svstat is not found on PATH" in result.stderr
    assert "apt install s6" in result.stderr


@needs_s6
def test_s6_s_programs_are_found_where_the_overlay_has_them(
    scan: Scan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert s6.down_command(scan.container) == f"s6-svc -d {scan.service}"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scan.look().wanted is False
    assert s6.down_command(scan.container) == f"/usr/bin/s6-svc -d {scan.service}"


@needs_s6
@pytest.mark.needs_root
@pytest.mark.usefixtures("marked")
def test_another_user_is_told_whom_s6_lets_ask() -> None:
    with tempfile.TemporaryDirectory(prefix="netclaw-test-") as folder:
        os.chmod(folder, 0o755)
        with Scan(Path(folder)) as scan:
            scan.keep_down()
            scan.start()
            user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
            done = subprocess.run(
                [*user, *CLIENT, "daemon", "start"],
                env=scan.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert "s6 lets only the user of its supervision tree, root, ask" in done.stderr
            assert [scan.daemons(), scan.look().wanted] == [[], False]


@pytest.mark.usefixtures("marked", "server", "never_spawns")
def test_a_daemon_that_answers_needs_no_s6_to_be_asked(
    run: CommandLine, service: ServiceDouble
) -> None:
    pid = run.json("status")["pid"]
    started = run("daemon", "start")
    assert (started.exit_code, MANAGED.format(pid) in started.stdout) == (0, True)
    row = run("daemon", "status").stdout.splitlines()[-1]
    assert "can't be asked: There is no service folder" in row
    assert "There is no service folder" in run.json("daemon", "status")["supervisor"]["error"]
    service.status_values["phase"] = "stopping"
    refused = run("daemon", "start")
    assert (refused.exit_code, f"(pid {pid}) is stopping" in refused.stderr) == (1, True)


# -- start ---------------------------------------------------------------------------------------


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_start_asks_s6_and_a_second_one_finds_it_managed(run: CommandLine, scan: Scan) -> None:
    started = run("daemon", "start")
    pid = scan.look().pid
    assert (started.exit_code, MANAGED.format(pid) in started.stdout) == (0, True), started.stderr
    assert scan.look().serves
    again = run("daemon", "start")
    assert (again.exit_code, again.stdout) == (
        0,
        f"The daemon runs already, {MANAGED.format(pid)}: ready.\n",
    )
    shown = run.json("daemon", "start")
    assert (shown["started"], shown["pid"], shown["outside_supervisor"]) == (False, pid, False)
    assert shown["supervisor"]["service"] == str(scan.service)
    assert scan.daemons() == [pid]
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert Path(f"/proc/{parent}/comm").read_text() == "s6-supervise\n"


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_start_ends_the_wait_before_the_next_one(run: CommandLine, scan: Scan) -> None:
    run("daemon", "start")
    first = scan.wait_serving()
    os.kill(first, signal.SIGKILL)
    waiting = scan.wait_waiting()
    started = run.json("daemon", "start")
    assert (started["started"], started["pid"]) == (True, waiting)
    assert "asked by a HUP" in scan.words()


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_start_that_fails_says_so_at_once_in_the_daemon_s_words_and_can_be_tried_again(
    run: CommandLine, scan: Scan, config: Path
) -> None:
    good = config.read_text()
    for key in ("listn", "lisen"):
        config.write_text(f"[daemon]\n{key} = 1\n")
        failed = run("daemon", "start")
        assert failed.exit_code == 78
        assert "exit code 78" in failed.stderr
        assert f"daemon.{key}" in failed.stderr, "of this attempt"
    assert "daemon.listn" not in failed.stderr, "of this attempt alone"
    config.write_text("[daemon]\nlisten = 1\n")
    shown = run.json("daemon", "start")
    assert (shown["started"], shown["exit_code"]) == (False, 78)
    assert any("Daemon startup aborted" in line for line in shown["log"])
    config.write_text(good)
    assert run("daemon", "start").exit_code == 0


class Client(threading.Thread):
    """A command in a process of its own, since click's runner takes over this one's streams."""

    def __init__(self, scan: Scan, *words: str) -> None:
        super().__init__()
        self._command, self._environment = [*CLIENT, *words], scan.environment()
        self.start()

    def run(self) -> None:
        self._done = subprocess.run(
            self._command, env=self._environment, capture_output=True, text=True, check=False
        )

    def answer(self) -> subprocess.CompletedProcess[str]:
        self.join()
        return self._done


def begin_a_long_stop(run: CommandLine, scan: Scan) -> tuple[int, Client]:
    """Ask a daemon that needs some seconds for it to stop; return its PID and who waits for it."""
    run("daemon", "start")
    pid = scan.wait_serving()
    run("send", "/ledger 1 3")
    wait_for(lambda: run.json("status")["turns"]["running"], 10.0, "the turn to run")
    stopping = Client(scan, "daemon", "stop")
    wait_for(lambda: run.json("status").get("phase") == "stopping", 10.0, "the drain to begin")
    return pid, stopping


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_starts_beside_a_stop_wait_for_the_next_daemon_and_agree_on_it(
    run: CommandLine, scan: Scan
) -> None:
    first, stopping = begin_a_long_stop(run, scan)
    starts = [Client(scan, "daemon", "start", "--json") for _ in range(2)]
    answers = [each.answer() for each in starts]
    pids = {json.loads(answer.stdout)["pid"] for answer in answers}
    assert [answer.returncode for answer in answers] == [0, 0]
    assert len(pids) == 1
    assert first not in pids
    assert stopping.answer().returncode == 0
    assert scan.daemons() == [*pids]
    assert scan.words().count("serving on") == 2, "nobody contended for the lock"
    assert "lock" not in scan.words()


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_start_brings_up_again_what_is_being_brought_down(run: CommandLine, scan: Scan) -> None:
    run("daemon", "start")
    first = scan.wait_serving()
    scan.control("-d")
    wait_for(lambda: not scan.look().wanted, 5.0, "s6 to bring it down")
    started = run.json("daemon", "start")
    assert started["started"] is True
    assert started["pid"] != first
    assert scan.look().wanted


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_daemon_that_s6_did_not_start_is_named_as_such(
    run: CommandLine, scan: Scan, home: Path
) -> None:
    beside = subprocess.Popen(
        [sys.executable, "-P", "-m", "netclawd"],
        env=scan.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: run.json("status").get("phase") == "ready", 20.0, "it to be ready")
        result = run("daemon", "start")
        assert (result.exit_code, f"PID {beside.pid}, ready" in result.stdout) == (0, True)
        assert "the container's supervisor did not start it" in result.stderr
        assert "managed" not in result.stdout
        assert run.json("daemon", "start")["outside_supervisor"] is True
        assert "it did not start this daemon" in run("daemon", "status").stdout
        run("send", "/ledger 1 2")
        wait_for(lambda: run.json("status")["turns"]["running"], 10.0, "the turn to run")
        stopping = Client(scan, "daemon", "stop")
        wait_for(lambda: run.json("status")["phase"] == "stopping", 10.0, "the drain to begin")
        started = run.json("daemon", "start")
        assert stopping.answer().returncode == 0
        assert started["pid"] == scan.look().pid != beside.pid
        assert scan.words().count("serving on") == 1, "s6 was not asked while it had the lock"
        assert "exited with" not in scan.words()
    finally:
        beside.terminate()
        beside.wait()


@needs_s6
@pytest.mark.usefixtures("never_spawns", "server")
def test_a_daemon_that_somebody_starts_meanwhile_is_not_called_s6_s(
    run: CommandLine, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_look = s6_known.look_at_both
    looks: list[Known] = []

    def look(container: Container, paths: Paths) -> tuple[Daemon | None, Known]:
        running, known = really_look(container, paths)
        looks.append(known)
        return (running if len(looks) > 1 else None), known

    monkeypatch.setattr(s6_start, "look_at_both", look)
    result = run("daemon", "start")
    assert (result.exit_code, "managed" in result.stdout) == (0, False)
    assert "the container's supervisor did not start it" in result.stderr
    assert scan.daemons() == []


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_daemon_that_is_ready_in_another_home_is_not_waited_for_long(
    run: CommandLine, scan: Scan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("daemon", "start")
    scan.wait_serving()
    monkeypatch.setattr(s6_start, "SILENT_S", 0.5)
    monkeypatch.setenv("NETCLAW_HOME", str(tmp_path / "other"))
    result = run("daemon", "start")
    assert (result.exit_code, "none answers here" in result.stderr) == (1, True)
    assert "NETCLAW_HOME" in result.stderr


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_daemon_that_takes_its_time_is_left_to_s6(
    run: CommandLine, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s6_start, "READY_S", 0.0)
    result = run("daemon", "start")
    assert (result.exit_code, "the daemon is not ready yet" in result.stderr) == (1, True)
    scan.wait_serving()


# -- stop and restart ----------------------------------------------------------------------------


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_stop_drains_and_says_that_the_supervisor_starts_it_again_and_it_does(
    run: CommandLine, scan: Scan
) -> None:
    run("daemon", "start")
    first = scan.wait_serving()
    stopped = run("daemon", "stop")
    assert stopped.exit_code == 0
    assert stopped.stdout.startswith("Stopped cleanly in ")
    assert "will start it again in a moment" in stopped.stdout
    assert f"s6-svc -d {scan.service}" in stopped.stdout
    second = scan.wait_serving(other_than=first)
    shown = run.json("daemon", "stop")
    assert (shown["stopped"], shown["clean"], shown["starts_again"]) == (True, True, True)
    scan.wait_serving(other_than=second)


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_daemon_that_hangs_is_killed_and_started_again(
    run: CommandLine, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("daemon", "start")
    first = scan.wait_serving()
    os.kill(first, signal.SIGSTOP)

    def hang(client: ControlClient, do: str, **_arguments: object) -> object:
        raise NoAnswerError(f"The daemon did not answer at {client.path} in time.")

    with monkeypatch.context() as patch:
        patch.setattr("netclawd.core.budgets.STOP_KILL_S", 0.5)
        patch.setattr(ControlClient, "call", hang)
        asked = run("daemon", "start")
        assert asked.exit_code == 1
        assert f"did not answer at {scan.home}/run/control.sock in time." in asked.stderr
        assert f"has PID {first} up" in asked.stderr
        stopped = run("daemon", "stop")
    assert (stopped.exit_code, "was killed" in stopped.stderr) == (1, True)
    assert "will start it again in a moment" in stopped.stdout
    scan.wait_serving(other_than=first)


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_what_is_kept_down_is_not_said_to_be_started_again(run: CommandLine, scan: Scan) -> None:
    nothing = run("daemon", "stop")
    assert (nothing.exit_code, "nothing to stop" in nothing.stdout) == (0, True)
    assert "keeps the daemon down" in nothing.stdout
    run("daemon", "start")
    scan.control("-O")  # not again once it has ended
    wait_for(lambda: not scan.look().wanted, 5.0, "s6 to know that")
    kept = run("daemon", "start")
    assert (kept.exit_code, "runs already" in kept.stdout) == (0, True)
    assert scan.look().wanted, "a start wants it up"
    scan.control("-O")
    wait_for(lambda: not scan.look().wanted, 5.0, "s6 to know that")
    stopped = run("daemon", "stop")
    assert (stopped.exit_code, "again in a moment" in stopped.stdout) == (0, False)
    assert "keeps it down" in stopped.stdout


@needs_s6
@pytest.mark.usefixtures("never_spawns")
def test_a_restart_needs_no_supervisor_unless_nothing_runs(run: CommandLine, scan: Scan) -> None:
    assert run("daemon", "restart").exit_code == 0
    pid = scan.wait_serving()
    restarted = run("daemon", "restart")
    assert (restarted.exit_code, "generation 2 serves" in restarted.stdout) == (0, True)
    assert (scan.look().pid, scan.look().serves) == (pid, True)


# -- status --------------------------------------------------------------------------------------


@needs_s6
def test_a_status_shows_the_supervisor_beside_the_daemon(run: CommandLine, scan: Scan) -> None:
    run("daemon", "start")
    pid = scan.wait_serving()
    row = run("daemon", "status").stdout.splitlines()[-1]
    assert row.split()[0] == "supervisor"
    assert f"PID {pid} up" in row
    assert "it is ready" in row
    shown = run.json("daemon", "status")
    wanted = {"up": True, "ready": True, "wanted": True, "pid": pid, "waiting": False}
    assert wanted.items() <= shown["supervisor"].items()
    assert shown["phase"] == "ready"


@needs_s6
def test_a_status_says_what_s6_knows_when_nothing_answers(
    run: CommandLine, scan: Scan, config: Path
) -> None:
    for command in (["daemon", "status"], ["status"]):
        result = run(*command)
        assert (result.exit_code, "keeps the daemon down" in result.stderr) == (3, True)
        assert "the last one" not in result.stderr
    config.write_text("[daemon]\nlistn = 1\n")
    scan.control("-u")
    scan.wait_waiting(at_least_s=2.0)
    for command in (["daemon", "status"], ["status"]):
        result = run(*command)
        assert result.exit_code == 3
        assert "waits before it starts the daemon again" in result.stderr
        assert "exit code 78" in result.stderr
        assert "`netclaw daemon start` starts it now" in result.stderr
    shown: Any = run.json("daemon", "status")["supervisor"]
    assert (shown["waiting"], shown["exit_code"], shown["ready"]) == (True, 78, False)
