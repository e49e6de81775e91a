"""``netclaw init`` where the package's unit owns the home: systemd starts it, and the file is the unit's."""

from __future__ import annotations

import json

import pytest

from tests.process.client import listens
from tests.systemd.service import CONFIG, Service
from tests.systemd.test_daemon_command import daemons

INIT = ("init", "--non-interactive")


@pytest.mark.once
def test_a_unit_that_is_stopped_is_started_by_systemd_with_the_answers(stopped: Service) -> None:
    found = json.loads(stopped.netclaw(*INIT, "--json", "--listen", "127.0.0.1:5200").out)
    assert (found["daemon"], found["outcome"]) == (False, "ready")
    assert found["path"] == CONFIG
    assert found["start"]["unit"]["active"] == "active"
    assert daemons(stopped.machine) == [stopped.main_pid] == [found["pid"]]
    assert listens(5200)


@pytest.mark.once
def test_a_unit_that_runs_goes_on_with_the_same_process(service: Service) -> None:
    identity = service.identity()
    said = service.netclaw(*INIT, "--listen", "127.0.0.1:5200", "--drain-timeout", "20")
    assert "generation 2 serves" in said.out
    assert f"pid {identity[0]}, generation 2, answers on 127.0.0.1:5200." in said.out
    assert service.identity() == identity


def test_a_unit_that_has_given_up_is_mended(stopped: Service) -> None:
    stopped.write_config(listen=["0.0.0.0:5199"])
    assert stopped.netclaw("daemon", "start", check=False).code == 78
    assert stopped.active == "failed"
    said = stopped.netclaw(*INIT, "--listen", "127.0.0.1:5199")
    assert f"The daemon is ready: pid {stopped.main_pid}, generation 1" in said.out
    assert stopped.active == "active"


@pytest.mark.once
def test_a_user_without_a_unit_is_about_the_system_s(service: Service) -> None:
    said = service.netclaw(*INIT, "--drain-timeout", "20", user="alice")
    assert f"{CONFIG} " in said.out
    assert "generation 2" in said.out


@pytest.mark.once
def test_who_may_not_start_the_unit_is_told_what_is_written(stopped: Service) -> None:
    said = stopped.netclaw(*INIT, "--drain-timeout", "20", user="alice", check=False)
    assert said.code == 1
    assert f"{CONFIG} is written. systemd does not let this user start netclawd.service" in said.err


@pytest.mark.once
@pytest.mark.parametrize(
    ("user", "access"), [(None, "netclaw:netclaw 600"), ("alice", "alice:netclaw 640")]
)
def test_a_key_can_be_read_by_the_daemon_whoever_gives_it(
    service: Service, user: str | None, access: str
) -> None:
    service.machine.write("/tmp/key", "sk-1234\n")
    service.machine.run("chmod", "644", "/tmp/key")
    model = ("--provider", "openai", "--model", "m", "--no-try", "--api-key-file", "/tmp/key")
    said = service.netclaw(*INIT, *model, user=user)
    assert "generation 2" in said.out
    found = service.machine.run("stat", "--format=%U:%G %a", "/etc/netclaw/openai.key").out
    assert found.strip() == access
