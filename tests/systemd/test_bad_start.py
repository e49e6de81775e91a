"""A start that can't be: it fails at once and says why; it never goes round and round."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.systemd.conftest import install
from tests.systemd.machine import Machine
from tests.systemd.service import STATE, UNIT, Service
from tests.waiting import scaled, wait_for

#: Holds a port from inside, as another program does.
HOLDER = """
import socket, sys, time
taken = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("held", flush=True)
time.sleep(600)
"""


def status(service: Service) -> str:
    answer = service.systemctl("status", "--no-pager", "--full", "--lines=30", UNIT, check=False)
    return answer.out


def start(service: Service) -> int:
    return service.systemctl("start", UNIT, check=False, timeout_s=90.0).code


def test_a_bad_configuration_fails_the_start_at_once_with_78_and_no_loop(stopped: Service) -> None:
    stopped.write_config('[daemon]\nlisen = ["127.0.0.1:5200"]\n')
    begun = time.monotonic()
    assert start(stopped) != 0
    assert time.monotonic() - begun < scaled(10.0)
    assert stopped.active == "failed"
    assert stopped.show("ExecMainStatus") == "78"
    assert stopped.starts_by_itself == 0
    assert "daemon.lisen (line 2) is not a known setting" in status(stopped)
    stopped.write_config()
    assert start(stopped) == 0, "no latch is left"


def test_a_port_that_another_program_holds_is_said_and_tried_again_a_while(
    stopped: Service,
) -> None:
    stopped.drop_in("[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=200ms\n")
    with stopped.machine.running("/usr/bin/python3", "-c", HOLDER, "5199") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        start(stopped)
        stopped.wait_active("failed", timeout_s=60.0)
        assert stopped.show("ExecMainStatus") == "75"
        assert stopped.starts_by_itself >= 1
        told = status(stopped)
        assert "127.0.0.1:5199" in told
        assert "in use" in told
    stopped.systemctl("reset-failed", UNIT)
    assert start(stopped) == 0
    stopped.wait_ready()


@pytest.mark.once
def test_a_port_that_is_given_back_in_time_is_taken(stopped: Service) -> None:
    stopped.drop_in("[Unit]\nStartLimitBurst=100\n[Service]\nRestartSec=200ms\n")
    with stopped.machine.running("/usr/bin/python3", "-c", HOLDER, "5199") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        stopped.systemctl("start", "--no-block", UNIT)
        wait_for(lambda: stopped.starts_by_itself >= 1, 30.0, "the first start to fail")
    stopped.wait_active("active", timeout_s=30.0)
    stopped.wait_ready()


@pytest.mark.once
def test_a_state_directory_that_can_not_be_written_is_said(stopped: Service) -> None:
    stopped.drop_in(f"[Unit]\nStartLimitBurst=3\n[Service]\nReadOnlyPaths={STATE}\n")
    start(stopped)
    stopped.wait_active("failed", timeout_s=60.0)
    assert STATE in status(stopped)
    assert "ead-only" in status(stopped)
    stopped.systemctl("reset-failed", UNIT)


@pytest.mark.once
def test_a_missing_credential_fails_before_the_daemon_and_systemd_names_it(
    stopped: Service,
) -> None:
    stopped.drop_in("[Service]\nLoadCredential=model-key:/etc/credstore/no-such-file\n")
    assert start(stopped) != 0
    stopped.wait_active("failed", timeout_s=60.0)
    assert stopped.show("ExecMainStatus") == "243"  # EXIT_CREDENTIALS, systemd.exec(5)
    assert "model-key" in "\n".join(stopped.messages()) or "CREDENTIALS" in status(stopped)
    stopped.systemctl("reset-failed", UNIT)


SECRET = '[providers.model]\nkind = "demo"\napi_key = "credential:model-key"\n'


@pytest.mark.once
def test_a_credential_that_the_unit_does_not_load_is_a_wrong_configuration(
    stopped: Service,
) -> None:
    stopped.write_config(stopped.config_text() + SECRET)
    assert start(stopped) != 0
    assert stopped.active == "failed"
    assert stopped.show("ExecMainStatus") == "78"
    assert "model-key" in status(stopped)


def test_a_credential_is_rotated_by_a_restart(stopped: Service) -> None:
    place = "/etc/credstore/netclawd.model-key"
    stopped.drop_in(f"[Service]\nLoadCredential=model-key:{place}\n")
    stopped.write_config(stopped.config_text() + SECRET)
    for secret in ("first-secret", "second-secret"):
        stopped.machine.write(place, secret)
        stopped.machine.run("chmod", "600", place)
        stopped.systemctl("restart", UNIT)
        stopped.wait_ready()
        read = f"/run/credentials/{UNIT}/model-key"
        assert stopped.machine.read(read) == secret
        assert not any(secret in line for line in stopped.messages())


def test_without_python3_systemd_the_daemon_serves_and_calls_itself_degraded(
    stopped: Service,
) -> None:
    """Hidden from the service alone: the package itself insists on it."""
    found = stopped.machine.run(
        "/usr/bin/python3", "-c", "import systemd; print(systemd.__path__[0])"
    ).out.strip()
    stopped.drop_in(f"[Service]\nInaccessiblePaths={found}\n")
    stopped.start()
    assert stopped.active == "active"
    answer = stopped.netclaw("status", check=False)
    assert answer.code == 1
    assert "python3-systemd" in answer.out + answer.err


@pytest.mark.once
def test_an_installation_succeeds_and_says_so_when_the_port_is_taken(
    fresh: Callable[[], Machine], package: Path
) -> None:
    machine = fresh()
    service = Service(machine)
    with machine.running("/usr/bin/python3", "-c", HOLDER, "5199") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        said = install(machine, package)
    assert "could not be started" in said
    assert "127.0.0.1:5199" in said
    assert service.active == "failed"
    assert machine.run("dpkg-query", "-W", "-f", "${Status}", "netclawd").out == (
        "install ok installed"
    )
    # As it was told: the command also clears the start limit, which the attempts have reached.
    service.netclaw("daemon", "start")
    service.wait_ready()
