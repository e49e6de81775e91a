"""Who owns the lifecycle of a home: what systemd says of its units, and which of them is meant.

Pure. A unit owns a home when the state folder that it gives its daemon is the home's. It follows from
what the unit sets, in the order in which the daemon itself looks (core/paths.py). Invariant: a home
that was chosen by NETCLAW_HOME is never taken for another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from netclawd.core.paths import SERVICE_USER, Paths, locate
from netclawd.core.values import frozen
from netclawd.errors import ConfigMeaningError

UNIT_NAME = "netclawd.service"
#: What is asked of systemd; the names are those of `systemctl show`.
PROPERTIES = (
    "LoadState",
    "UnitFileState",
    "FragmentPath",
    "ActiveState",
    "SubState",
    "MainPID",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "StatusText",
    "NRestarts",
    "InvocationID",
    "NeedDaemonReload",
    "User",
    "Environment",
    "StateDirectory",
    "RuntimeDirectory",
)
_SHOWN = (
    "name",
    "scope",
    "load",
    "enabled",
    "active",
    "sub",
    "main_pid",
    "result",
    "exit_code",
    "status_text",
    "restarts",
)
#: Folders of packages: a user unit that lies there and was never used is an offer, not a choice.
PACKAGED = ("/usr/", "/lib/")
#: The first systemd whose user units have StateDirectory= under the state folder (systemd.exec(5)).
STATE_HOME_SINCE = 254
#: ExecMainCode= of a process that ended by itself (CLD_EXITED, waitid(2)).
_EXITED = "1"


class Scope(StrEnum):
    """Whose systemd runs a unit."""

    SYSTEM = "system"
    USER = "user"


@frozen
class Unit:
    """A unit as systemd sees it at one moment; texts are systemd's words."""

    name: str
    scope: Scope
    #: loaded, not-found, masked, bad-setting, error.
    load: str = "not-found"
    #: enabled, disabled, static, masked, …; empty when unknown.
    enabled: str = ""
    fragment: str = ""
    #: active, reloading, inactive, failed, activating, deactivating.
    active: str = "inactive"
    sub: str = "dead"
    #: 0 without a process.
    main_pid: int = 0
    #: success, exit-code, signal, timeout, watchdog, start-limit-hit, …
    result: str = "success"
    #: Exit code of the last process; None while one runs, when a signal ended it, or there was none.
    exit_code: int | None = None
    status_text: str = ""
    #: Restarts by systemd since it was last started.
    restarts: int = 0
    #: The last start; empty when there was none.
    invocation: str = ""
    #: The file has changed since systemd read it.
    stale: bool = False
    user: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    state_directory: str = ""
    runtime_directory: str = ""

    @property
    def label(self) -> str:
        """The unit in words: ``netclawd.service (system)``."""
        return f"{self.name} ({self.scope})"

    @property
    def exists(self) -> bool:
        """Whether there is such a unit, usable or not."""
        return self.load != "not-found"

    @property
    def runs(self) -> bool:
        """Whether its daemon serves."""
        return self.active in ("active", "reloading")

    @property
    def rests(self) -> bool:
        """Whether systemd has nothing to do for it: neither a process nor a restart to come."""
        return self.active in ("inactive", "failed")

    @property
    def masked(self) -> bool:
        return self.load == "masked"

    @property
    def broken(self) -> bool:
        """Whether systemd can't use what its file says."""
        return self.load not in ("loaded", "not-found", "masked")

    @property
    def chosen(self) -> bool:
        """Whether somebody wants it: a user unit that a package offers and nobody uses is no choice."""
        used = self.enabled.startswith(("enabled", "linked", "masked")) or self.active != "inactive"
        offered = self.scope == Scope.USER and self.fragment.startswith(PACKAGED)
        return self.exists and (used or not offered)

    def as_dict(self) -> dict[str, object]:
        """Return what ``--json`` shows of it."""
        return {key: getattr(self, key) for key in _SHOWN}


@frozen
class Account:
    """A user that a unit runs as."""

    uid: int
    name: str
    home: str


@frozen
class Surroundings:
    """What the systemd that runs a unit adds to what the unit says."""

    #: Version of systemd.
    version: int = STATE_HOME_SINCE
    environment: tuple[tuple[str, str], ...] = ()


@frozen
class Owner:
    """The supervisor that owns a home's lifecycle: today a unit of systemd."""

    unit: Unit
    #: Where its daemon has its files.
    paths: Paths
    #: It is the system's, taken because this user has none.
    borrowed: bool = False

    @property
    def label(self) -> str:
        return self.unit.label


