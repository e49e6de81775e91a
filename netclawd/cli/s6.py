"""Asks s6 about the service of a container, and tells it what to do: nothing else calls s6's programs.

Every call has a deadline. Only the user of the supervision tree may look at a service or control it: s6 keeps
the folder `supervise` from everybody else. What is in the way is said with what to do about it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess

from netclawd.cli import child
from netclawd.cli.wait import WAITING
from netclawd.core.backoff import read_uptime, read_waiting
from netclawd.core.container import CONTAINER_LOG, Container
from netclawd.core.s6 import (
    FIELDS,
    Command,
    Service,
    read_last_death,
    read_service,
    with_wait,
)
from netclawd.core.values import replace
from netclawd.errors import SupervisorError

#: A call of s6, seconds; each only reads a file or writes a byte into a FIFO.
ANSWER_S = 5.0
#: Where s6's programs lie if not on PATH: s6-overlay, Debian, and s6-overlay again.
PLACES = "/command:/usr/bin:/bin:/run/s6/basedir/bin"


def look(container: Container) -> Service:
    """Ask s6 how the service is now; SupervisorError when it can't be asked, with the reason."""
    _refuse_unusable(container)
    answer = _run("s6-svstat", "-o", ",".join(FIELDS), container.service)
    if answer.returncode == 1:
        raise _unsupervised(container)
    service = read_service(answer.stdout) if answer.returncode == 0 else None
    if service is None:
        raise _failed("s6-svstat", answer)
    code, number = read_last_death(_run("s6-svdt", "-s", "-n", "1", container.service).stdout)
    service = replace(service, exit_code=code, signal=number)
    return _with_wait(container, service) if service.up and not service.ready else service


def ask(container: Container, command: Command) -> None:
    """Tell s6-supervise what to do; it does it later. SupervisorError when it can't be told."""
    answer = _run("s6-svc", command.value, container.service)
    if answer.returncode != 0:
        raise _failed("s6-svc", answer)


def down_command(container: Container) -> str:
    """Return what a person types to bring it down; a shell may lack the overlay's programs on its PATH."""
    name = "s6-svc"
    found = name if shutil.which(name) else shutil.which(name, path=PLACES)
    return f"{found or name} -d {container.service}"


def _with_wait(container: Container, service: Service) -> Service:
    paths = (
        os.path.join(container.service, WAITING),
        f"/proc/{service.pid}/cmdline",
        "/proc/uptime",
    )
    try:
        record, argv, uptime = map(_content, paths)
    except OSError:  # it does not wait, or has ended
        return service
    return with_wait(service, argv.split("\0"), read_waiting(record), read_uptime(uptime))


def _content(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


# -- what may be in the way ----------------------------------------------------------------------


def _refuse_unusable(container: Container) -> None:
    supervise = os.path.join(container.service, "supervise")
    if not os.path.isdir(container.service):
        raise SupervisorError(
            f"There is no service folder {container.service} in which s6 could be asked.",
            f"{CONTAINER_LOG} Another folder is named by NETCLAW_S6_SERVICE.",
        )
    try:
        owner = os.stat(supervise).st_uid
    except FileNotFoundError:
        raise _unsupervised(container) from None
    except OSError as error:
        raise SupervisorError(
            f"{supervise} can't be looked at: {error.strerror or error}.", CONTAINER_LOG
        ) from error
    if not os.access(supervise, os.W_OK | os.X_OK):
        raise SupervisorError(
            f"s6 lets only the user of its supervision tree, {_name(owner)}, ask about the service in "
            f"{container.service}.",
            f"Do it as {_name(owner)}, such as by `podman exec --user {_name(owner)}`.",
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _unsupervised(container: Container) -> SupervisorError:
    return SupervisorError(
        f"No s6-supervise watches the service folder {container.service}.",
        f"Start its s6-svscan, or the container, again. {CONTAINER_LOG}",
    )


# -- calling s6's programs -----------------------------------------------------------------------


def _run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name) or shutil.which(name, path=PLACES)
    if program is None:
        raise SupervisorError(
            f"{name} is not found on PATH or in {PLACES.replace(':', ', ')}.",
            "Put s6's programs on PATH (on Debian: `apt install s6`).",
        )
    try:
        return child.ask([program, *words], ANSWER_S)
    except subprocess.TimeoutExpired:
        raise SupervisorError(
            f"`{name} {' '.join(words)}` has not ended within {ANSWER_S:g} s.", CONTAINER_LOG
        ) from None
    except OSError as error:
        raise SupervisorError(
            f"{program} can't be run: {error.strerror or error}.", "Install s6 anew."
        ) from error


def _failed(name: str, answer: subprocess.CompletedProcess[str]) -> SupervisorError:
    words = " ".join((answer.stderr or answer.stdout).split()).rstrip(".")
    return SupervisorError(
        f"{name} failed: {words or f'exit code {answer.returncode}'}.", CONTAINER_LOG
    )
