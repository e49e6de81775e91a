"""``netclaw daemon install --user``: a user's daemon under the user's own systemd, from nothing and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from netclawd.core.upgrade import PACKAGE_MARKER
from tests.systemd.machine import Machine, Result
from tests.systemd.service import UNIT, Service
from tests.waiting import wait_for

USER = "netclawd.service (user)"
_numbers = itertools.count(1)


class Ada:
    """A user whose systemd runs, another one in each test; the system's service is stopped."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.name = f"ada{next(_numbers)}"
        self.home = f"/home/{self.name}"
        self.file = f"{self.home}/.config/systemd/user/{UNIT}"
        machine.run("useradd", "--create-home", self.name)
        self.uid = machine.run("id", "-u", self.name).out.strip()
        machine.run("loginctl", "enable-linger", self.name)
        place = f"/run/user/{self.uid}/systemd/private"
        wait_for(lambda: machine.exists(place), 10.0, "the user's systemd to run")

    def leave(self) -> None:
        self.machine.run("loginctl", "disable-linger", self.name)
        self.machine.run("systemctl", "stop", f"user@{self.uid}.service", timeout_s=60.0)

    def run(self, command: str, *, check: bool = True) -> Result:
        """Run a command in a login shell."""
        result = self.machine.run("runuser", "-l", self.name, "-c", command, check=False)
        assert not check or result.code == 0, f"{result}"
        return result

    def netclaw(self, words: str, *, check: bool = True) -> Result:
        return self.run(f"netclaw {words}", check=check)

    def show(self, name: str) -> str:
        return self.run(f"systemctl --user show --value --property={name} {UNIT}").out.strip()


@pytest.fixture
def ada(stopped: Service) -> Iterator[Ada]:
    user = Ada(stopped.machine)
    yield user
    user.leave()


def test_install_use_and_uninstall(ada: Ada, stopped: Service) -> None:
    installed = ada.netclaw("daemon install --user")
    assert f"{ada.file} is written, and enabled.\n" in installed.out
    assert f"under {USER}" in installed.out
    assert "enable-linger" not in installed.err, "this user lingers already"
    assert (ada.show("ActiveState"), ada.show("UnitFileState")) == ("active", "enabled")
    pid = int(ada.show("MainPID"))
    shown = ada.netclaw("daemon status").out
    assert f"home           {ada.home}/.local/state/netclaw" in shown
    assert f"unit           {USER} is active and enabled" in shown
    again = ada.netclaw("daemon install --user")
    assert f"{ada.file} is as it was, and enabled." in again.out
    assert f"The daemon runs already: pid {pid}, ready, under {USER}." in again.out

    ada.run('netclaw config set daemon.listen \'["127.0.0.1:5199", "127.0.0.1:5200"]\'')
    ada.run(f"systemctl --user reload {UNIT}")
    assert int(ada.show("MainPID")) == pid
    assert f"{USER} stopped cleanly in " in ada.netclaw("daemon stop").out
    down = ada.netclaw("daemon status", check=False)
    assert (down.code, f"{USER} is inactive and enabled." in down.err) == (3, True)
    assert "generation 3, answers on 127.0.0.1:5199" in ada.netclaw("daemon start").out

    removed = ada.netclaw("daemon uninstall")
    assert f"The daemon is stopped. {ada.file} is removed." in removed.out
    assert not stopped.machine.exists(ada.file)
    assert ada.show("ActiveState") == "inactive"
    assert ada.show("UnitFileState") != "enabled"
    assert ada.show("FragmentPath") != ada.file, "at most the package's, which nobody uses"
    assert stopped.machine.exists(f"{ada.home}/.local/state/netclaw/netclawd.db"), "data stays"
    assert stopped.machine.exists(f"{ada.home}/.config/netclaw/netclaw.toml")
    assert "nothing to uninstall" in ada.netclaw("daemon uninstall").out


def test_systemd_has_nothing_to_say_about_the_unit(ada: Ada) -> None:
    ada.run(f"NETCLAW_HOME='{ada.home}/my %home' netclaw daemon install --user")
    said = ada.run(f"systemd-analyze --user verify --man=no {ada.file}")
    assert said.out + said.err == ""


def test_a_chosen_home_is_written_into_the_unit_and_is_the_unit_s(ada: Ada) -> None:
    home = f"NETCLAW_HOME='{ada.home}/my %home'"
    found = json.loads(ada.run(f"{home} netclaw daemon install --user --json").out)
    assert (found["started"], found["unit"]["scope"]) == (True, "user")
    shown = json.loads(ada.run(f"{home} netclaw daemon status --json").out)
    assert shown["home"] == f"{ada.home}/my %home"
    assert shown["pid"] == shown["unit"]["main_pid"]
    other = ada.netclaw("daemon install --user", check=False)
    assert other.code == 1
    assert f"{USER} runs the daemon of {ada.home}/my %home" in other.err
    assert ada.netclaw("daemon uninstall").code == 0, "which needs to be told of no home"


@pytest.mark.once
def test_the_unit_starts_the_installation_that_installed_it(ada: Ada) -> None:
    """Wherever that lies: here under a name that systemd has to be told of in quotes."""
    folder = f"{ada.home}/an %i env/bin"
    ada.run(f"mkdir -p '{folder}' && cp /usr/bin/netclawd /usr/bin/netclaw '{folder}'")
    ada.run(f"'{folder}/netclaw' daemon install --user")
    command = ada.machine.proc(int(ada.show("MainPID")), "cmdline").read_bytes()
    assert f"{folder}/netclawd".encode() in command
    ada.run(f"systemctl --user reload {UNIT}")
    ada.run(f"'{folder}/netclaw' daemon uninstall")


