"""Who runs what in a container, and what they may write: root and the service user, anybody, and little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.container.service import Service, check_one_daemon
from tests.container.test_ends import SHORT_DRAIN, begin_turn, check_resumed, stop

Make = Callable[..., Service]
#: A user that no file inside knows, as some clusters choose one.
ANYBODY = 1000680000


def uid(service: Service, pid: int) -> int:
    return service.stage.proc(pid, "status").stat().st_uid


@pytest.mark.once
def test_the_daemon_of_a_root_s_container_is_the_service_user_s(service: Service) -> None:
    number = int(service.stage.run("id", "-u", "netclaw").out)
    assert uid(service, check_one_daemon(service)) == number != 0
    assert uid(service, 1) == 0
    # The volumes came as root's.
    assert service.stage.state.stat().st_uid == number
    # Who may ask it is in its group, and the command needs no rights of root.
    assert "is ready: generation 1" in service.netclaw("status", user="netclaw").out


VARIANTS: dict[str, dict[str, Any]] = {
    "read-only root": {"read_only": True},
    "anybody": {"user": ANYBODY},
    "anybody, read-only root": {"user": ANYBODY, "read_only": True},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_it_starts_moves_stops_and_goes_on(container: Make, options: dict[str, Any]) -> None:
    service = container(**options)
    service.tables |= SHORT_DRAIN
    generation = service.start()
    if options.get("user"):
        assert uid(service, 1) == uid(service, check_one_daemon(service)) == ANYBODY
    before = service.supervision()
    service.port = 5200
    service.write_config()
    assert service.wait_ready(above=generation) > generation
    assert service.supervision() == before
    assert service.netclaw("daemon", "start").code == 0
    assert service.netclaw("status", "--probe", "live").code == 0
    check_one_daemon(service)
    session = begin_turn(service)
    assert stop(service) == 0
    service.start()
    check_resumed(service, session, "stop")


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_an_empty_volume_gets_a_configuration_and_is_served(
    container: Make, options: dict[str, Any]
) -> None:
    service = container(**options)
    service.stage.start()
    service.wait_ready()
    assert service.config_file.exists()
    origin = service.netclaw("config", "show", "--origin").out
    assert "on_invalid_config" in origin


@pytest.mark.once
def test_the_log_is_printed_and_kept(service: Service) -> None:
    service.wait_words("ready: generation 1")
    assert "ready: generation 1" in service.netclaw("logs").out
    assert (service.stage.state / "logs/s6/current").is_file()
