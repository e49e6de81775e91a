"""What ends the process: SIGKILL, `systemctl restart`, the watchdog, a stop. The listeners outlive it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.load import Ledger, Limits, Target, check_nothing_lost, under_load
from tests.process.load import new_connections as asks
from tests.process.talk import (
    accepted,
    check_history,
    events,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.systemd.machine import Machine
from tests.systemd.service import STATE, UNIT, Service
from tests.waiting import scaled, wait_for

WEDGE = Path(__file__).with_name("wedge.py")


def numbers(count: int) -> str:
    return " ".join(str(number) for number in range(1, count + 1))


def knocks(target: Target, limits: Limits, ledger: Ledger) -> None:
    """Connect all the time; what becomes of a connection that was accepted is another matter."""
    for _ in limits.rounds():
        try:
            with contextlib.closing(target.connection()) as connection:
                connection.connect()
            ledger.note("ok")
        except OSError as error:
            ledger.note_error(error)
        limits.stop.wait(0.002)


def outside_pid(machine: Machine, pid: int) -> int:
    """Return the number that a process inside has in our own PID namespace."""
    ours = machine.namespace("pid")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found = re.search(r"^NSpid:.*\t(\d+)$", (folder / "status").read_text(), re.MULTILINE)
            if found and int(found[1]) == pid and (folder / "ns/pid").readlink() == ours:
                return int(folder.name)
    raise AssertionError(f"no process {pid} inside")


def started_again(service: Service, pid: int) -> bool:
    return service.active == "active" and service.main_pid not in (0, pid)


def turn_in_flight(service: Service, count: int = 60, pause_s: float = 0.05) -> str:
    session = new_session(service)
    accepted(service, session, f"/count {count} {pause_s}")
    wait_event(service, session, "turn.started")
    return session


def check_resumed(service: Service, session: str, cause: str, count: int = 60) -> None:
    rows = wait_all_ended(service, [session], timeout_s=60.0)[session]
    check_history(rows)
    assert [row["cause"] for row in of_type(rows, "turn.interrupted")] == [cause]
    assert of_type(rows, "reply.sent")[0]["text"] == numbers(count)


def test_after_a_sigkill_the_same_listeners_serve_and_nobody_was_refused(service: Service) -> None:
    before, pid = service.listening(), service.main_pid
    wait_for(service.stored, 10.0, "the listener to be in the fd store")
    session = turn_in_flight(service)
    with under_load(Target(service.port, session), {"knocks": knocks}) as ledgers:
        service.systemctl("kill", "--kill-whom=main", "--signal=KILL", UNIT)
        wait_for(
            lambda: started_again(service, pid), 30.0, lambda: f"a new process\n{service.words()}"
        )
        service.wait_ready(above=1)
    check_nothing_lost(ledgers)
    assert service.listening() == before, "other sockets than before"
    assert service.starts_by_itself == 1
    check_resumed(service, session, "crash")


def test_a_restart_refuses_nobody_and_resets_nobody(service: Service) -> None:
    before = service.listening()
    wait_for(service.stored, 10.0, "the listener to be in the fd store")
    session = turn_in_flight(service)
    target = Target(service.port, session)
    with under_load(target, {"knocks": knocks, "asks": asks}) as ledgers:
        service.systemctl("restart", UNIT)
        service.wait_ready(above=1)
    check_nothing_lost(ledgers)
    assert service.listening() == before, "other sockets than before"
    assert service.show("Result") == "success"
    check_resumed(service, session, "stop")


@pytest.mark.once
def test_an_address_that_went_while_it_was_down_is_given_up(service: Service) -> None:
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.systemctl("reload", UNIT)
    wait_for(lambda: service.stored() >= 2, 10.0, "both listeners to be in the fd store")
    service.drop_in("[Service]\nRestartSec=2\n")
    service.systemctl("kill", "--kill-whom=main", "--signal=KILL", UNIT)
    service.wait_active("activating")
    service.write_config()
    service.wait_active("active")
    service.wait_ready(above=2)
    wait_for(
        lambda: set(service.listening()) == {"0100007F:5199"},
        10.0,
        lambda: f"one listener: {service.listening()}",
    )
    wait_for(lambda: service.stored() == 1, 10.0, "the other one to leave the fd store")


def test_a_retired_listener_leaves_the_fd_store(service: Service) -> None:
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.systemctl("reload", UNIT)
    wait_for(lambda: service.stored() == 2, 10.0, "both listeners to be in the fd store")
    service.write_config()
    service.systemctl("reload", UNIT)
    wait_for(lambda: service.stored() == 1, 10.0, "the retired one to leave the fd store")
    wait_for(
        lambda: set(service.listening()) == {"0100007F:5199"},
        10.0,
        lambda: f"one listener: {service.listening()}",
    )


@contextlib.contextmanager
def one_thread_stands(service: Service, pid: int) -> Iterator[None]:
    """Stop the main thread, which is the arbiter; the others go on until the process is killed."""
    command = [sys.executable, "-I", str(WEDGE), str(outside_pid(service.machine, pid))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as wedge:
        assert wedge.stdout is not None
        try:
            assert wedge.stdout.readline() == b"it stands\n"
            yield
        finally:
            wedge.kill()


def test_a_wedged_arbiter_is_restarted_by_the_watchdog_and_turns_go_on(stopped: Service) -> None:
    stopped.drop_in("[Service]\nWatchdogSec=2\n")
    service = stopped.start()
    wait_for(service.stored, 10.0, "the listener to be in the fd store")
    pid, before = service.main_pid, service.listening()
    # The turns' own threads go on meanwhile: long enough to be cut.
    session = turn_in_flight(service, 40, 0.25)
    begun = time.monotonic()
    with one_thread_stands(service, pid):
        # Only that one stands: a request is still answered.
        assert service.ask("/api/health/live").status == 200
        wait_for(
            lambda: started_again(service, pid), 30.0, lambda: f"a new process\n{service.words()}"
        )
    assert time.monotonic() - begun < scaled(15.0)
    assert service.starts_by_itself == 1
    assert any("Watchdog timeout" in line for line in service.messages())
    service.wait_ready(above=1)
    assert service.listening() == before
    check_resumed(service, session, "crash", 40)


@pytest.mark.once
def test_a_daemon_that_works_is_left_alone_by_an_impatient_watchdog(stopped: Service) -> None:
    """Through a drain that is longer than the watchdog's patience, and the re-exec behind it."""
    stopped.drop_in("[Service]\nWatchdogSec=3\n")
    stopped.write_config(tables={"drain": {"model_timeout_s": 4}})
    service = stopped.start()
    pid, session = service.main_pid, new_session(service)
    accepted(service, session, "/count 120 0.05")
    wait_event(service, session, "turn.started")
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"], tables={"drain": {}})
    service.systemctl("reload", UNIT)
    assert service.identity() == (pid, 0)
    wait_all_ended(service, [session], timeout_s=60.0)
    assert service.identity() == (pid, 0)


