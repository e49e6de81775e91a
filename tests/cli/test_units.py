"""How systemctl is called and how a unit is worded; what systemd does with it is in tests/systemd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.adapters.control_client import ControlClient
from netclawd.cli import supervised, units
from netclawd.cli.reach import Daemon, own_paths
from netclawd.cli.units import Answer
from netclawd.core.units import UNIT_NAME, Owner, Scope, Unit
from netclawd.core.values import replace
from netclawd.errors import SupervisorError
from tests.cli.conftest import CommandLine

SYSTEM = Unit(UNIT_NAME, Scope.SYSTEM, load="loaded", enabled="enabled")
FAILED = replace(SYSTEM, active="failed", sub="failed", result="exit-code", exit_code=78)


def test_without_a_systemd_nobody_owns_a_home(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BOOTED", str(tmp_path / "absent"))
    monkeypatch.setattr(units, "look", lambda *_: pytest.fail("systemctl was asked"))
    assert units.find_owner(own_paths()) is None


def test_a_user_unit_is_only_asked_for_where_this_user_has_a_systemd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(units, "has_user_systemd", lambda: False)
    monkeypatch.setattr(units, "look", lambda *_: pytest.fail("systemctl was asked"))
    assert units.owner_in(Scope.USER) is None


def test_systemctl_and_journalctl_are_called_for_the_right_systemd() -> None:
    user = replace(SYSTEM, scope=Scope.USER)
    assert units.arguments(Scope.SYSTEM, "start", "x")[1:] == ["--no-pager", "start", "x"]
    assert units.arguments(Scope.USER, "start", "x")[1:3] == ["--user", "--no-pager"]
    assert units.journal_arguments(SYSTEM)[1:] == ["--unit=netclawd.service"]
    assert units.journal_arguments(user, "-f")[1:] == ["--user-unit=netclawd.service", "-f"]


def test_a_call_that_failed_is_shown_as_a_person_would_write_it_with_systemctl_s_words() -> None:
    error = units.failed(["/usr/bin/systemctl", "--user", "--no-pager", "stop", "x"], "No.\nWhy.\n")
    assert error.what == "`systemctl --user stop x` failed: No. Why."
    assert units.failed(["systemctl", "stop"], "").what.endswith("it gave no reason.")


@pytest.mark.parametrize(
    ("stderr", "denied"),
    [
        ("Failed to start x.service: Interactive authentication required.\nSee …", True),
        ("Failed to start x.service: Access denied", True),
        ("Job for x.service failed because the control process exited with error code.", False),
        ("", False),
    ],
)
def test_what_polkit_forbids_is_recognised(stderr: str, denied: bool) -> None:
    assert units.is_denied(stderr) is denied


def test_a_call_that_takes_too_long_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "arguments", lambda *_: ["sleep", "60"])
    monkeypatch.setattr(units, "ANSWER_S", 0.2)
    looks: list[None] = []
    with pytest.raises(SupervisorError, match=r"`systemctl 60` has not ended within 0\.3 s"):
        units.call(
            Scope.SYSTEM, "stop", "x", timeout_s=0.3, while_waiting=lambda: looks.append(None)
        )
    assert looks, "what is waited for was shown meanwhile"
    with pytest.raises(SupervisorError, match="has not ended within"):
        units.look(UNIT_NAME, Scope.SYSTEM)


def test_what_systemctl_says_when_it_fails_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "arguments", lambda *_: ["sh", "-c", "echo No bus. >&2; exit 1"])
    with pytest.raises(SupervisorError, match=r"failed: No bus\. See"):
        units.look(UNIT_NAME, Scope.SYSTEM)


def test_a_systemctl_that_can_not_be_run_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "systemctl"
    broken.write_text("#!/nowhere/sh\n")
    broken.chmod(0o755)
    monkeypatch.setattr(units, "arguments", lambda *_: [str(broken)])
    with pytest.raises(SupervisorError, match=r"systemctl can't be run: No such file"):
        units.look(UNIT_NAME, Scope.SYSTEM)
    with pytest.raises(SupervisorError, match=r"systemctl can't be run: No such file"):
        units.call(Scope.SYSTEM, "stop", UNIT_NAME, timeout_s=1.0)


def test_a_start_that_never_began_shows_no_journal_of_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervised, "answering", lambda _owner: None)
    monkeypatch.setattr(supervised, "last_lines", lambda *_: ["ready: generation 1"])
    unit = replace(SYSTEM, load="bad-setting", exit_code=0, invocation="1" * 32)
    monkeypatch.setattr(supervised, "look_again", lambda _owner: unit)
    said = Answer(
        1, "", "Failed to start netclawd.service: Unit netclawd.service has a bad unit file"
    )
    monkeypatch.setattr(supervised, "call", lambda *_, **__: said)
    assert supervised.start(Owner(unit, own_paths()), as_json=False) == 1
    shown = capsys.readouterr().err
    assert "has a bad unit file" in shown
    assert "ready: generation 1" not in shown


def test_the_status_of_a_daemon_that_answers_asks_no_systemd(
    run: CommandLine, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "find_owner", lambda _home: pytest.fail("systemctl was asked"))
    assert run("status").exit_code == 0


def test_systemctl_finds_this_user_s_systemd_and_answers_in_english(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"/run/user/{os.getuid()}"
    monkeypatch.setattr(os.path, "isdir", lambda path: path == place)
    found = units.user_environ({"XDG_RUNTIME_DIR": "/run/user/77", "LANG": "de_DE", "X": "1"})
    assert found == {
        "XDG_RUNTIME_DIR": place,
        "LANG": "de_DE",
        "X": "1",
        "LC_ALL": "C.UTF-8",
    }
    monkeypatch.setattr(os.path, "isdir", lambda _path: False)
    assert units.user_environ({"XDG_RUNTIME_DIR": "/x"})["XDG_RUNTIME_DIR"] == "/x"


@pytest.mark.parametrize("main_pid", [42, 43])
def test_a_daemon_that_systemd_started_after_the_first_look_was_not_started_by_hand(
    monkeypatch: pytest.MonkeyPatch, main_pid: int
) -> None:
    now = replace(SYSTEM, active="active", main_pid=main_pid)
    running = Daemon(ControlClient("/nowhere"), {"pid": 42})
    monkeypatch.setattr(supervised, "answering", lambda _owner: running)
    monkeypatch.setattr(supervised, "look_again", lambda _owner: now)
    owner, found = supervised.look_at_both(Owner(SYSTEM, own_paths()))
    assert owner.unit is now
    assert supervised.is_outside(found, owner.unit) is (main_pid != 42)


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (replace(SYSTEM, active="active", sub="running"), "is active and enabled."),
        (
            replace(SYSTEM, active="active", restarts=2, status_text="generation 3 ready"),
            "is active and enabled, started again 2 times by systemd.",
        ),
        (SYSTEM, "is inactive and enabled."),
        (replace(SYSTEM, restarts=2), "is inactive and enabled."),
        (replace(SYSTEM, load="masked"), "is masked."),
        (
            replace(SYSTEM, load="bad-setting"),
            "can't be read by systemd (bad-setting) and is inactive and enabled.",
        ),
        (FAILED, "has failed (exit-code, exit code 78)."),
        (
            replace(FAILED, status_text="configuration refused: \x1b[1mno."),
            "has failed (exit-code, exit code 78); its last status: configuration refused: \\x1b[1mno.",
        ),
        (
            replace(SYSTEM, active="failed", result="start-limit-hit", restarts=1),
            "has failed (start-limit-hit), started again 1 time by systemd, which has given up.",
        ),
        (
            replace(FAILED, active="activating", sub="auto-restart", exit_code=75),
            "is about to be started again (exit-code, exit code 75).",
        ),
        (
            replace(SYSTEM, active="active", enabled="static", stale=True),
            "is active. Its file has ",
        ),
    ],
)
def test_a_unit_is_put_into_words(unit: Unit, words: str) -> None:
    assert supervised.describe_unit(unit).startswith(f"netclawd.service (system) {words}")


@pytest.mark.parametrize(
    ("unit", "remedy"),
    [
        (SYSTEM, "usual"),
        (replace(SYSTEM, load="masked"), "Unmask it: `systemctl unmask netclawd.service`."),
        (
            replace(SYSTEM, load="bad-setting"),
            "Mend it (`systemd-analyze verify netclawd.service` says what is wrong), then `systemctl "
            "daemon-reload` and `netclaw daemon start`.",
        ),
        (
            replace(FAILED, scope=Scope.USER),
            "Mend the cause (`systemctl --user status netclawd.service`), then `netclaw daemon start`; "
            "it clears a start limit, too.",
        ),
    ],
)
def test_a_unit_that_is_down_comes_with_what_to_do(unit: Unit, remedy: str) -> None:
    assert supervised.remedy(unit, "usual") == remedy


def test_install_without_user_names_the_package(run: CommandLine) -> None:
    result = run("daemon", "install")
    assert (result.exit_code, "Debian package" in result.stderr) == (2, True)


def test_install_where_no_systemd_runs_says_what_starts_a_daemon_there(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netclawd.cli.install.BOOTED", str(tmp_path / "absent"))
    result = run("daemon", "install", "--user")
    assert (result.exit_code, "`netclaw daemon start`" in result.stderr) == (1, True)


def test_the_programs_of_this_installation_are_found(home: Path) -> None:
    from netclawd.cli.install import installation

    found = installation(own_paths())
    assert os.access(found.netclawd, os.X_OK)
    assert os.path.dirname(found.netclawd) == os.path.dirname(found.netclaw)
    assert found.home == str(home)


def test_the_packaged_unit_is_the_template() -> None:
    from netclawd.cli.install import TEMPLATE

    text = Path(TEMPLATE).read_text()
    assert text == (Path(__file__).parents[2] / "units/user/netclawd.service").read_text()
    assert "ExecStart=/usr/bin/netclawd\n" in text, "the line that is written anew"
    assert "ExecReload=/usr/bin/netclaw reload --wait\n" in text
