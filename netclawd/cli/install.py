"""``netclaw daemon install --user`` and ``uninstall``: the unit file of one user, and nothing else.

Invariant: only a file that core/user_unit.py calls ours is replaced or removed; data is never touched.
Both may be run again at any time, after any interruption.
"""

from __future__ import annotations

import os
import pwd
import sys
import sysconfig
from collections.abc import Iterator

import click

import netclawd
from netclawd.cli import supervised
from netclawd.cli.output import json_option, note, say_json
from netclawd.cli.reach import answers_for, own_paths
from netclawd.cli.units import (
    ANSWER_S,
    BOOTED,
    arguments,
    call,
    failed,
    find_container,
    find_owner,
    has_user_systemd,
    look,
    owner_in,
)
from netclawd.core.container import MARKER
from netclawd.core.paths import Paths
from netclawd.core.units import UNIT_NAME, Owner, Scope
from netclawd.core.user_unit import Found, Installation, judge_found, render
from netclawd.daemon.durable import replace_file
from netclawd.errors import ConflictError, SupervisorError

#: The packaged unit: units/user/netclawd.service, which the wheel has under this name.
TEMPLATE = os.path.join(os.path.dirname(netclawd.__file__), "user.service")
#: Users whose systemd runs from boot on, whether they are logged in or not (logind.conf(5)).
LINGERING = "/var/lib/systemd/linger"


@click.command()
@json_option
@click.option("--user", is_flag=True, help="For this user, without root.")
@click.pass_context
def install(ctx: click.Context, as_json: bool, user: bool) -> None:
    """Give this user's daemon to systemd: write its user unit, enable it and start it.

    NETCLAW_HOME is written into it when it is set. A unit file that somebody else wrote or changed is
    left alone.
    """
    if not user:
        raise click.UsageError(
            "Say --user: the system's unit comes with the Debian package, "
            "`apt install ./netclawd_*.deb`."
        )
    _refuse_in_a_container()
    _refuse_without_systemd()
    paths, path = own_paths(), unit_path()
    _refuse_taken(paths)
    wanted = render(_template(), installation(paths))
    found = judge_found(_read(path), wanted)
    _refuse_foreign(path, found)
    if found != Found.SAME:
        _write(path, wanted)
    _systemctl("daemon-reload")
    _systemctl("enable", UNIT_NAME)
    owner = _installed(path, paths)
    if not as_json:
        click.echo(
            f"{path} {'is as it was' if found == Found.SAME else 'is written'}, and enabled."
        )
    _warn(owner, changed=found == Found.OURS)
    ctx.exit(supervised.start(owner, as_json=as_json))


@click.command()
@json_option
@click.pass_context
def uninstall(ctx: click.Context, as_json: bool) -> None:
    """Stop this user's daemon with a drain, disable its user unit and remove the file; never data."""
    _refuse_in_a_container()
    path = unit_path()
    content = _read(path)
    if content is None:
        if as_json:
            say_json({"removed": False, "path": path})
        else:
            click.echo(f"There is no {path}: nothing to uninstall.")
        return
    _refuse_without_systemd()
    _refuse_foreign(path, judge_found(content, render(_template(), installation(own_paths()))))
    _systemctl("daemon-reload")
    owner, ended = owner_in(Scope.USER), None
    if owner is not None and owner.unit.fragment == path:
        ended = supervised.end(owner, quiet=as_json)
    _systemctl("disable", UNIT_NAME)
    os.unlink(path)
    _systemctl("daemon-reload")
    clean = ended is None or ended.clean
    if as_json:
        say_json({"removed": True, "path": path, "stopped": ended is not None, "clean": clean})
    else:
        first = "The daemon is stopped. " if ended is not None else ""
        click.echo(
            f"{first}{path} is removed. Configuration, sessions and logs stay where they are."
        )
    if not clean:
        note("the daemon did not end cleanly; the next start finds out what it did.")
        ctx.exit(1)


# -- the file ------------------------------------------------------------------------------------


