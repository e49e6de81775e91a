"""What the commands say while a package upgrade holds restarts back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import CommandLine
from tests.process.harness import Daemon
from tests.waiting import wait_for


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with Daemon() as one:
        monkeypatch.setenv("NETCLAW_HOME", str(one.home))
        text = one.config_text().replace("[daemon]", "# The daemon's.\n[daemon]  # here")
        one.write_config(text=text)
        yield one.start()


@pytest.fixture
def netclaw() -> CommandLine:
    return CommandLine()


def test_nothing_is_written_while_a_package_upgrade_holds_restarts_back(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    before = daemon.config_path.read_bytes()
    (daemon.home / "run" / "upgrading").touch()
    result = netclaw("config", "set", "sessions.workers", "5")
    assert result.exit_code == 1
    assert "A package upgrade is under way" in result.stderr
    assert "Say it again when the upgrade is over." in result.stderr
    assert daemon.config_path.read_bytes() == before

    asked = netclaw("reload", "--force", "--wait")
    assert asked.exit_code == 1
    assert "refused; generation 1 goes on. A package upgrade is under way" in asked.stderr
    assert "dpkg --configure -a" in asked.stderr
    planned = netclaw("reload", "--plan")
    assert (planned.exit_code, "Nothing to do" in planned.stdout) == (0, True)
    shown = netclaw("status")
    assert shown.exit_code == 0, "it serves as it should"
    assert "A reload asked for by control waits for its end." in shown.stdout
    (daemon.home / "run" / "upgrading").unlink()
    wait_for(lambda: daemon.generation() == 2, 10.0, "what was asked to be carried out")
