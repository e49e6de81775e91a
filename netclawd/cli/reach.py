"""Finds the daemon that a command is about: its control socket, and what it says of itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli.output import note
from netclawd.core.paths import SYSTEM_RUNTIME, Paths, client_folders, locate
from netclawd.core.values import frozen
from netclawd.errors import DrainingError, NoAnswerError, NotRunningError, StoreClosedError

if TYPE_CHECKING:
    from netclawd.adapters.store.sqlite import SqliteStore

T = TypeVar("T")

#: How long a restart may put off what is asked: its drain and a start, seconds.
RESTART_S = 90.0
#: An answer to who asks again and again, seconds: longer than the gap of a restart.
LOOK_ANSWER_S = 10.0


@frozen
class Daemon:
    """A daemon that has answered."""

    client: ControlClient
    #: The status document of that moment.
    status: dict[str, Any]

    @property
    def paths(self) -> Paths:
        """Its paths, as it says itself."""
        status = self.status
        return Paths(
            status["home"], status["config_path"], status["state_dir"], status["runtime_dir"]
        )


def call_patiently(client: ControlClient, do: str, **arguments: Any) -> Any:
    """Ask what a restart may put off: again while it is on, for a while."""
    deadline = time.monotonic() + RESTART_S
    while True:
        try:
            return client.call(do, **arguments)
        except (DrainingError, StoreClosedError) as error:
            pause_s = error.retry_after_s if isinstance(error, DrainingError) else 0.1
            if time.monotonic() + pause_s > deadline:
                raise
            time.sleep(pause_s)


def own_paths() -> Paths:
    """Return the paths of this user."""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:  # a container may run us under a user that nobody wrote down
        return locate(os.environ, os.getuid())
    return locate(os.environ, os.getuid(), user=entry.pw_name, user_home=entry.pw_dir)


def folders_of(paths: Paths) -> tuple[str, ...]:
    """Return the runtime folders in which a daemon is looked for."""
    session = f"/run/user/{os.getuid()}"
    return client_folders(paths, session if os.path.isdir(session) else "")


def reach(paths: Paths | None = None) -> Daemon:
    """Return the daemon that answers; NotRunningError when none does.

    Its connection is closed with the running command.
    """
    paths = paths or own_paths()
    folders = folders_of(paths)
    daemon, folder = _first(folders)
    if folder == SYSTEM_RUNTIME != folders[0]:
        note(f"this is the daemon of the system, at {folder}.")
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(daemon.client.close)
    return daemon


def reach_anew(paths: Paths, last: ControlClient | None) -> Daemon:
    """Look for the daemon again, wherever it answers by now, without a word; the last connection ends.

    For who asks again and again: one that has gone away meanwhile is not waited for, and one that does
    not answer not for long.
    """
    if last is not None:
        last.close()
    return _first(folders_of(paths), patience_s=0, answer_s=LOOK_ANSWER_S)[0]


def _first(folders: Sequence[str], **options: float) -> tuple[Daemon, str]:
    for folder in folders:
        client = ControlClient(os.path.join(folder, "control.sock"), **options)
        try:
            return Daemon(client, client.call("status")), folder
        except NotRunningError:
            continue
    raise NotRunningError(
        f"No daemon answers at {' or '.join(f'{folder}/control.sock' for folder in folders)}.",
        "Start one: `netclaw daemon start`.",
    )


def reach_or_none(paths: Paths) -> Daemon | None:
    """Return the daemon that answers, None without one."""
    try:
        return reach(paths)
    except NotRunningError:
        return None


@contextmanager
def reading(
    of_daemon: Callable[[ControlClient], T],
    of_store: Callable[[SqliteStore], T],
    *,
    else_: str = "",
) -> Iterator[T]:
    """Read from the daemon, or when none answers from the store of this user; ``else_`` is noted then."""
    paths = own_paths()
    daemon = reach_or_none(paths)
    if daemon is not None:
        with daemon.client:
            yield of_daemon(daemon.client)
        return
    from netclawd.cli.wiring import open_store_read_only

    store = open_store_read_only(paths)
    try:
        if else_:
            note(else_)
        yield of_store(store)
    finally:
        store.close()


def answers_for(paths: Paths) -> bool:
    """Whether this user has a daemon of their own that runs, if only one that does not answer in time."""
    for folder in folders_of(paths):
        if folder != SYSTEM_RUNTIME:
            with ControlClient(os.path.join(folder, "control.sock"), patience_s=0) as client:
                try:
                    client.call("status")
                except NotRunningError:
                    continue
                except NoAnswerError:
                    pass
                return True
    return False
