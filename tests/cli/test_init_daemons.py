"""``netclaw init`` and the daemon that runs, drains, stops, refuses, is killed, or does not tell."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.adapters.control_client import ControlClient
from netclawd.cli import bring_up
from netclawd.cli.demo_story import end_child
from netclawd.cli.reach import Daemon as Found
from netclawd.cli.reach import reach_anew
from netclawd.cli.wiring import replace_settings
from netclawd.core import budgets
from netclawd.core.paths import Paths
from netclawd.core.plan import Plan, Verdict
from tests.cli.conftest import CommandLine
from tests.process.faults import Fault
from tests.process.harness import Daemon, Table, free_port
from tests.service_double import ServiceDouble
from tests.waiting import wait_for

pytestmark = pytest.mark.long

INIT = ("init", "--non-interactive")


@pytest.fixture
def netclaw() -> CommandLine:
    return CommandLine()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with Daemon() as one:
        monkeypatch.setenv("NETCLAW_HOME", str(one.home))
        yield one.start()


def faulty(monkeypatch: pytest.MonkeyPatch, *faults: Fault, tables: Table | None = None) -> Daemon:
    daemon = Daemon(faults=faults, tables=tables)
    monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
    return daemon


class Meanwhile:
    """Does something in a thread of its own. Use as a context manager."""

    def __init__(self, act: Any) -> None:
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: self._run(act))

    def _run(self, act: Any) -> None:
        try:
            act()
        except BaseException as failure:  # noqa: BLE001 - it is raised where somebody waits for it
            self._failure = failure

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def keep_busy(daemon: Daemon, text: str = "/count 600 0.1") -> None:
    """Give it a turn that goes on."""
    session = daemon.control("create_session")
    daemon.control("admit", session_id=session["id"], text=text, key="k")
    wait_for(lambda: daemon.status()["turns"]["running"], 10.0, "the turn to run")


# -- one that runs -------------------------------------------------------------------------------


def test_it_is_followed_to_a_newer_generation_with_the_digest_that_is_ready(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    port = free_port()
    before = daemon.status()
    found = netclaw.json(*INIT, "--listen", f"127.0.0.1:{port}", "--drain-timeout", "10")
    daemon.port = port
    after = daemon.status()
    assert (found["written"], found["daemon"], found["outcome"]) == (True, True, "ready")
    assert (found["generation"], found["digest"]) == (2, after["digest"])
    assert found["digest"] != before["digest"]
    assert (found["pid"], after["pid"]) == (daemon.pid, daemon.pid)
    assert found["restart"]["outcome"] == "applied"
    assert [change["key"] for change in found["changes"]] == ["daemon.listen", "drain.timeout_s"]
    assert len(daemon.ended_restarts()) == 1, "the write is the only trigger"


def test_a_change_without_effect_needs_no_newer_generation(
    daemon: Daemon, netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = daemon.config_path.read_text()
    daemon.write_config(text=f"{text}[drain]\ntimeout_s = 30.0\n")
    wait_for(lambda: netclaw.json("config", "plan")["verdict"] == "unchanged", 5.0, "no change")
    monkeypatch.setattr(
        "netclawd.cli.wizard.draft.changed_settings",
        lambda answers, _wanted: {("drain", "timeout_s"): 30},
    )
    found = netclaw.json(*INIT)
    assert (found["written"], found["outcome"], found["generation"]) == (True, "ready", 1)


def test_nothing_changed_is_said_and_the_daemon_left_alone(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    status = daemon.config_path.stat()
    result = netclaw(*INIT)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Nothing changes in {daemon.config_path}; nothing is written.")
    assert f"The daemon is ready: pid {daemon.pid}, generation 1" in result.stdout
    assert daemon.config_path.stat().st_mtime_ns == status.st_mtime_ns
    assert daemon.restarts() == []


def test_the_environment_that_counts_is_the_daemons(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    with Daemon(environment={"NETCLAW_DRAIN__TIMEOUT_S": "12"}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        result = netclaw(*INIT, "--drain-timeout", "5", "--new-work", "reject")
        assert result.exit_code == 0, result.stderr
        assert "NETCLAW_DRAIN__TIMEOUT_S wins: it decides drain.timeout_s" in result.stderr
        assert "generation 2, answers on" in result.stdout


# -- one that drains, or stops -------------------------------------------------------------------


def test_a_restart_that_drains_is_waited_out_and_then_its_own(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "Quiesce", until=tmp_path / "go")
    brief = {"drain": {"model_timeout_s": 0.1}}
    with faulty(monkeypatch, hold, tables=brief) as daemon:
        daemon.start()
        keep_busy(daemon)
        daemon.write_config(tables={"sessions": {"workers": 3}})
        wait_for(lambda: hold.reached, 20.0, "the drain to be held")
        assert daemon.control("status")["phase"] == "draining"

        def release() -> None:
            wait_for(lambda: "reject" in daemon.config_path.read_text(), 10.0, "the write")
            hold.release()

        with Meanwhile(release):
            found = netclaw.json(*INIT, "--new-work", "reject")
        assert (found["outcome"], found["generation"]) == ("ready", 3)
        applied = [entry["new_generation"] for entry in daemon.ended_restarts()]
        assert applied == [3, 2]


def test_one_that_stops_is_let_go_and_another_started(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "DrainTurns", until=tmp_path / "go")
    with faulty(monkeypatch, hold) as daemon:
        daemon.start()
        daemon.control("stop")
        wait_for(lambda: hold.reached, 10.0, "the stop to be held")

        def release() -> None:
            wait_for(lambda: asked, 10.0, "init to see it")
            hold.release()
            daemon.wait_exit()

        asked: list[Paths] = []

        def look(paths: Paths, last: ControlClient | None) -> Found:
            asked.append(paths)
            return reach_anew(paths, last)

        monkeypatch.setattr(bring_up, "reach_anew", look)
        with Meanwhile(release):
            found = netclaw.json(*INIT, "--drain-timeout", "7")
        try:
            assert (found["daemon"], found["outcome"]) == (False, "ready")
            assert found["pid"] != daemon.pid
            assert found["start"]["started"] is True
        finally:
            end_child(found["pid"])


# -- one that refuses, or fails ------------------------------------------------------------------


def test_a_bind_that_fails_ends_the_wait_at_once_and_a_second_try_works(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = ("--listen", f"127.0.0.1:{daemon.port},127.0.0.1:{port}")
        result = netclaw(*INIT, *listen)
        assert result.exit_code == 1
        assert f"refused; generation 1 goes on. The address 127.0.0.1:{port}" in result.stderr
        assert "`netclaw init` again" in result.stderr
        assert f"127.0.0.1:{port}" in daemon.config_path.read_text()
    # Nothing is written any more, and the daemon has refused it: it is asked again.
    found = netclaw.json(*INIT, *listen)
    assert (found["written"], found["outcome"], found["generation"]) == (False, "ready", 2)
    assert found["addresses"] == [f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}"]


def test_a_new_image_that_fails_ends_the_wait_at_once(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    with faulty(monkeypatch, Fault("raise", "before", "Serve", nth=2)) as daemon:
        daemon.start()
        found = netclaw(*INIT, "--drain-timeout", "5", "--json")
        assert found.exit_code == 1
        assert json.loads(found.stdout)["outcome"] == "rolled-back"
        assert daemon.wait_ready(above=2) == 3
        again = netclaw.json(*INIT)
        assert (again["written"], again["outcome"], again["generation"]) == (False, "ready", 4)


def test_a_refusal_that_ends_the_daemon_is_told_in_its_words(
    netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Daemon(tables={"daemon": {"on_invalid_config": "abort"}}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        key = daemon.home / "key"
        key.write_text("sk-1234")
        key.chmod(0o600)
        daemon.tables["providers.demo"] = {"kind": "demo", "api_key": f"file:{key}"}
        daemon.start()

        def write(*arguments: Any) -> None:
            key.unlink()  # after it was judged
            replace_settings(*arguments)

        monkeypatch.setattr(bring_up, "replace_settings", write)
        result = netclaw(*INIT, "--drain-timeout", "5")
        assert result.exit_code == 1
        assert f"providers.demo.api_key: The secret file:{key} can't be" in result.stderr
        assert daemon.wait_exit() == 78


def test_a_daemon_that_ends_and_that_nobody_starts_again_is_no_success(
    netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "AWAY_S", 0.5)
    with faulty(monkeypatch, Fault("kill", "after", "MarkManifest")) as daemon:
        daemon.start()
        result = netclaw(*INIT, "--drain-timeout", "5")
        assert result.exit_code == 1
        assert f"{daemon.config_path} is written. The daemon has ended, and nobody" in result.stderr


def start_again(daemon: Daemon) -> None:
    """Do what a supervisor does with a daemon that was killed."""
    daemon.wait_exit()
    daemon.faults = []
    daemon.start()


def test_a_daemon_that_is_killed_and_started_again_with_it_is_a_success(
    netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(monkeypatch, Fault("kill", "after", "MarkManifest")) as daemon:
        daemon.start()
        with Meanwhile(lambda: start_again(daemon)):
            result = netclaw(*INIT, "--drain-timeout", "5")
        assert result.exit_code == 0, result.stderr
        assert "The daemon is ready: " in result.stdout
        assert "was started again with it" in result.stderr
        assert "not applied" not in result.stderr


def test_a_daemon_that_is_killed_and_serves_what_was_before_ends_the_wait_at_once(
    netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was being changed over to is not tried again by itself."""
    with faulty(monkeypatch, Fault("kill", "before", "Exec")) as daemon:
        daemon.start()
        with Meanwhile(lambda: start_again(daemon)):
            result = netclaw(*INIT, "--drain-timeout", "5")
        assert result.exit_code == 1
        assert "The process ended while it changed over to this" in result.stderr
        assert "has the change all the same" in result.stderr
        again = netclaw.json(*INIT)
        assert (again["written"], again["outcome"]) == (False, "ready")