@pytest.mark.once
def test_a_stop_with_a_running_turn_leaves_it_for_the_next_start(service: Service) -> None:
    session = turn_in_flight(service)
    service.systemctl("stop", UNIT)
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    assert not any("timed out" in line or "SIGKILL" in line for line in service.messages())
    assert service.listening() == {}
    service.systemctl("start", UNIT)
    service.wait_ready(above=1)
    check_resumed(service, session, "stop")


@pytest.mark.once
def test_a_tool_that_takes_its_time_is_waited_for_and_systemd_gives_the_time(
    stopped: Service,
) -> None:
    """EXTEND_TIMEOUT_USEC: the drain takes longer than a TimeoutStopSec= that somebody has shortened."""
    stopped.drop_in("[Service]\nTimeoutStopSec=3\n")
    service = stopped.start()
    session = new_session(service)
    accepted(service, session, "/ledger 1 6")
    wait_event(service, session, "tool.started")
    said: list[str] = []
    stopping = threading.Thread(target=lambda: service.systemctl("stop", UNIT))
    stopping.start()
    while stopping.is_alive():
        said.append(service.status_text)
        stopping.join(0.2)
    assert any(text.startswith("stopping: 1 turn") for text in said), said
    assert service.show("Result") == "success"
    assert not any("timed out" in line or "SIGKILL" in line for line in service.messages())
    service.systemctl("start", UNIT)
    service.wait_ready(above=1)
    rows = wait_all_ended(service, [session])[session]
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["ok"]


@pytest.mark.once
def test_the_machine_goes_down_with_a_running_turn_and_loses_nothing(service: Service) -> None:
    """As a reboot does it, but for the kernel: stop everything, then start from what lies on disk."""
    session = turn_in_flight(service)
    seen = len(events(service, session))
    service.systemctl("isolate", "rescue.target", timeout_s=90.0)
    service.wait_active("inactive", timeout_s=60.0)
    assert service.machine.exists(f"{STATE}/manifest.cbor")
    service.systemctl("isolate", "multi-user.target")
    service.wait_ready(above=1)
    assert len(events(service, session)) >= seen
    check_resumed(service, session, "stop")
