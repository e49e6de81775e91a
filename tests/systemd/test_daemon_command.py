"""``netclaw daemon …`` where the package's unit owns the home: systemd acts, and the command says so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.process.client import listens
from tests.process.talk import accepted, check_history, new_session, wait_all_ended, wait_event
from tests.systemd.machine import Machine, Result
from tests.systemd.service import CONFIG, RUNTIME, UNIT, Service
from tests.waiting import wait_for

SYSTEM = "netclawd.service (system)"
HOLDER = "import socket, time\nwith socket.create_server(('127.0.0.1', 5199)):\n time.sleep(99)"
BAD = '[daemon]\nlisen = ["127.0.0.1:5200"]\n'


def daemons(machine: Machine) -> list[int]:
    """Return the PIDs of all daemons in the machine; what one has forked and not executed yet is none."""
    rows = [
        line.split(None, 2)
        for line in machine.run("ps", "-eo", "pid=,ppid=,args=").out.splitlines()
    ]
    named = re.compile(r"[^ ]*python3 (.*/usr/bin/netclawd|.*-m netclawd)")
    parents = {int(pid): int(parent) for pid, parent, args in rows if named.fullmatch(args)}
    return [pid for pid, parent in parents.items() if parent not in parents]


def as_user(machine: Machine, name: str, command: str) -> Result:
    """Run a command in a login shell of a user, made if absent."""
    machine.run("sh", "-c", f"id {name} 2>/dev/null || useradd --create-home {name}")
    return machine.run("runuser", "-l", name, "-c", command, check=False)


def test_start_status_restart_and_stop_act_through_systemd_and_say_so(stopped: Service) -> None:
    service, pid = stopped, 0
    started = service.netclaw("daemon", "start")
    pid = service.main_pid
    assert f"The daemon is ready: pid {pid}, generation 1" in started.out
    assert f"under {SYSTEM}" in started.out
    assert (service.active, daemons(service.machine)) == ("active", [pid])
    again = service.netclaw("daemon", "start")
    assert again.out == f"The daemon runs already: pid {pid}, ready, under {SYSTEM}.\n"
    shown = service.netclaw("daemon", "status")
    assert f"unit           {SYSTEM} is active and enabled" in shown.out

    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    restarted = service.netclaw("daemon", "restart")
    assert "generation 2 serves" in restarted.out
    assert f"By a reload of {SYSTEM}, pid {pid}." in restarted.out
    unchanged = service.netclaw("daemon", "restart")
    assert "Nothing to do" in unchanged.out
    assert "`netclaw reload --force --wait` re-executes all the same" in unchanged.out
    assert service.identity() == (pid, 0)

    stopped_ = service.netclaw("daemon", "stop")
    assert stopped_.out.startswith(f"{SYSTEM} stopped cleanly in ")
    assert (service.active, daemons(service.machine)) == ("inactive", [])
    nothing = service.netclaw("daemon", "stop")
    assert f"nothing to stop. {SYSTEM} is inactive and enabled." in nothing.out
    down = service.netclaw("daemon", "status", check=False)
    assert (down.code, f"{SYSTEM} is inactive and enabled." in down.err) == (3, True)
    assert f"{SYSTEM} is inactive" in service.netclaw("status", check=False).err
    assert f"under {SYSTEM}" in service.netclaw("daemon", "restart").out, "it starts what is down"


@pytest.mark.once
def test_a_restart_that_is_refused_fails_with_the_reason(service: Service) -> None:
    service.write_config(BAD)
    refused = service.netclaw("daemon", "restart", check=False)
    assert refused.code == 1
    assert "refused; generation 1 goes on." in refused.err
    assert "daemon.lisen (line 2) is not a known setting" in refused.err
    assert service.active == "active"


@pytest.mark.once
def test_a_start_that_fails_says_why_exits_as_the_daemon_did_and_can_be_done_again(
    stopped: Service,
) -> None:
    stopped.write_config(BAD)
    for _ in range(2):
        failed = stopped.netclaw("daemon", "start", check=False)
        assert failed.code == 78
        assert f"{SYSTEM} has failed (exit-code, exit code 78)" in failed.err
        assert "daemon.lisen (line 2) is not a known setting" in failed.err
        assert "More: `systemctl status netclawd.service`." in failed.err
    down = stopped.netclaw("daemon", "status", check=False)
    assert down.code == 3
    assert f"{SYSTEM} has failed" in down.err
    assert "daemon.lisen (line 2) is not a known setting" in down.err, "the reason is there too"
    found = json.loads(stopped.netclaw("daemon", "start", "--json", check=False).out)
    assert (found["started"], found["exit_code"]) == (False, 78)
    assert (found["unit"]["scope"], found["unit"]["active"]) == ("system", "failed")
    assert any("daemon.lisen" in line for line in found["log"])
    stopped.write_config()
    stopped.netclaw("daemon", "start")
    assert stopped.ask("/api/health/ready").status == 200


def test_a_start_clears_a_start_limit(stopped: Service) -> None:
    stopped.drop_in("[Unit]\nStartLimitBurst=1\n")
    stopped.start()
    stopped.systemctl("stop", UNIT)
    assert stopped.systemctl("start", UNIT, check=False).code != 0, "the limit has been reached"
    assert stopped.active == "failed"
    stopped.netclaw("daemon", "start")
    assert stopped.active == "active"
    stopped.netclaw("daemon", "stop")
    assert stopped.active == "inactive", "and nothing has failed yet, when the next start meets it"
    stopped.netclaw("daemon", "start")
    assert stopped.active == "active"


def test_what_systemd_has_given_up_is_shown_with_the_reason_and_can_be_started(
    stopped: Service,
) -> None:
    stopped.drop_in("[Unit]\nStartLimitBurst=2\n")
    with stopped.machine.running("python3", "-c", HOLDER):
        wait_for(lambda: listens(5199), 5.0, "the port to be taken")
        stopped.systemctl("start", UNIT, check=False)
        stopped.wait_active("failed")
    down = stopped.netclaw("daemon", "status", check=False)
    assert down.code == 3
    assert "by systemd, which has given up. Its last words: " in down.err
    assert "127.0.0.1:5199 can't be bound: it is in use" in down.err
    assert "`netclaw daemon start`; it clears a start limit, too." in down.err
    stopped.netclaw("daemon", "start")
    assert stopped.active == "active"


@pytest.mark.once
def test_a_port_that_is_taken_ends_the_start_with_75_and_stop_ends_the_trying(
    stopped: Service,
) -> None:
    with stopped.machine.running("python3", "-c", HOLDER):
        wait_for(lambda: listens(5199), 5.0, "the port to be taken")
        stopped.drop_in("[Service]\nRestartSec=1h\n")
        failed = stopped.netclaw("daemon", "start", check=False)
        assert failed.code == 75
        assert "is about to be started again (exit-code, exit code 75)" in failed.err
        assert "127.0.0.1:5199 can't be bound: it is in use" in failed.err
        ended = stopped.netclaw("daemon", "stop")
        assert "no daemon served, and systemd no longer starts one" in ended.out
        assert stopped.active == "inactive"


@pytest.mark.once
def test_a_start_that_is_stopped_before_it_serves_had_nothing_to_drain(stopped: Service) -> None:
    stopped.drop_in("[Service]\nExecStart=\nExecStart=/bin/sleep 600\n")
    stopped.systemctl("start", "--no-block", UNIT)
    wait_for(lambda: stopped.main_pid, 5.0, "the start to have begun")
    ended = stopped.netclaw("daemon", "stop")
    assert "no daemon served" in ended.out
    assert stopped.active == "inactive"


@pytest.mark.once
def test_a_start_that_a_condition_forbids_says_so(stopped: Service) -> None:
    stopped.write_config("lisen = 5\n")
    assert stopped.netclaw("daemon", "start", check=False).code == 78, "what isn't to be told again"
    stopped.write_config()
    stopped.drop_in("[Unit]\nConditionPathExists=/nowhere\n")
    refused = stopped.netclaw("daemon", "start", check=False)
    assert refused.code == 1
    assert "a condition of the unit is not met" in refused.err


def test_a_masked_unit_is_named_and_nothing_is_started_beside_it(stopped: Service) -> None:
    stopped.systemctl("mask", "--runtime", UNIT)
    try:
        for verb in ("start", "restart"):
            refused = stopped.netclaw("daemon", verb, check=False)
            assert refused.code == 1
            assert f"{SYSTEM} is masked" in refused.err
            assert "`systemctl unmask netclawd.service`" in refused.err
        down = stopped.netclaw("daemon", "status", check=False)
        assert (down.code, f"{SYSTEM} is masked" in down.err) == (3, True)
        assert daemons(stopped.machine) == []
    finally:
        stopped.systemctl("unmask", "--runtime", UNIT)


@pytest.mark.once
def test_a_disabled_unit_owns_its_home_all_the_same(stopped: Service) -> None:
    stopped.systemctl("--quiet", "disable", UNIT)
    try:
        stopped.netclaw("daemon", "start")
        assert daemons(stopped.machine) == [stopped.main_pid]
        # systemd forgets a unit that is neither enabled nor active, and with it how the daemon ended.
        assert "stopped cleanly" in stopped.netclaw("daemon", "stop").out
    finally:
        stopped.systemctl("--quiet", "enable", UNIT)


@pytest.fixture
def by_hand(stopped: Service) -> Iterator[int]:
    """The PID of a daemon in the unit's home that the unit did not start."""
    machine = stopped.machine
    machine.run("install", "-d", "-m", "750", "-o", "netclaw", "-g", "netclaw", RUNTIME)
    with machine.running("netclawd", user="netclaw"):
        stopped.wait_ready()
        yield daemons(machine)[-1]