def test_a_daemon_that_hangs_is_not_said_to_have_ended(
    daemon: Daemon, netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "AWAY_S", 0.2)
    monkeypatch.setattr("netclawd.cli.reach.LOOK_ANSWER_S", 0.2)
    monkeypatch.setattr(budgets, "INIT_S", 2.0)

    def write(*arguments: Any) -> None:
        replace_settings(*arguments)
        os.kill(daemon.pid, signal.SIGSTOP)

    monkeypatch.setattr(bring_up, "replace_settings", write)
    try:
        result = netclaw(*INIT, "--drain-timeout", "5")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert result.exit_code == 1
    assert "No generation has been ready with it within 2 s." in result.stderr


def test_another_daemon_s_answer_is_no_success(
    run: CommandLine,
    home: Path,
    server: ControlServer,
    service: ServiceDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It begins to answer in the moment of the start, and reads another file."""
    service.plan_values = Plan(Verdict.UNCHANGED).as_dict()
    monkeypatch.setattr(bring_up, "reach_or_none", lambda _paths: None)
    monkeypatch.setattr("netclawd.cli.config_write.reach_or_none", lambda _paths: None)
    monkeypatch.setattr(bring_up, "start_through_owner", lambda *_, **_options: 0)
    monkeypatch.setattr(budgets, "INIT_S", 0.5)
    assert run(*INIT).exit_code == 0
    service.status_values["config_path"] = "/elsewhere/netclaw.toml"
    result = run(*INIT)
    assert result.exit_code == 1
    assert "No daemon has been ready with" in result.stderr


def test_the_wait_is_bounded_and_says_what_to_look_at(
    daemon: Daemon, netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "INIT_S", 0.0)
    result = netclaw(*INIT, "--drain-timeout", "5")
    assert result.exit_code == 1
    assert f"{daemon.config_path} is written. No generation has been ready with it" in result.stderr
    assert "`netclaw restarts`" in result.stderr
    assert daemon.wait_ready(above=1) == 2


def test_what_somebody_else_writes_meanwhile_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "Judge", until=tmp_path / "go")
    with faulty(monkeypatch, hold) as daemon:
        daemon.start()

        def overwrite() -> None:
            wait_for(lambda: hold.reached, 10.0, "the change to be seen")
            daemon.write_config(tables={"sessions": {"workers": 4}})
            hold.release()

        with Meanwhile(overwrite):
            result = netclaw(*INIT, "--drain-timeout", "5")
        assert (result.exit_code, "was changed again before" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("place", "words", "written"),
    [
        ("judge", "nothing was written.", False),
        ("ended_restarts", "nothing was written.", False),
        ("follow", "is written; the daemon takes it up by itself.", True),
    ],
)
def test_an_interrupt_tells_what_is_so_by_then(
    daemon: Daemon,
    netclaw: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    words: str,
    written: bool,
) -> None:
    def interrupt(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    before = daemon.config_path.read_text()
    monkeypatch.setattr(bring_up, place, interrupt)
    result = netclaw(*INIT, "--drain-timeout", "5")
    assert (result.exit_code, words in result.stderr) == (130, True), result.stderr
    assert (daemon.config_path.read_text() != before) is written
    if written:
        assert daemon.wait_ready(above=1) == 2


# -- no baseline, no success ---------------------------------------------------------------------


def promise(service: ServiceDouble) -> None:
    """Have the double judge every file as a change."""
    changes = [{"key": "drain.timeout_s", "old": 30, "new": 5}]
    planned = Plan(Verdict.RESTART, new_digest="cd" * 32).as_dict()
    service.plan_values = planned | {"changes": changes}


@pytest.mark.parametrize("untold", [{"generation": None}, {"digest": ""}])
def test_who_does_not_tell_what_it_runs_gets_nothing_written(
    run: CommandLine,
    home: Path,
    server: ControlServer,
    service: ServiceDouble,
    untold: dict[str, Any],
) -> None:
    promise(service)
    service.status_values |= untold
    result = run(*INIT, "--drain-timeout", "5")
    assert result.exit_code == 1
    assert "nobody could see whether it takes a change up; nothing was written" in result.stderr
    assert not (home / "netclaw.toml").exists()


def test_who_is_ready_and_stays_what_it_was_is_no_success(
    run: CommandLine,
    home: Path,
    server: ControlServer,
    service: ServiceDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The double answers "ready" all the time, and its plan promises another digest."""
    promise(service)
    monkeypatch.setattr(budgets, "INIT_S", 0.5)
    result = run(*INIT, "--drain-timeout", "5")
    assert result.exit_code == 1
    assert "No generation has been ready with it" in result.stderr


def test_who_does_not_answer_gets_nothing_written(
    run: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = ControlClient.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "answer_s", 0.2)
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(home / "run" / "control.sock"))
        silent.listen()
        result = run(*INIT)
    assert (result.exit_code, "did not answer" in result.stderr) == (1, True)
    assert not (home / "netclaw.toml").exists()
