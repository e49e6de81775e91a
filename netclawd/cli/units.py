"""Finds who owns the lifecycle of a home, and asks systemd: nothing else calls systemctl or journalctl.

The marker of a container says that its supervisor owns every home there. Where no systemd runs
(sd_booted(3)) nobody owns a home; a user without a systemd of their own has no user unit. Every call
has a deadline, and what systemctl says on standard error is in the error.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence

from netclawd.cli import child
from netclawd.core.container import Container, read_marker
from netclawd.core.paths import SERVICE_USER, Paths
from netclawd.core.units import (
    PROPERTIES,
    UNIT_NAME,
    Account,
    Owner,
    Scope,
    Surroundings,
    Unit,
    account_name,
    choose_owner,
    locate_unit,
    read_surroundings,
    read_unit,
)
from netclawd.core.values import frozen
from netclawd.errors import SupervisorError

#: There is such a folder where systemd is the init (sd_booted(3)).
BOOTED = "/run/systemd/system"
#: A question to systemd, seconds.
ANSWER_S = 15.0
#: Seconds between two looks at a call that waits.
LOOK_S = 0.1
#: How systemctl words what this user may not do; it has no exit code of its own for that.
_DENIED = ("authentication required", "access denied", "permission denied", "not authorized")


#: The supervisor of a container, a unit of systemd, or nobody.
Ownership = Container | Owner | None


@frozen
class Answer:
    """What systemctl said."""

    code: int
    stdout: str
    stderr: str


def find_owner(home: Paths) -> Ownership:
    """Return who owns the lifecycle of this home; None when whoever starts a daemon owns it.

    The one place that decides. SupervisorError when systemd runs and can't be asked.
    """
    container = find_container()
    if container is not None:
        return container
    if not os.path.isdir(BOOTED) or _program("systemctl") is None:
        return None
    owners = [owner for scope in Scope if (owner := owner_in(scope)) is not None]
    return choose_owner(home, owners, resolve=os.path.realpath)


def find_container() -> Container | None:
    """Return the container's supervisor, which owns every home; None outside of one."""
    return read_marker(os.environ)


def owner_in(scope: Scope) -> Owner | None:
    """Return the unit of the system, or that of this user, with its paths; None when there is none."""
    if scope == Scope.USER and not has_user_systemd():
        return None
    unit = look(UNIT_NAME, scope)
    account = _account(unit)
    if not unit.exists or account is None:
        return None
    paths = locate_unit(unit, account, _surroundings(scope))
    return None if paths is None else Owner(unit, paths)


def has_user_systemd() -> bool:
    """Whether a systemd of this user runs; what XDG_RUNTIME_DIR says may be another's (sudo -E)."""
    return os.path.exists(f"/run/user/{os.getuid()}/systemd/private")


def _surroundings(scope: Scope) -> Surroundings:
    """Return what this systemd gives every unit; the system's gives nothing that we read."""
    if scope == Scope.SYSTEM:
        return Surroundings()
    return read_surroundings(_ask(scope, "show", "--property=Version,Environment").stdout)


def _account(unit: Unit) -> Account | None:
    name = account_name(unit)
    try:
        if unit.scope == Scope.USER:
            entry = pwd.getpwuid(os.getuid())
        elif name == SERVICE_USER:  # its folders do not depend on the user database
            return Account(-1, name, "")
        else:
            entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_name, entry.pw_dir)


def look(name: str, scope: Scope) -> Unit:
    """Ask systemd how a unit is now."""
    answer = _ask(scope, "show", f"--property={','.join(PROPERTIES)}", name)
    return read_unit(name, scope, answer.stdout)


def look_again(owner: Owner) -> Unit:
    """Ask systemd how the unit of an owner is now."""
    return look(owner.unit.name, owner.unit.scope)


# -- calling systemctl ---------------------------------------------------------------------------


def arguments(scope: Scope, *words: str) -> list[str]:
    """Build a call of systemctl."""
    user = ["--user"] if scope == Scope.USER else []
    return [_program("systemctl") or "systemctl", *user, "--no-pager", *words]