# -- reading what systemctl says -----------------------------------------------------------------


def read_unit(name: str, scope: Scope, text: str) -> Unit:
    """Read the answer of `systemctl show` for :data:`PROPERTIES`; what is missing has its default."""
    values = read_properties(text)

    def number(key: str) -> int:
        value = values.get(key, "")
        return int(value) if value.isdecimal() else 0

    ended = values.get("ExecMainCode") == _EXITED
    return Unit(
        name,
        scope,
        load=values.get("LoadState") or "not-found",
        enabled=values.get("UnitFileState", ""),
        fragment=values.get("FragmentPath", ""),
        active=values.get("ActiveState") or "inactive",
        sub=values.get("SubState") or "dead",
        main_pid=number("MainPID"),
        result=values.get("Result") or "success",
        exit_code=number("ExecMainStatus") if ended else None,
        status_text=values.get("StatusText", ""),
        restarts=number("NRestarts"),
        invocation=values.get("InvocationID", ""),
        stale=values.get("NeedDaemonReload") == "yes",
        user=values.get("User", ""),
        environment=read_environment(values.get("Environment", "")),
        state_directory=_first_word(values.get("StateDirectory", "")),
        runtime_directory=_first_word(values.get("RuntimeDirectory", "")),
    )


def read_surroundings(text: str) -> Surroundings:
    """Read the answer of `systemctl show` for a systemd's own Version and Environment."""
    values = read_properties(text)
    version = re.match(r"\d+", values.get("Version", ""))
    environment = read_environment(values.get("Environment", ""))
    return Surroundings(int(version[0]) if version else STATE_HOME_SINCE, environment)


def read_properties(text: str) -> dict[str, str]:
    """Read lines ``NAME=value``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in pairs if equals}


def read_environment(text: str) -> tuple[tuple[str, str], ...]:
    """Read assignments as `systemctl show` writes them: in double quotes where they need it."""
    words = re.findall(r"\"((?:[^\"\\]|\\.)*)\"|(\S+)", text)
    plain = (re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in words)
    pairs = (word.partition("=") for word in plain)
    return tuple((name, value) for name, equals, value in pairs if equals)


def _first_word(text: str) -> str:
    return text.split()[0].split(":")[0] if text.split() else ""


# -- judging -------------------------------------------------------------------------------------


def locate_unit(unit: Unit, account: Account, around: Surroundings) -> Paths | None:
    """Find the paths of a unit's daemon; None when it could not start with what the unit says.

    A unit that systemd could not read (masked, broken) says nothing: it counts as the packaged one.
    """
    environ = {**dict(around.environment), **dict(unit.environment)}
    if unit.state_directory:
        environ["STATE_DIRECTORY"] = _state_directory(unit, account, around, environ)
    if unit.runtime_directory:
        base = "/run" if unit.scope == Scope.SYSTEM else environ.get("XDG_RUNTIME_DIR", "")
        environ["RUNTIME_DIRECTORY"] = f"{base}/{unit.runtime_directory}"
    try:
        return locate(environ, account.uid, user=account.name, user_home=account.home)
    except ConfigMeaningError:
        return None


def _state_directory(
    unit: Unit, account: Account, around: Surroundings, environ: Mapping[str, str]
) -> str:
    """Resolve StateDirectory= (systemd.exec(5)); it moved in user units with 254."""
    if unit.scope == Scope.SYSTEM:
        return f"/var/lib/{unit.state_directory}"
    home = environ.get("HOME") or account.home
    if around.version >= STATE_HOME_SINCE:
        return f"{environ.get('XDG_STATE_HOME') or f'{home}/.local/state'}/{unit.state_directory}"
    return f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/{unit.state_directory}"


def account_name(unit: Unit) -> str:
    """Return the user that a system unit runs as; a unit that says nothing is the packaged one."""
    return unit.user or ("root" if unit.load == "loaded" else SERVICE_USER)


def choose_owner(
    home: Paths, owners: Sequence[Owner], resolve: Callable[[str], str] = str
) -> Owner | None:
    """Choose the unit that owns this home; None when it has none.

    ``owners`` come in the order of preference. ``resolve`` makes paths of one folder equal texts. A
    user without a unit whose home nobody chose gets the system's, as ``borrowed``.
    """
    state = resolve(home.state)
    found = [owner for owner in owners if owner.unit.chosen]
    for owner in found:
        if resolve(owner.paths.state) == state:
            return owner
    if home.chosen:
        return None
    system = [owner for owner in found if owner.unit.scope == Scope.SYSTEM]
    return Owner(system[0].unit, system[0].paths, borrowed=True) if system else None
