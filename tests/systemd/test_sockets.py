"""netclawd.socket: systemd holds the listener, below 1024 too, and the service takes it."""

from __future__ import annotations

import pytest

from tests.process.client import ask, listens
from tests.process.load import Target, check_nothing_lost, under_load
from tests.process.talk import new_session
from tests.systemd.service import SOCKET, UNIT, Service
from tests.waiting import wait_for

FROM_SYSTEMD = ["fd:http"]


def test_a_connection_to_the_socket_starts_the_service(stopped: Service) -> None:
    stopped.write_config(listen=FROM_SYSTEMD)
    stopped.systemctl("start", SOCKET)
    assert stopped.active == "inactive"
    assert stopped.ask("/api/health/live").status == 200
    stopped.wait_active("active")


def test_a_port_below_1024_comes_through_the_socket_and_outlives_restarts(
    stopped: Service,
) -> None:
    stopped.drop_in("[Socket]\nListenStream=\nListenStream=127.0.0.1:80\n", SOCKET)
    stopped.write_config(listen=FROM_SYSTEMD)
    stopped.systemctl("enable", "--now", SOCKET)
    stopped.port = 80
    stopped.start()
    before, pid = stopped.listening(), stopped.main_pid
    assert set(before) == {"0100007F:80"}
    with under_load(Target(80, new_session(stopped))) as ledgers:
        stopped.write_config(listen=[*FROM_SYSTEMD, "127.0.0.1:5200"])
        stopped.systemctl("reload", UNIT)
    check_nothing_lost(ledgers)
    assert stopped.main_pid == pid
    assert stopped.listening()["0100007F:80"] == before["0100007F:80"]
    # What systemd holds anyway isn't given to it to keep.
    wait_for(lambda: stopped.stored() == 1, 10.0, "only the other address to be in the fd store")
    stopped.systemctl("restart", UNIT)
    stopped.wait_ready()
    assert stopped.listening()["0100007F:80"] == before["0100007F:80"]


@pytest.mark.once
def test_a_low_port_without_the_socket_is_refused_with_the_way_to_it(stopped: Service) -> None:
    stopped.write_config(listen=["127.0.0.1:80"])
    stopped.drop_in("[Unit]\nStartLimitBurst=2\n")
    stopped.systemctl("start", UNIT, check=False)
    stopped.wait_active("failed")
    said = "\n".join(stopped.messages())
    assert "127.0.0.1:80 can't be bound" in said
    assert "let a socket unit of systemd hand it over as fd:NAME" in said
    stopped.systemctl("reset-failed", UNIT)


@pytest.mark.once
def test_a_configuration_that_names_no_socket_leaves_the_address_of_the_unit_unserved_and_says_so(
    stopped: Service,
) -> None:
    """The socket's address is 5199, the configuration's another: nobody waits there in vain."""
    stopped.write_config(listen=["127.0.0.1:5200"])
    stopped.systemctl("start", SOCKET)
    stopped.start()
    assert ask(5200, "/api/health/ready").status == 200
    assert any("http" in line and "nobody" in line for line in stopped.messages()), (
        stopped.messages()
    )


@pytest.mark.once
def test_the_same_address_in_both_is_refused_with_the_reason(stopped: Service) -> None:
    stopped.drop_in("[Unit]\nStartLimitBurst=2\n")
    stopped.systemctl("start", SOCKET)
    stopped.systemctl("start", UNIT, check=False)
    stopped.wait_active("failed")
    said = "\n".join(stopped.messages())
    assert "127.0.0.1:5199 can't be bound: it is in use" in said
    stopped.systemctl("stop", SOCKET)
    stopped.systemctl("reset-failed", UNIT, SOCKET)


@pytest.mark.once
def test_a_socket_that_the_unit_does_not_hand_over_is_refused_by_its_name(
    service: Service,
) -> None:
    service.write_config(listen=["fd:http"])
    refused = service.systemctl("reload", UNIT, check=False)
    assert refused.code != 0
    assert "no socket named 'http'" in service.status_text
    assert listens(5199)
