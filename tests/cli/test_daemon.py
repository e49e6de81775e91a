"""``netclaw daemon`` with a real daemon, from its start to what is left when it is down."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import launch
from netclawd.cli.demo_story import end_child, free_ports
from netclawd.cli.reach import Daemon
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.errors import NoAnswerError
from tests.cli.conftest import CommandLine


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def home(home: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (home / "netclaw.toml").write_text(f'[daemon]\nlisten = ["127.0.0.1:{port}"]\n')
    yield home
    with contextlib.suppress(OSError, ValueError):
        end_child(int((home / "run" / "netclawd.pid").read_text().split()[0]))


def take(pid: int) -> None:
    """Take the exit status of the daemon, which is this test's child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_start_use_stop_and_look_again(run: CommandLine, home: Path, port: int) -> None:
    started = run.json("daemon", "start")
    pid = started["pid"]
    assert started == {"started": True, "pid": pid, "generation": 1}
    assert os.getsid(pid) == pid, "it has a session of its own"
    again = run("daemon", "start")
    assert (again.exit_code, again.stdout) == (0, f"The daemon runs already: pid {pid}, ready.\n")
    assert f"answers on     127.0.0.1:{port}" in run("status").stdout
    assert run("send", "--wait", "/count 3 0").stdout == "1 2 3\n"
    assert "nothing to do" in run("reload", "--wait").stdout.lower()

    restarted = run("daemon", "restart")
    assert (restarted.exit_code, "generation 2 serves" in restarted.stdout) == (0, True)
    assert run.json("status")["pid"] == pid
    assert "Generation 1 drained for a reload" in run("manifest", "show").stdout
    assert run.json("manifest", "show", "1")["generation"] == 1

    logged = run("logs")
    assert "phase ready, generation 2" in logged.stdout
    assert logged.stderr == "", "this daemon writes there"

    stopped = run("daemon", "stop")
    take(pid)
    assert stopped.stdout.startswith("Stopped cleanly in ")
    assert stopped.exit_code == 0
    assert run("status").exit_code == 3
    assert "stopped" in run("restarts").stdout.splitlines()[1]
    session = run.json("sessions", "list")["sessions"][0]["id"]
    assert "\n> /count 3 0\n1 2 3\n" in run("sessions", "show", session).stdout
    assert "for a stop" in run("manifest", "show").stdout
    head, waiting, consumed = run("manifest", "list").stdout.splitlines()
    assert head.split() == ["GENERATION", "WHEN", "FOR", "BY", "KIND", "TURNS"]
    assert (waiting.split()[0], consumed.split()[0]) == ("2", "1")
    assert [each["kind"] for each in run.json("manifest", "list")] == ["waiting", "consumed"]
    broken = home / "state" / "manifests" / "1.cbor"
    broken.write_bytes(broken.read_bytes()[:-1])
    damaged = run("manifest", "show", "1")
    assert (damaged.exit_code, f"{broken} is damaged" in damaged.stderr) == (1, True)
    assert f"{broken} can't be shown" in run("manifest", "list").stdout
    missing = run("manifest", "show", "77")
    assert (missing.exit_code, "no manifest of generation 77" in missing.stderr) == (1, True)
    assert (home / "state" / "logs" / "netclawd.log").stat().st_size > 0
    assert (home / "state").stat().st_mode & 0o777 == 0o700


def test_a_start_that_fails_shows_why_and_exits_as_the_daemon_did(
    run: CommandLine, home: Path
) -> None:
    (home / "netclaw.toml").write_text("[daemon]\nlistn = 1\n")
    result = run("daemon", "start")
    assert result.exit_code == 78
    assert "Daemon startup aborted:" in result.stderr
    assert "listn" in result.stderr
    assert run.json("daemon", "start")["exit_code"] == 78


def test_a_daemon_that_does_not_end_is_killed(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = run.json("daemon", "start")["pid"]
    monkeypatch.setattr("netclawd.core.budgets.STOP_KILL_S", 0.5)
    monkeypatch.setattr(launch, "LOOK_ANSWER_S", 0.2)
    freezing = ControlClient.call

    def call_and_freeze(client: ControlClient, do: str, **arguments: object) -> object:
        result = freezing(client, do, **arguments)
        if do == "stop":
            os.kill(pid, signal.SIGSTOP)
        return result

    monkeypatch.setattr(ControlClient, "call", call_and_freeze)
    result = run("daemon", "stop")
    take(pid)
    assert result.exit_code == 1
    assert "was killed" in result.stderr


@pytest.mark.parametrize("ends", [True, False])
def test_a_daemon_that_does_not_answer_is_ended_all_the_same(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    pid = run.json("daemon", "start")["pid"]
    monkeypatch.setattr("netclawd.core.budgets.STOP_KILL_S", 30.0 if ends else 0.5)
    if not ends:
        os.kill(pid, signal.SIGSTOP)

    def hang(client: ControlClient, do: str, **_arguments: object) -> object:
        raise NoAnswerError(f"The daemon did not answer at {client.path} in time.")

    monkeypatch.setattr(ControlClient, "call", hang)
    result = run("daemon", "stop")
    take(pid)
    assert "does not answer" in result.stderr
    if ends:
        assert (result.exit_code, "Stopped cleanly" in result.stdout) == (0, True)
    else:
        assert (result.exit_code, "was killed" in result.stderr) == (1, True)


def test_a_log_that_has_grown_is_rotated_at_a_start(
    run: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = home / "state" / "logs" / "netclawd.log"
    log.parent.mkdir(parents=True)
    log.write_text("old\n" * 100)
    monkeypatch.setattr(launch, "LIMIT_BYTES", 100)
    pid = run.json("daemon", "start")["pid"]
    assert log.with_name("netclawd.log.1").read_text().startswith("old")
    assert "old" not in log.read_text()
    run("daemon", "stop")
    take(pid)


def test_a_daemon_killed_in_a_stop_was_not_clean(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = run.json("daemon", "start")["pid"]
    monkeypatch.setattr(launch, "_was_clean", lambda daemon: False)
    result = run("daemon", "stop")
    take(pid)
    assert (result.exit_code, "not cleanly" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("generation", "outcome", "clean"),
    [(5, Outcome.STOPPED, True), (4, Outcome.STOPPED, False), (5, Outcome.APPLIED, False)],
)
def test_only_the_stop_of_this_generation_was_clean(
    monkeypatch: pytest.MonkeyPatch, generation: int, outcome: Outcome, clean: bool
) -> None:
    record = RestartRecord(RestartId("r"), outcome, "term", "", 0.0, generation=generation)
    store = SimpleNamespace(restarts=lambda limit: (record,), close=lambda: None)
    monkeypatch.setattr("netclawd.cli.wiring.open_store_read_only", lambda paths: store)
    keys = ("home", "config_path", "state_dir", "runtime_dir")
    status = {"generation": 5, **dict.fromkeys(keys, "/nowhere")}
    assert launch._was_clean(Daemon(ControlClient("/nowhere"), status)) is clean


def test_status_costs_little(run: CommandLine) -> None:
    """Heavy modules stay out of what every command imports."""
    import subprocess
    import sys

    program = (
        "import sys, netclawd.cli.client, netclawd.cli.status\n"
        "heavy = {'http.client', 'jsonschema', 'sqlite3', 'tomllib', 'cbor2', 'asyncio',\n"
        "    'subprocess', 'secrets', 'ssl', 'email', 'logging'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
