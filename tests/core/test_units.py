"""Which unit owns a home, by what systemd says of it."""

from __future__ import annotations

import pytest

from netclawd.core.paths import locate
from netclawd.core.units import (
    UNIT_NAME,
    Account,
    Owner,
    Scope,
    Surroundings,
    Unit,
    account_name,
    choose_owner,
    locate_unit,
    read_environment,
    read_surroundings,
    read_unit,
)
from netclawd.core.values import replace

#: What systemctl 252 printed for a unit whose daemon had refused its configuration.
FAILED = r"""MainPID=0
StatusText=configuration refused: daemon.lisen is not a known setting
Result=exit-code
NRestarts=2
ExecMainCode=1
ExecMainStatus=78
Environment=NETCLAW_HOME=/srv/n "A=b c" "Q=a\"b'c" "D=\$x\\y" EMPTY=
User=netclaw
RuntimeDirectory=netclaw
StateDirectory=netclaw more
LoadState=loaded
ActiveState=failed
SubState=failed
FragmentPath=/lib/systemd/system/netclawd.service
UnitFileState=enabled
NeedDaemonReload=no
InvocationID=688fe25732174594a8e768c84e1ba68d
"""

SERVICE = Account(990, "netclaw", "")
ROOT = Account(0, "root", "/root")
ADA = Account(1000, "ada", "/home/ada")
#: What the systemd of a user gives its units.
AROUND = Surroundings(252, (("HOME", "/home/ada"), ("XDG_RUNTIME_DIR", "/run/user/1000")))

PACKAGED = Unit(
    UNIT_NAME,
    Scope.SYSTEM,
    load="loaded",
    enabled="disabled",
    fragment="/lib/systemd/system/netclawd.service",
    user="netclaw",
    state_directory="netclaw",
    runtime_directory="netclaw",
)
OFFERED = Unit(
    UNIT_NAME,
    Scope.USER,
    load="loaded",
    enabled="disabled",
    fragment="/usr/lib/systemd/user/netclawd.service",
)
OWN = replace(OFFERED, fragment="/home/ada/.config/systemd/user/netclawd.service")


def test_what_systemctl_shows_is_read() -> None:
    unit = read_unit(UNIT_NAME, Scope.SYSTEM, FAILED)
    assert unit == Unit(
        UNIT_NAME,
        Scope.SYSTEM,
        load="loaded",
        enabled="enabled",
        fragment="/lib/systemd/system/netclawd.service",
        active="failed",
        sub="failed",
        result="exit-code",
        exit_code=78,
        status_text="configuration refused: daemon.lisen is not a known setting",
        restarts=2,
        invocation="688fe25732174594a8e768c84e1ba68d",
        user="netclaw",
        environment=(
            ("NETCLAW_HOME", "/srv/n"),
            ("A", "b c"),
            ("Q", "a\"b'c"),
            ("D", r"$x\y"),
            ("EMPTY", ""),
        ),
        state_directory="netclaw",
        runtime_directory="netclaw",
    )
    assert unit.label == "netclawd.service (system)"
    assert (unit.runs, unit.rests, unit.exists) == (False, True, True)


def test_a_unit_that_is_not_there_is_read_as_such() -> None:
    text = "LoadState=not-found\nActiveState=inactive\nMainPID=0\nEnvironment=\nStateDirectory=\n"
    assert read_unit("x", Scope.USER, text) == Unit("x", Scope.USER)
    assert not Unit("x", Scope.USER).exists


def test_a_process_that_a_signal_ended_has_no_exit_code() -> None:
    text = FAILED.replace("ExecMainCode=1", "ExecMainCode=2").replace("Status=78", "Status=9")
    assert read_unit(UNIT_NAME, Scope.SYSTEM, text).exit_code is None


def test_the_surroundings_of_user_units_are_read() -> None:
    text = 'Version=252.39-1~deb12u2\nEnvironment=HOME=/home/ada "X=a b"\n'
    assert read_surroundings(text) == Surroundings(252, (("HOME", "/home/ada"), ("X", "a b")))
    assert read_environment("") == ()


@pytest.mark.parametrize(
    ("unit", "account", "around", "state", "runtime"),
    [
        pytest.param(
            PACKAGED,
            SERVICE,
            Surroundings(),
            "/var/lib/netclaw",
            "/run/netclaw",
            id="the package's",
        ),
        pytest.param(
            Unit(UNIT_NAME, Scope.SYSTEM, load="masked"),
            SERVICE,
            Surroundings(),
            "/var/lib/netclaw",
            "/run/netclaw",
            id="masked",
        ),
        pytest.param(
            replace(PACKAGED, state_directory="other", runtime_directory=""),
            SERVICE,
            Surroundings(),
            "/var/lib/other",
            "/run/netclaw",
            id="another state directory",
        ),
        pytest.param(
            replace(
                PACKAGED, user="", state_directory="", environment=(("NETCLAW_HOME", "/srv/n"),)
            ),
            ROOT,
            Surroundings(),
            "/srv/n/state",
            "/run/netclaw",
            id="a chosen home, run as root",
        ),
        pytest.param(
            OWN,
            ADA,
            AROUND,
            "/home/ada/.local/state/netclaw",
            "/run/user/1000/netclaw",
            id="a user's",
        ),
        pytest.param(
            replace(OWN, environment=(("NETCLAW_HOME", "/home/ada/n"),)),
            ADA,
            AROUND,
            "/home/ada/n/state",
            "/home/ada/n/run",
            id="a user's with a chosen home",
        ),
        pytest.param(
            replace(OWN, state_directory="netclaw", runtime_directory="netclaw"),
            ADA,
            AROUND,
            "/home/ada/.config/netclaw",
            "/run/user/1000/netclaw",
            id="a user's with StateDirectory= on 252",
        ),
        pytest.param(
            replace(OWN, state_directory="netclaw"),
            ADA,
            replace(AROUND, version=257),
            "/home/ada/.local/state/netclaw",
            "/run/user/1000/netclaw",
            id="a user's with StateDirectory= on 257",
        ),
        pytest.param(
            OWN,
            ADA,
            replace(AROUND, environment=(*AROUND.environment, ("NETCLAW_HOME", "/n"))),
            "/n/state",
            "/n/run",
            id="a home that the user's systemd was given",
        ),
    ],
)
def test_a_unit_gives_its_daemon_these_folders(
    unit: Unit, account: Account, around: Surroundings, state: str, runtime: str
) -> None:
    paths = locate_unit(unit, account, around)
    assert paths is not None
    assert (paths.state, paths.runtime) == (state, runtime)


