"""How the daemon ends and how the container does: nothing is lost, and the exit code tells."""

from __future__ import annotations

import time

import pytest

from netclawd.core import budgets
from tests.container.service import Service, check_one_daemon
from tests.container.test_one_owner import WRONG
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.process.test_turns_survive import numbers
from tests.waiting import scaled, wait_for

#: A plain s6 tells nobody how what it supervises has ended.
tells_its_end = pytest.mark.parametrize("kind", ["pid1", "podman"], indirect=True)
#: A model call that outlasts a stop, which gives it a moment.
SHORT_DRAIN = {"drain": {"model_timeout_at_stop_s": 0.1}}


def begin_turn(service: Service, text: str = "/count 30 0.05") -> str:
    """Have a turn that runs; return its session."""
    session = new_session(service)
    accepted(service, session, text)
    wait_event(service, session, "turn.started")
    return session


def check_resumed(service: Service, session: str, cause: str) -> None:
    rows = wait_all_ended(service, [session])[session]
    check_history(rows)
    assert of_type(rows, "turn.interrupted", "turn.resumed")[0]["cause"] == cause
    assert of_type(rows, "reply.sent")[0]["text"] == numbers(30)


def stop(service: Service) -> int:
    """Stop the container as a runtime does; return its exit code."""
    begun = time.monotonic()
    service.stage.terminate()
    code = service.stage.wait_end(budgets.CONTAINER_STOP_S)
    assert time.monotonic() - begun < scaled(budgets.CONTAINER_STOP_S)
    return code


def wait_waiting(service: Service, times: int = 1) -> None:
    service.wait_words("it starts again in", count=times)


# -- the daemon ----------------------------------------------------------------------------------


def test_a_killed_daemon_is_back_and_goes_on(service: Service) -> None:
    session = begin_turn(service)
    before, generation = service.supervision(), service.generation()
    service.signal_daemon("KILL")
    assert service.wait_ready(above=generation) > generation
    after = service.supervision()
    assert after.pid != before.pid
    assert after.deaths == (*before.deaths, "signal SIGKILL")
    check_one_daemon(service)
    check_resumed(service, session, "crash")


# -- the container -------------------------------------------------------------------------------


def test_a_stopped_container_goes_on_at_its_next_start(stopped: Service) -> None:
    service = stopped
    service.tables |= SHORT_DRAIN
    generation = service.start()
    session = begin_turn(service)
    assert stop(service) == 0
    assert service.start() > generation
    check_one_daemon(service)
    check_resumed(service, session, "stop")


@pytest.mark.once
def test_a_killed_container_goes_on_at_its_next_start(service: Service) -> None:
    generation, session = service.generation(), begin_turn(service)
    service.stage.kill()
    assert service.start() > generation
    check_resumed(service, session, "crash")


def test_a_stop_in_the_middle_of_a_restart_stops(stopped: Service) -> None:
    service = stopped
    service.tables |= {"drain": {"model_timeout_s": 15, "model_timeout_at_stop_s": 0.1}}
    generation = service.start()
    session = begin_turn(service, "/count 300 0.05")
    service.write_config(listen=["127.0.0.1:5200"])
    # Its model call may go on for 15 seconds in a restart.
    service.wait_phase("draining")
    assert stop(service) == 0
    assert f"ready: generation {generation + 1}" not in service.stage.words()
    service.port = 5200
    service.start()
    check_one_daemon(service)
    wait_event(service, session, "turn.resumed")


@tells_its_end
@pytest.mark.once
def test_the_exit_code_of_a_container_that_waits_is_the_daemon_s(stopped: Service) -> None:
    service = stopped
    service.write_config(tables=WRONG)
    service.stage.start()
    wait_waiting(service)
    assert stop(service) == 78


@tells_its_end
@pytest.mark.once
def test_the_exit_code_of_a_container_tells_of_a_kill(service: Service) -> None:
    """Killed twice, so that the wait is long enough to be stopped in."""
    for times in (1, 2):
        generation = service.generation()
        service.signal_daemon("KILL")
        wait_waiting(service, times)
        if times == 1:
            service.wait_ready(above=generation)
    assert stop(service) == 128 + 9


@pytest.mark.once
def test_a_container_whose_service_is_down_ends_with_0(service: Service) -> None:
    service.s6_control("-wD", "-d")
    assert stop(service) == 0


# -- PID 1 ---------------------------------------------------------------------------------------


@pytest.mark.once
def test_an_orphan_is_reaped(service: Service) -> None:
    service.stage.run("sh", "-c", "sleep 1 >/dev/null 2>&1 & echo $! >/run/orphan")
    orphan = int(service.stage.run("cat", "/run/orphan").out)
    assert service.parent_of(orphan) == 1
    wait_for(lambda: service.parent_of(orphan) is None, 10.0, f"{orphan} to be reaped")
    assert service.zombies() == []