def unit_path() -> str:
    """Return where this user's own unit belongs (systemd.unit(5))."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "systemd", "user", UNIT_NAME)


def installation(paths: Paths) -> Installation:
    """Find the two programs of the installation that runs, and the home if one was chosen."""
    for folder in _program_folders():
        netclawd_path, netclaw_path = (os.path.join(folder, n) for n in ("netclawd", "netclaw"))
        if os.access(netclawd_path, os.X_OK) and os.access(netclaw_path, os.X_OK):
            return Installation(netclawd_path, netclaw_path, paths.home if paths.chosen else None)
    raise SupervisorError(
        f"The programs netclawd and netclaw of this installation ({sys.prefix}) are not found.",
        "Install it with pip, pipx or apt, and call its own `netclaw`.",
    )


def _program_folders() -> Iterator[str]:
    called = os.path.abspath(sys.argv[0])
    if os.path.basename(called) == "netclaw":
        yield os.path.dirname(called)
    yield os.path.dirname(os.path.abspath(sys.executable))
    yield sysconfig.get_path("scripts")


def _template() -> str:
    with open(TEMPLATE, encoding="utf-8") as file:
        return file.read()


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error


def _write(path: str, content: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_file(path, content.encode(errors="surrogateescape"), 0o644)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: OSError) -> SupervisorError:
    return SupervisorError(
        f"{path} can't be used: {error.strerror or error}.",
        "Make it readable and writable for you.",
    )


# -- refusals and warnings -----------------------------------------------------------------------


def _refuse_in_a_container() -> None:
    container = find_container()
    if container is not None:
        raise ConflictError(
            f"Here {container.label} ({container.supervisor}) starts the daemon; a unit of systemd would "
            "be a second owner.",
            f"Use `netclaw daemon start` and `stop`; where that is not so, unset {MARKER}.",
        )


def _refuse_without_systemd() -> None:
    if not os.path.isdir(BOOTED):
        raise SupervisorError(
            "No systemd runs here.",
            "Start the daemon with `netclaw daemon start`, or let your supervisor run `netclawd`.",
        )
    if not has_user_systemd():
        raise SupervisorError(
            f"This user has no systemd: there is no /run/user/{os.getuid()}/systemd.",
            "Log in instead of su(1) or sudo(8), or let it run always: `sudo loginctl enable-linger "
            f"{_user_name()}`.",
        )


def _refuse_taken(paths: Paths) -> None:
    """Refuse a home that another owner has, or a daemon that runs without one."""
    owner = find_owner(paths)
    if isinstance(owner, Owner) and owner.unit.scope == Scope.SYSTEM and not owner.borrowed:
        raise ConflictError(
            f"{paths.home} is the home of {owner.label} already.",
            "Set NETCLAW_HOME to another folder, or do this as another user.",
        )
    own = owner_in(Scope.USER)
    unit = look(UNIT_NAME, Scope.USER) if own is None else own.unit
    supervised.refuse_masked(unit)
    if own is not None and unit.chosen and not _is_home(own, paths):
        raise ConflictError(
            f"{own.label} runs the daemon of {own.paths.home}, and a user has one such unit.",
            "Take it away first (`netclaw daemon uninstall`), or set NETCLAW_HOME to that home.",
        )
    if not unit.runs and answers_for(paths):
        raise ConflictError(
            f"A daemon of {paths.home} runs already, without systemd.",
            "Stop it first, its turns go on later: `netclaw daemon stop`.",
        )


def _is_home(owner: Owner, paths: Paths) -> bool:
    return os.path.realpath(owner.paths.state) == os.path.realpath(paths.state)


def _refuse_foreign(path: str, found: Found) -> None:
    if found == Found.FOREIGN:
        raise ConflictError(
            f"{path} was not written by `netclaw daemon install --user`; it is left alone.",
            "Move it away and do this again, or go on using it as it is.",
        )
    if found == Found.CHANGED:
        raise ConflictError(
            f"{path} was changed since it was written; it is left alone.",
            f"Put the changes into a drop-in (`systemctl --user edit {UNIT_NAME}`), remove the file and "
            "do this again.",
        )


def _installed(path: str, paths: Paths) -> Owner:
    """Return the unit as it is now; SupervisorError when it is not what was written for this home."""
    owner = owner_in(Scope.USER)
    if owner is None or not _is_home(owner, paths) or owner.unit.fragment != path:
        raise SupervisorError(
            f"{path} is written and enabled, but its daemon would not have the home {paths.home}.",
            f"See why, and start it then: `systemctl --user cat {UNIT_NAME}`, "
            "`systemctl --user show-environment`.",
        )
    return owner


def _warn(owner: Owner, *, changed: bool) -> None:
    if changed and owner.unit.runs:
        note("the unit has changed; `netclaw daemon stop`, then `start`, puts it into force.")
    if not os.path.exists(os.path.join(LINGERING, _user_name())):
        note(
            "the daemon ends with your last session and does not start at boot; "
            "`loginctl enable-linger` lets it run always."
        )


def _user_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _systemctl(*words: str) -> None:
    answer = call(Scope.USER, *words, timeout_s=ANSWER_S)
    if answer.code != 0:
        raise failed(arguments(Scope.USER, *words), answer.stderr)