@pytest.mark.once
def test_a_daemon_beside_the_unit_is_named_and_stopped(stopped: Service, by_hand: int) -> None:
    started = stopped.netclaw("daemon", "start")
    assert started.out == (
        f"The daemon runs already: pid {by_hand}, ready, but not under {SYSTEM}.\n"
    )
    assert "started by hand" in started.err
    assert "started by hand" in stopped.netclaw("daemon", "status").out
    assert json.loads(stopped.netclaw("daemon", "status", "--json").out)["outside_unit"] is True
    assert "generation 2 serves" in stopped.netclaw("daemon", "restart").out
    stopped_ = stopped.netclaw("daemon", "stop")
    assert f"pid {by_hand} was not started by {SYSTEM}" in stopped_.err
    assert "stopped cleanly" in stopped_.out
    assert daemons(stopped.machine) == []


@pytest.mark.once
def test_a_stop_with_a_turn_drains_it_and_the_next_start_resumes_it(service: Service) -> None:
    session = new_session(service)
    service.write_config(tables={"drain": {"model_timeout_at_stop_s": 1}})
    service.wait_ready(above=1)
    accepted(service, session, "/count 40 0.1")
    wait_event(service, session, "turn.started")
    stopped = service.netclaw("daemon", "stop")
    assert "stopped cleanly" in stopped.out
    assert "1 turn still at work" in stopped.err, "what it waits for is shown"
    service.netclaw("daemon", "start")
    check_history(wait_all_ended(service, [session], timeout_s=60.0)[session])


