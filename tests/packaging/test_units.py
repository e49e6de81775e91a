"""The units against the budgets, the paths and the exit codes of the program, and before systemd itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netclawd.core import budgets, paths
from netclawd.errors import EXIT_CONFIG, EXIT_TEMPORARY
from tests.packaging.units import (
    ROOT,
    UNITS,
    Analyzer,
    analyzers,
    exposure,
    only,
    prepare,
    read_unit,
    seconds,
    verify,
    weaknesses,
)

SERVICE = UNITS / "netclawd.service"
SOCKET = UNITS / "netclawd.socket"
USER = UNITS / "user/netclawd.service"
EXAMPLES = sorted((UNITS / "examples").glob("*.conf"))

both = pytest.mark.parametrize("unit", [SERVICE, USER], ids=["system", "user"])
each_systemd = pytest.mark.parametrize("analyzer", analyzers(), ids=lambda it: it.name)


@both
def test_the_budgets_of_a_unit_are_those_of_the_program(unit: Path) -> None:
    settings = read_unit(unit)
    assert seconds(only(settings, "TimeoutStartSec")) == budgets.UNIT_START_S
    assert seconds(only(settings, "TimeoutStopSec")) == budgets.UNIT_STOP_S
    assert seconds(only(settings, "WatchdogSec")) == budgets.WATCHDOG_S


def test_a_unit_waits_longer_for_a_reload_than_the_command_that_it_runs() -> None:
    assert budgets.UNIT_START_S > budgets.OUTCOME_S


@both
def test_the_exit_codes_of_a_unit_are_those_of_the_program(unit: Path) -> None:
    settings = read_unit(unit)
    assert only(settings, "RestartForceExitStatus") == str(EXIT_TEMPORARY)
    assert only(settings, "RestartPreventExitStatus") == str(EXIT_CONFIG)


def test_the_folders_of_the_unit_are_where_the_clients_look() -> None:
    settings = read_unit(SERVICE)
    assert f"/var/lib/{only(settings, 'StateDirectory')}" == paths.SYSTEM_STATE
    assert f"/run/{only(settings, 'RuntimeDirectory')}" == paths.SYSTEM_RUNTIME
    assert only(settings, "ReadWritePaths") == f"-{Path(paths.SYSTEM_CONFIG).parent}"
    assert only(settings, "User") == paths.SERVICE_USER


def test_user_and_folder_are_made_as_the_unit_needs_them() -> None:
    assert f"\nu {paths.SERVICE_USER} " in (UNITS / "netclawd.sysusers").read_text()
    folder = f"\nd {Path(paths.SYSTEM_CONFIG).parent} 2770 root {paths.SERVICE_USER} "
    assert folder in (UNITS / "netclawd.tmpfiles").read_text()


def test_the_descriptor_store_has_room_for_every_listener_of_two_generations() -> None:
    schema = json.loads((ROOT / "netclawd/netclaw.schema.json").read_text())
    most = schema["properties"]["daemon"]["properties"]["listen"]["maxItems"]
    # A Unix socket has a second descriptor, for its file.
    assert int(only(read_unit(SERVICE), "FileDescriptorStoreMax")) >= 2 * 2 * most


def test_a_start_that_always_fails_is_given_up_soon_and_one_crash_is_mended_at_once() -> None:
    settings = read_unit(SERVICE)
    burst, pause_s = int(only(settings, "StartLimitBurst")), seconds(only(settings, "RestartSec"))
    # Even if each start takes seconds the limit is reached.
    assert burst * (pause_s + 5.0) <= seconds(only(settings, "StartLimitIntervalSec"))
    assert pause_s <= 0.2


def test_the_socket_is_the_one_that_a_configuration_names_http() -> None:
    assert only(read_unit(SOCKET), "FileDescriptorName") == "http"


@each_systemd
def test_systemd_has_nothing_to_say_about_the_units(analyzer: Analyzer, tmp_path: Path) -> None:
    prepare(tmp_path, SERVICE, SOCKET)
    assert verify(analyzer, tmp_path, [SERVICE.name, SOCKET.name]) == ""


@each_systemd
def test_systemd_has_nothing_to_say_about_the_unit_of_a_user(
    analyzer: Analyzer, tmp_path: Path
) -> None:
    prepare(tmp_path, USER)
    assert verify(analyzer, tmp_path, [USER.name], "--user") == ""


@each_systemd
def test_a_setting_that_systemd_does_not_know_is_noticed(
    analyzer: Analyzer, tmp_path: Path
) -> None:
    prepare(tmp_path, SERVICE)
    with open(tmp_path / SERVICE.name, "a") as file:
        file.write("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in verify(analyzer, tmp_path, [SERVICE.name])


@each_systemd
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda it: it.stem)
def test_systemd_has_nothing_to_say_about_an_example(
    analyzer: Analyzer, example: Path, tmp_path: Path
) -> None:
    """With every line that it shows as a comment, too."""
    prepare(tmp_path, SERVICE, SOCKET)
    owner = SOCKET if "[Socket]" in example.read_text() else SERVICE
    folder = tmp_path / f"{owner.name}.d"
    folder.mkdir()
    lines = example.read_text().splitlines()
    shown = [line[1:] if line[:1] == "#" and line[1:2].isupper() else line for line in lines]
    (folder / example.name).write_text("\n".join(shown) + "\n")
    assert verify(analyzer, tmp_path, [owner.name]) == ""


@each_systemd
def test_the_service_is_hardened(analyzer: Analyzer, tmp_path: Path) -> None:
    prepare(tmp_path, SERVICE)
    assert exposure(analyzer, tmp_path, SERVICE.name) <= 1.5


@each_systemd
def test_what_is_not_hardened_is_what_the_daemon_needs(analyzer: Analyzer, tmp_path: Path) -> None:
    prepare(tmp_path, SERVICE)
    assert weaknesses(analyzer, tmp_path, SERVICE.name) <= {
        "RootDirectoryOrRootImage",
        "ProcSubset",
        "PrivateUsers",
        "PrivateNetwork",
        "IPAddressDeny",
        "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_UNIX",
        "SystemCallFilter_privileged",  # @chown, for daemon.unix_group
        "DeviceAllow",  # ProtectClock= itself lets char-rtc be read
    }
