"""Where files are, for every sort of caller."""

from __future__ import annotations

import pytest

from netclawd.core.paths import RUNTIME_BYTES, Paths, client_folders, locate
from netclawd.errors import ConfigMeaningError

USER = {"HOME": "/home/ada"}
ADA = ("/home/ada/.local/state/netclaw", "/home/ada/.config/netclaw/netclaw.toml")
SYSTEM = ("/etc/netclaw/netclaw.toml", "/var/lib/netclaw", "/run/netclaw")


@pytest.mark.parametrize(
    ("environ", "uid", "user", "expected"),
    [
        pytest.param({}, 0, "root", SYSTEM, id="root"),
        pytest.param({"HOME": "/root"}, 0, "root", SYSTEM, id="root with a home"),
        pytest.param({}, 990, "netclaw", SYSTEM, id="the service user"),
        pytest.param(
            {"STATE_DIRECTORY": "/var/lib/netclaw", "RUNTIME_DIRECTORY": "/run/netclaw"},
            990,
            "netclaw",
            SYSTEM,
            id="the unit",
        ),
        pytest.param(
            {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a:/run/b"},
            0,
            "root",
            ("/etc/netclaw/netclaw.toml", "/var/lib/a", "/run/a"),
            id="systemd gives lists",
        ),
        pytest.param(
            {"CONFIGURATION_DIRECTORY": "/config/", "NETCLAW_HOME": "/srv/n"},
            0,
            "root",
            ("/config/netclaw.toml", "/srv/n/state", "/srv/n/run"),
            id="a folder of its own for the configuration",
        ),
        pytest.param(
            {
                "CONFIGURATION_DIRECTORY": "/etc/netclaw",
                "STATE_DIRECTORY": "/var/lib/netclaw",
                "RUNTIME_DIRECTORY": "/run/netclaw",
            },
            4711,
            "",
            SYSTEM,
            id="a container under a user that nobody wrote down",
        ),
        pytest.param(
            {**USER, "XDG_RUNTIME_DIR": "/run/user/1000"},
            1000,
            "ada",
            (ADA[1], ADA[0], "/run/user/1000/netclaw"),
            id="a user",
        ),
        pytest.param(
            USER, 1000, "ada", (ADA[1], ADA[0], f"{ADA[0]}/run"), id="a user without a session"
        ),
        pytest.param(
            {
                "HOME": "/home/ada",
                "XDG_CONFIG_HOME": "/c/",
                "XDG_STATE_HOME": "/s",
                "XDG_RUNTIME_DIR": "/r",
            },
            1000,
            "ada",
            ("/c/netclaw/netclaw.toml", "/s/netclaw", "/r/netclaw"),
            id="XDG folders",
        ),
        pytest.param(
            {"HOME": "/", "XDG_CONFIG_HOME": "relative", "XDG_RUNTIME_DIR": "run"},
            1000,
            "ada",
            (
                "/.config/netclaw/netclaw.toml",
                "/.local/state/netclaw",
                "/.local/state/netclaw/run",
            ),
            id="relative XDG folders are ignored",
        ),
        pytest.param(
            {**USER, "STATE_DIRECTORY": "/s", "RUNTIME_DIRECTORY": "/r"},
            1000,
            "ada",
            (ADA[1], "/s", "/r"),
            id="a unit of another user",
        ),
        pytest.param(
            {"NETCLAW_HOME": "/srv/n"},
            0,
            "root",
            ("/srv/n/netclaw.toml", "/srv/n/state", "/srv/n/run"),
            id="NETCLAW_HOME beats the system's folders",
        ),
        pytest.param(
            {"NETCLAW_HOME": "/srv/n//", **USER, "XDG_RUNTIME_DIR": "/r"},
            1000,
            "ada",
            ("/srv/n/netclaw.toml", "/srv/n/state", "/srv/n/run"),
            id="NETCLAW_HOME beats the XDG folders",
        ),
        pytest.param(
            {"NETCLAW_HOME": "/"},
            0,
            "root",
            ("/netclaw.toml", "/state", "/run"),
            id="NETCLAW_HOME is the root of a container",
        ),
        pytest.param(
            {"NETCLAW_HOME": "/srv/n", "STATE_DIRECTORY": "/s", "RUNTIME_DIRECTORY": "/r"},
            0,
            "root",
            ("/srv/n/netclaw.toml", "/s", "/r"),
            id="systemd beats NETCLAW_HOME",
        ),
        pytest.param({"NETCLAW_HOME": ""}, 0, "root", SYSTEM, id="an empty NETCLAW_HOME is none"),
    ],
)
def test_paths_are_found(
    environ: dict[str, str], uid: int, user: str, expected: tuple[str, str, str]
) -> None:
    paths = locate(environ, uid, user=user)
    assert (paths.config, paths.state, paths.runtime) == expected
    assert paths.home == (environ.get("NETCLAW_HOME", "").rstrip("/") or _home_of(environ, paths))


def _home_of(environ: dict[str, str], paths: Paths) -> str:
    return "/" if environ.get("NETCLAW_HOME") == "/" else paths.state


def test_the_user_database_stands_in_for_home() -> None:
    paths = locate({}, 1000, user="ada", user_home="/home/ada")
    assert (paths.state, paths.config) == ADA


def test_home_wins_over_the_user_database() -> None:
    assert locate(USER, 1000, user_home="/nonexistent").state == ADA[0]


@pytest.mark.parametrize("name", ["NETCLAW_HOME", "HOME"])
def test_a_relative_folder_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigMeaningError, match=rf"{name} is 'here', which is not an absolute"):
        locate({name: "here"}, 1000)


def test_a_runtime_folder_that_has_no_room_for_a_socket_is_refused() -> None:
    fits = "/" + "x" * (RUNTIME_BYTES - len("//run"))
    assert len(locate({"NETCLAW_HOME": fits}, 0).runtime) == RUNTIME_BYTES
    with pytest.raises(ConfigMeaningError, match=r"has 95 bytes; .* allows 94") as refused:
        locate({"NETCLAW_HOME": fits + "x"}, 0)
    assert refused.value.remedy == "Set NETCLAW_HOME to a shorter path."


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    with pytest.raises(ConfigMeaningError, match="Set NETCLAW_HOME"):
        locate({}, 1000, user="nobody")


@pytest.mark.parametrize(
    ("environ", "uid", "session", "folders"),
    [
        pytest.param(
            {**USER, "XDG_RUNTIME_DIR": "/r"}, 1000, "", ("/r/netclaw", "/run/netclaw"), id="a user"
        ),
        pytest.param(
            {**USER, "XDG_RUNTIME_DIR": "/run/user/1000"},
            1000,
            "/run/user/1000",
            ("/run/user/1000/netclaw", "/run/netclaw"),
            id="a user in a session",
        ),
        pytest.param(
            USER,
            1000,
            "/run/user/1000",
            (f"{ADA[0]}/run", "/run/user/1000/netclaw", "/run/netclaw"),
            id="a user whose session it was not told of",
        ),
        pytest.param({}, 0, "/run/user/0", ("/run/netclaw",), id="root"),
        pytest.param(
            {"NETCLAW_HOME": "/srv/n"},
            1000,
            "/run/user/1000",
            ("/srv/n/run",),
            id="a chosen home is alone",
        ),
    ],
)
def test_a_client_looks_in_its_own_folder_first(
    environ: dict[str, str], uid: int, session: str, folders: tuple[str, ...]
) -> None:
    assert client_folders(locate(environ, uid), session) == folders