@pytest.mark.once
def test_a_daemon_that_is_killed_in_a_stop_did_not_stop_cleanly(service: Service) -> None:
    session = new_session(service)
    accepted(service, session, "/count 100 0.1")
    wait_event(service, session, "turn.started")
    # It waits for the model call, 2 s, and is killed before that is over.
    service.drop_in("[Service]\nExecStop=/bin/sh -c 'kill -KILL $MAINPID'\n")
    stopped = service.netclaw("daemon", "stop", check=False)
    assert stopped.code == 1
    assert "was killed" in stopped.err
    assert f"{SYSTEM} has failed (signal)" in stopped.err
    service.drop_in("")
    service.netclaw("daemon", "start")
    assert service.ask("/api/health/ready").status == 200


@pytest.mark.once
def test_a_user_without_a_unit_gets_the_system_s_and_is_told_in_one_line(service: Service) -> None:
    told = f"netclaw: this user has no unit: this is the daemon of the system, {SYSTEM}.\n"
    as_user(service.machine, "alice", "true")
    service.machine.run("usermod", "-aG", "netclaw", "alice")
    running = as_user(service.machine, "alice", "netclaw daemon start")
    assert (running.code, running.err) == (0, told)
    assert f"pid {service.main_pid}, ready, under {SYSTEM}" in running.out
    for verb in ("stop", "restart"):
        denied = as_user(service.machine, "mallory", f"netclaw daemon {verb}")
        assert denied.code == 1
        assert "systemd does not let this user" in denied.err
        assert "Do it as root, with sudo." in denied.err
    assert service.active == "active"
    assert len(daemons(service.machine)) == 1


@pytest.mark.once
def test_a_chosen_home_is_nobody_s_but_its_own(service: Service) -> None:
    """A daemon in a home of its own is started and stopped without systemd, beside the service."""
    home = "NETCLAW_HOME=$HOME/other"
    toml = '[daemon]\\nlisten = ["127.0.0.1:5333"]\\n'
    command = (
        f"mkdir -p other && printf '{toml}' >other/netclaw.toml && {home} netclaw daemon start"
    )
    started = as_user(service.machine, "bob", command)
    assert (started.code, "unit" in started.out + started.err) == (0, False), f"{started}"
    assert len(daemons(service.machine)) == 2
    ended = as_user(service.machine, "bob", f"{home} netclaw daemon stop")
    assert "Stopped cleanly" in ended.out
    assert daemons(service.machine) == [service.main_pid]


@pytest.mark.once
def test_the_configuration_that_decides_is_the_unit_s(service: Service) -> None:
    """Root's client, told of no home, asks the service by its own folders."""
    found = json.loads(service.netclaw("daemon", "status", "--json").out)
    assert found["config_path"] == CONFIG
    assert found["unit"]["main_pid"] == found["pid"] == service.main_pid
    assert found["outside_unit"] is False