def journal_arguments(unit: Unit, *words: str) -> list[str]:
    """Build a call of journalctl that shows what a unit has written."""
    option = "--user-unit" if unit.scope == Scope.USER else "--unit"
    return [_program("journalctl") or "journalctl", f"{option}={unit.name}", *words]


def call(
    scope: Scope,
    *words: str,
    timeout_s: float,
    while_waiting: Callable[[], None] = lambda: None,
) -> Answer:
    """Let systemctl act and wait for it; ``while_waiting`` is called again and again meanwhile.

    SupervisorError when it takes longer than ``timeout_s`` or polkit does not allow it. Standard input
    stays what it is: polkit may ask for a password on a terminal.
    """
    command = arguments(scope, *words)
    deadline = time.monotonic() + timeout_s
    with _begin(command) as process:
        while True:
            try:
                stdout, stderr = process.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    process.kill()
                    raise _too_slow(command, timeout_s) from None
                while_waiting()
    answer = Answer(process.returncode, stdout, stderr.strip())
    if answer.code != 0 and scope == Scope.SYSTEM and is_denied(answer.stderr):
        reason = one_line(answer.stderr.splitlines()[0])
        raise SupervisorError(
            f"systemd does not let this user {words[0]} {words[-1]}: {reason}.",
            "Do it as root, with sudo.",
        )
    return answer


def _begin(command: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            env=user_environ(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise _not_run(command, error) from error


def is_denied(stderr: str) -> bool:
    """Whether systemctl says that polkit does not allow this."""
    return any(words in stderr.lower() for words in _DENIED)


def last_lines(unit: Unit, count: int) -> list[str]:
    """Return the last lines of the journal of a unit's last start, as far as this user may read them."""
    if not unit.invocation:
        return []
    which = f"_SYSTEMD_INVOCATION_ID={unit.invocation}"
    wanted = (f"--lines={count}", "--output=cat", "--quiet", "--no-pager", which)
    try:
        done = _run(journal_arguments(unit, *wanted))
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _ask(scope: Scope, *words: str) -> Answer:
    command = arguments(scope, *words)
    try:
        done = _run(command)
    except subprocess.TimeoutExpired:
        raise _too_slow(command, ANSWER_S) from None
    except OSError as error:
        raise _not_run(command, error) from error
    if done.returncode != 0:
        raise failed(command, done.stderr)
    return Answer(done.returncode, done.stdout, done.stderr.strip())


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return child.ask(command, ANSWER_S, user_environ(os.environ))


def failed(command: Sequence[str], stderr: str) -> SupervisorError:
    """Return the error for a call of systemctl that failed, with its own words."""
    words = one_line(stderr) or "it gave no reason"
    return SupervisorError(
        f"`{shown(command)}` failed: {words}.", "See `systemctl status` and mend that first."
    )


def _not_run(command: Sequence[str], error: OSError) -> SupervisorError:
    return SupervisorError(
        f"{command[0]} can't be run: {error.strerror or error}.",
        "Mend it: systemd runs here, and may own the daemon's lifecycle.",
    )


def _too_slow(command: Sequence[str], timeout_s: float) -> SupervisorError:
    return SupervisorError(
        f"`{shown(command)}` has not ended within {timeout_s:g} s.",
        "See `systemctl list-jobs` and `systemctl status netclawd`; what was asked goes on.",
    )


def shown(command: Sequence[str]) -> str:
    """Write a call as a person would."""
    return " ".join(word for word in ("systemctl", *command[1:]) if word != "--no-pager")


def one_line(text: str) -> str:
    """Put the lines of an answer on one, without a full stop at the end."""
    return " ".join(text.split()).rstrip(".")


def user_environ(environ: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Return an environment in which `systemctl --user` finds this user's systemd; messages in English.

    After su(1) XDG_RUNTIME_DIR is missing, or another user's; systemd's place for it is fixed
    (pam_systemd(8)).
    """
    folder = f"/run/user/{os.getuid()}"
    found = {"XDG_RUNTIME_DIR": folder} if os.path.isdir(folder) else {}
    return {**environ, **found, "LC_ALL": "C.UTF-8"}


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/bin:/bin")