def test_a_unit_that_could_not_start_owns_nothing() -> None:
    wrong = replace(OWN, environment=(("NETCLAW_HOME", "here"),))
    assert locate_unit(wrong, ADA, AROUND) is None


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        (PACKAGED, "netclaw"),
        (replace(PACKAGED, user=""), "root"),
        (Unit(UNIT_NAME, Scope.SYSTEM, load="masked"), "netclaw"),
    ],
)
def test_a_unit_runs_as_the_user_that_it_names(unit: Unit, name: str) -> None:
    assert account_name(unit) == name


# -- the choice ----------------------------------------------------------------------------------

SYSTEM_HOME = locate({}, 0)
ADAS_HOME = locate(dict(AROUND.environment), 1000)
CHOSEN_HOME = locate({"NETCLAW_HOME": "/srv/n"}, 1000)


def owner(unit: Unit) -> Owner:
    account, around = (SERVICE, Surroundings()) if unit.scope == Scope.SYSTEM else (ADA, AROUND)
    paths = locate_unit(unit, account, around)
    assert paths is not None
    return Owner(unit, paths)


@pytest.mark.parametrize("unit", [PACKAGED, replace(PACKAGED, active="failed")])
def test_the_unit_of_the_system_owns_the_system_s_home_also_when_it_does_not_run(
    unit: Unit,
) -> None:
    assert choose_owner(SYSTEM_HOME, [owner(unit)]) == owner(unit)


def test_a_masked_unit_owns_the_system_s_home() -> None:
    masked = owner(Unit(UNIT_NAME, Scope.SYSTEM, load="masked", enabled="masked"))
    assert choose_owner(SYSTEM_HOME, [masked]) == masked


def test_without_a_unit_a_home_has_no_owner() -> None:
    assert choose_owner(SYSTEM_HOME, []) is None
    assert choose_owner(ADAS_HOME, [owner(replace(PACKAGED, load="not-found"))]) is None


def test_a_user_s_own_unit_comes_before_the_system_s() -> None:
    assert choose_owner(ADAS_HOME, [owner(PACKAGED), owner(OWN)]) == owner(OWN)


def test_a_user_without_a_unit_gets_the_system_s() -> None:
    found = choose_owner(ADAS_HOME, [owner(PACKAGED)])
    assert found == replace(owner(PACKAGED), borrowed=True)
    assert found.paths == SYSTEM_HOME


@pytest.mark.parametrize(
    ("unit", "chosen"),
    [
        pytest.param(OFFERED, False, id="the package only offers it"),
        pytest.param(replace(OFFERED, enabled="enabled"), True, id="enabled"),
        pytest.param(replace(OFFERED, active="active"), True, id="started"),
        pytest.param(replace(OFFERED, active="failed"), True, id="failed"),
        pytest.param(replace(OFFERED, enabled="masked"), True, id="masked"),
        pytest.param(OWN, True, id="in the user's own folder"),
    ],
)
def test_a_user_unit_that_nobody_uses_is_no_choice(unit: Unit, chosen: bool) -> None:
    found = choose_owner(ADAS_HOME, [owner(PACKAGED), owner(unit)])
    assert found is not None
    assert found.unit.scope == (Scope.USER if chosen else Scope.SYSTEM)


def test_a_chosen_home_is_never_taken_for_another() -> None:
    assert choose_owner(CHOSEN_HOME, [owner(PACKAGED), owner(OWN)]) is None
    its = owner(replace(OWN, environment=(("NETCLAW_HOME", "/srv/n"),)))
    assert choose_owner(CHOSEN_HOME, [owner(PACKAGED), its]) == its


def test_folders_are_compared_where_their_links_lead() -> None:
    linked = locate({"NETCLAW_HOME": "/link"}, 1000)
    its = owner(replace(OWN, environment=(("NETCLAW_HOME", "/srv/n"),)))
    assert choose_owner(linked, [its]) is None
    assert choose_owner(linked, [its], lambda path: path.replace("/link", "/srv/n")) == its


def test_what_json_shows_of_a_unit_names_it_and_its_state() -> None:
    shown = read_unit(UNIT_NAME, Scope.SYSTEM, FAILED).as_dict()
    assert shown["name"] == "netclawd.service"
    assert shown["scope"] == "system"
    assert (shown["active"], shown["result"], shown["exit_code"]) == ("failed", "exit-code", 78)