@pytest.mark.once
def test_a_crash_keeps_the_listeners_of_a_user_s_daemon_too(ada: Ada, stopped: Service) -> None:
    ada.netclaw("daemon install --user")
    before, listening = ada.show("MainPID"), stopped.listening()
    ada.run(f"kill -KILL {before}")
    wait_for(lambda: ada.show("MainPID") not in (before, "0"), 10.0, "the next start")
    stopped.wait_ready(above=1)
    assert stopped.listening() == listening, "the same sockets, by inode"
    assert "started again 1 time by systemd" in ada.netclaw("daemon status").out


@pytest.mark.once
def test_a_package_upgrade_holds_a_user_s_daemon_back_too(ada: Ada) -> None:
    """Its runtime folder is its own, and the package doesn't know it."""
    ada.netclaw("daemon install --user")
    ada.machine.write(PACKAGE_MARKER, "")
    try:
        refused = ada.netclaw("reload --force --wait", check=False)
        assert refused.code == 1
        assert PACKAGE_MARKER in refused.err + refused.out
    finally:
        ada.machine.run("rm", PACKAGE_MARKER)
    wait_for(
        lambda: "ready: generation 2" in ada.netclaw("status", check=False).out,
        20.0,
        "it to be done",
    )


@pytest.mark.once
def test_a_unit_of_somebody_s_own_making_is_left_alone(ada: Ada) -> None:
    own = "[Service]\\nExecStart=/bin/sleep 100\\n"
    ada.run(f"mkdir -p $(dirname {ada.file}) && printf '{own}' >{ada.file}")
    for verb in ("install --user", "uninstall"):
        refused = ada.netclaw(f"daemon {verb}", check=False)
        assert refused.code == 1
        assert "was not written by `netclaw daemon install --user`; it is left alone" in refused.err
    assert ada.run(f"cat {ada.file}").out == "[Service]\nExecStart=/bin/sleep 100\n"


@pytest.mark.once
def test_a_unit_that_was_changed_since_is_left_alone_and_goes_on(ada: Ada) -> None:
    ada.netclaw("daemon install --user")
    pid = ada.show("MainPID")
    ada.run(f"echo Nice=3 >>{ada.file}")
    for verb in ("install --user", "uninstall"):
        refused = ada.netclaw(f"daemon {verb}", check=False)
        assert refused.code == 1
        assert "was changed since it was written" in refused.err
        assert "systemctl --user edit" in refused.err
    assert ada.show("MainPID") == pid


@pytest.mark.once
def test_a_daemon_that_runs_by_itself_is_to_be_stopped_first(ada: Ada) -> None:
    """The start is by hand: the command would have had the system start one."""
    ada.run("setsid netclawd >/dev/null 2>&1 </dev/null & sleep 0.1")
    wait_for(lambda: ada.netclaw("status", check=False).code == 0, 10.0, "the daemon to be ready")
    refused = ada.netclaw("daemon install --user", check=False)
    assert refused.code == 1
    assert "runs already, without systemd" in refused.err
    assert "`netclaw daemon stop`" in refused.err
    assert "Stopped cleanly" in ada.netclaw("daemon stop").out, "it is this user's own"
    assert ada.netclaw("daemon install --user").code == 0


@pytest.mark.once
def test_a_shell_that_was_not_told_of_the_session_finds_it(ada: Ada) -> None:
    ada.netclaw("daemon install --user")
    bare = "env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS netclaw"
    assert "is ready: generation 1" in ada.run(f"{bare} status").out
    assert f"{USER} stopped cleanly" in ada.run(f"{bare} daemon stop").out


@pytest.mark.once
def test_a_user_with_a_unit_never_touches_the_system_s(ada: Ada, stopped: Service) -> None:
    """Who may stop both stops the one that is theirs, also when that doesn't run."""
    stopped.machine.run("usermod", "-aG", "netclaw", ada.name)
    stopped.start()
    toml = '[daemon]\\nlisten = ["127.0.0.1:5201"]\\n'
    ada.run(f"mkdir -p .config/netclaw && printf '{toml}' >.config/netclaw/netclaw.toml")
    ada.netclaw("daemon install --user")
    for _ in range(2):
        ada.netclaw("daemon stop")
        assert ada.show("ActiveState") == "inactive"
        assert stopped.active == "active"
    down = ada.netclaw("daemon status", check=False)
    assert (down.code, f"{USER} is inactive" in down.err) == (3, True)


@pytest.mark.once
def test_a_user_without_a_systemd_is_told_how_to_get_one(stopped: Service) -> None:
    refused = stopped.machine.run("netclaw", "daemon", "install", "--user", check=False)
    assert refused.code == 1
    assert "This user has no systemd" in refused.err
    assert "`sudo loginctl enable-linger root`" in refused.err


@pytest.mark.once
def test_without_user_the_package_is_named(stopped: Service) -> None:
    refused = stopped.netclaw("daemon", "install", check=False)
    assert refused.code == 2
    assert "Debian package" in refused.err


@pytest.mark.once
def test_the_system_s_home_can_t_be_taken(ada: Ada, stopped: Service) -> None:
    """A user unit is never given what the unit of the system owns."""
    refused = ada.run("STATE_DIRECTORY=/var/lib/netclaw netclaw daemon install --user", check=False)
    assert refused.code == 1
    assert "is the home of netclawd.service (system) already" in refused.err
