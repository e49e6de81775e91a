"""The lifecycle on each stage: its supervisor sees every exit and no restart, and nobody else starts one."""

from __future__ import annotations

from tests.container.service import Service
from tests.process.client import ask, listens
from tests.waiting import wait_for


def check_one_daemon(service: Service) -> None:
    """One daemon, started by the supervisor that s6-svscan started."""
    (pid,) = service.daemons()
    assert pid == service.supervision().pid
    assert service.ancestry(pid)[:2] == ["s6-supervise", "s6-svscan"]


def test_a_written_port_is_served_by_the_same_process_and_s6_sees_no_break(
    service: Service,
) -> None:
    before, generation = service.supervision(), service.generation()
    check_one_daemon(service)
    service.port = 5200
    service.write_config()
    assert service.wait_ready(above=generation) > generation
    with service.stage.network():
        wait_for(lambda: not listens(5199), 5.0, "the old port to be refused")
        assert ask(5200, "/api/health/live").status == 200
    after = service.supervision()
    assert after == before, "the same PID, no death, no start, never not ready"
    assert service.s6("up", "ready") == ["true", "true"]
    check_one_daemon(service)
