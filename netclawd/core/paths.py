"""Where a daemon and its clients find their files.

Pure: the environment and the user come in as values. The order is that of an operator's intent:
what the supervisor hands over, then NETCLAW_HOME, then the system's folders for root and the service user,
then the XDG folders of anyone else.
"""

from __future__ import annotations

from collections.abc import Mapping

from netclawd.core.values import frozen
from netclawd.errors import ConfigMeaningError

#: Name of the user that the packaged unit runs as.
SERVICE_USER = "netclaw"
SYSTEM_CONFIG = "/etc/netclaw/netclaw.toml"
SYSTEM_STATE = "/var/lib/netclaw"
SYSTEM_RUNTIME = "/run/netclaw"
#: Name of the configuration file in its folder.
CONFIG_NAME = "netclaw.toml"
#: What a supervisor gives a service, `NAME_DIRECTORY` (systemd.exec(5)); our image sets all three.
_GIVEN = ("CONFIGURATION", "STATE", "RUNTIME")
#: The longest runtime folder, bytes: a Unix socket's path has at most 107 (unix(7)).
RUNTIME_BYTES = 107 - len("/control.sock")


@frozen
class Paths:
    """Absolute paths; none of them need exist."""

    #: What a person calls this daemon's home: NETCLAW_HOME, else its state folder.
    home: str
    #: The configuration file.
    config: str
    #: What must survive a reboot: store, manifest, logs.
    state: str
    #: What need not: sockets, lock, pid file.
    runtime: str
    #: Whether NETCLAW_HOME chose this home.
    chosen: bool = False


def locate(environ: Mapping[str, str], uid: int, *, user: str = "", user_home: str = "") -> Paths:
    """Find the paths of this user.

    ``user`` and ``user_home`` are name and home folder from the user database (HOME wins over the
    latter). ConfigMeaningError when a folder is relative, there is none, or the runtime folder's
    path is too long for a socket.
    """
    home = _folder(environ, "NETCLAW_HOME")
    given = tuple(_first(environ, f"{name}_DIRECTORY") for name in _GIVEN)
    if all(given):  # A user without a home folder needs none then.
        config, state, runtime = "", "", ""
    elif home is not None:
        config, state, runtime = (_under(home, name) for name in (CONFIG_NAME, "state", "run"))
    elif uid == 0 or user == SERVICE_USER:
        config, state, runtime = SYSTEM_CONFIG, SYSTEM_STATE, SYSTEM_RUNTIME
    else:
        config, state, runtime = _xdg(environ, user_home)
    config = _under(given[0], CONFIG_NAME) if given[0] else config
    state, runtime = given[1] or state, given[2] or runtime
    _check_length(runtime)
    return Paths(home or state, config, state, runtime, chosen=home is not None)


def client_folders(paths: Paths, session: str = "") -> tuple[str, ...]:
    """Return the runtime folders in which a client looks for a daemon, in order.

    ``session`` is the folder that systemd keeps for this user (/run/user/UID), where a user unit's daemon
    lives also for a client that was not told of it (su, cron). A home that was chosen by NETCLAW_HOME is
    the only one: a client that was pointed at a stopped daemon must not reach (and stop) another.
    """
    if paths.chosen or paths.runtime == SYSTEM_RUNTIME:
        return (paths.runtime,)
    own = (paths.runtime, _under(session, "netclaw")) if session else (paths.runtime,)
    return tuple(dict.fromkeys((*own, SYSTEM_RUNTIME)))


def _xdg(environ: Mapping[str, str], user_home: str) -> tuple[str, str, str]:
    """XDG Base Directory Specification 0.8: a relative path is invalid and ignored."""

    def base(variable: str, fallback: str) -> str:
        value = environ.get(variable, "")
        return value if value.startswith("/") else _under(_home(environ, user_home), fallback)

    state = _under(base("XDG_STATE_HOME", ".local/state"), "netclaw")
    volatile = environ.get("XDG_RUNTIME_DIR", "")
    return (
        _under(base("XDG_CONFIG_HOME", ".config"), f"netclaw/{CONFIG_NAME}"),
        state,
        _under(volatile, "netclaw") if volatile.startswith("/") else _under(state, "run"),
    )


def _check_length(runtime: str) -> None:
    size = len(runtime.encode(errors="surrogateescape"))
    if size > RUNTIME_BYTES:
        raise ConfigMeaningError(
            f"The path of the runtime folder, {runtime}, has {size} bytes; the control socket in it "
            f"allows {RUNTIME_BYTES}.",
            "Set NETCLAW_HOME to a shorter path.",
        )


def _home(environ: Mapping[str, str], user_home: str) -> str:
    home = _folder(environ, "HOME") or user_home
    if not home:
        raise ConfigMeaningError(
            "This user has no home folder.", "Set NETCLAW_HOME to a folder of your choice."
        )
    return home


def _folder(environ: Mapping[str, str], name: str) -> str | None:
    """Return the folder that a variable names, None when it is unset or empty."""
    value = environ.get(name, "")
    if value and not value.startswith("/"):
        raise ConfigMeaningError(
            f"{name} is {value!r}, which is not an absolute path.", f"Write {name}=/the/whole/path."
        )
    return _plain(value) or None


def _first(environ: Mapping[str, str], name: str) -> str:
    """Return the first folder of a list that systemd sets (systemd.exec(5))."""
    return _plain(environ.get(name, "").split(":")[0])


def _under(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _plain(folder: str) -> str:
    """Take off slashes at the end, so that equal folders are equal texts."""
    return folder.rstrip("/") or folder[:1]
