"""`systemctl reload` and a change of the file: what systemd and an operator see of it."""

from __future__ import annotations

import time

import pytest

from tests.process.client import ask, listens
from tests.process.load import Target, check_nothing_lost, under_load
from tests.process.talk import accepted, check_history, new_session, wait_all_ended, wait_event
from tests.systemd.service import UNIT, Service
from tests.waiting import scaled, wait_for


def test_a_reload_to_another_port_under_load_loses_nothing_and_returns_when_it_serves(
    service: Service,
) -> None:
    """The address that stays is under load; the other one moves."""
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.systemctl("reload", UNIT)
    before, session = service.identity(), new_session(service)
    accepted(service, session, "/count 30 0.1")
    wait_event(service, session, "turn.started")
    with under_load(Target(service.port, session)) as ledgers:
        service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5201"])
        service.systemctl("reload", UNIT)
        answer = ask(5201, "/api/health/ready")
    check_nothing_lost(ledgers)
    assert (answer.status, answer.generation) == (200, 3)
    assert service.identity() == before
    assert (service.active, service.starts_by_itself) == ("active", 0)
    # The watcher has seen the file as well, and finds nothing new.
    wait_for(lambda: "generation 3 ready" in service.status_text, 10.0, "STATUS= to say so")
    wait_for(lambda: not listens(5200), 5.0, "the old address to be refused")
    check_history(wait_all_ended(service, [session], timeout_s=60.0)[session])


@pytest.mark.once
def test_the_old_port_alone_moves_too(service: Service) -> None:
    before = service.identity()
    service.port = 5300
    service.write_config()
    service.systemctl("reload", UNIT)
    assert service.ask("/api/health/ready").status == 200
    assert service.identity() == before


def test_a_refused_reload_fails_says_why_and_changes_nothing(service: Service) -> None:
    before = service.identity()
    service.write_config('[daemon]\nlisen = ["127.0.0.1:5200"]\n')
    refused = service.systemctl("reload", UNIT, check=False)
    assert refused.code != 0
    assert service.active == "active"
    assert service.identity() == before
    assert service.generation() == 1
    reason = "daemon.lisen (line 2) is not a known setting"
    assert "configuration refused" in service.status_text
    assert reason in service.status_text
    assert reason in service.systemctl("status", "--no-pager", "--full", UNIT).out
    # Twice in the journal: from the daemon, and from ExecReload=, whose command failed.
    assert any(reason in line and line.startswith("netclaw: ") for line in service.messages())
    service.write_config()
    service.systemctl("reload", UNIT)
    assert service.status_text.startswith("generation 1 ready")


@pytest.mark.once
def test_a_reload_without_anything_new_succeeds_and_keeps_the_generation(service: Service) -> None:
    service.systemctl("reload", UNIT)
    assert (service.active, service.generation()) == ("active", 1)


def test_a_change_of_the_file_alone_shows_as_reloading_and_then_active(service: Service) -> None:
    before, session = service.identity(), new_session(service)
    service.write_config(tables={"drain": {"model_timeout_s": 2}})
    service.wait_ready(above=1)
    accepted(service, session, "/count 100 0.1")
    wait_event(service, session, "turn.started")
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.wait_active("reloading")
    assert service.status_text.startswith("draining: 1 turn")
    begun = time.monotonic()
    service.wait_active("active")
    assert time.monotonic() - begun < scaled(20.0)
    assert service.identity() == before
    assert ask(5200, "/api/health/ready").generation == 3


@pytest.mark.once
def test_a_member_of_the_group_can_reload_without_systemctl(service: Service) -> None:
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.netclaw("reload", "--wait", user="alice")
    assert ask(5200, "/api/health/ready").status == 200
    assert service.active == "active"
