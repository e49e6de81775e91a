"""From nothing to a service that is up, and back to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.systemd.conftest import install
from tests.systemd.machine import Machine
from tests.systemd.service import SOCKET, UNIT, Service

Boot = Callable[[], Machine]


def test_an_installation_leaves_the_service_enabled_active_and_ready(
    fresh: Boot, package: Path
) -> None:
    machine = fresh()
    install(machine, package)
    service = Service(machine)
    assert service.systemctl("is-enabled", UNIT).out == "enabled\n"
    assert service.active == "active"
    assert service.ask("/api/health/ready").status == 200
    assert "generation 1 ready" in service.status_text
    assert service.systemctl("is-enabled", SOCKET, check=False).out == "disabled\n"


@pytest.mark.once
def test_an_operator_is_a_member_of_the_group(fresh: Boot, package: Path) -> None:
    machine = fresh()
    install(machine, package)
    for name in ("alice", "stranger"):
        machine.run("useradd", "--create-home", name)
    # As the README says.
    machine.run("usermod", "-aG", "netclaw", "alice")
    service = Service(machine)
    healthy = service.netclaw("status", user="alice")
    assert "is ready: generation 1" in healthy.out
    assert service.netclaw("status", user="stranger", check=False).code != 0
    changed = service.netclaw("config", "set", "drain.timeout_s", "20", user="alice")
    assert changed.code == 0
    service.wait_ready(above=1)
