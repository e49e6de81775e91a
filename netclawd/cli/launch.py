"""Starting a detached daemon and ending a running one: processes, log file, waiting."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from netclawd.adapters.clock import SystemClock
from netclawd.adapters.control_client import ControlClient
from netclawd.adapters.log import LIMIT_BYTES, rotate
from netclawd.cli.output import duration, note, visible
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import Daemon, folders_of
from netclawd.cli.status import SERVING
from netclawd.core import budgets
from netclawd.core.paths import Paths
from netclawd.core.values import frozen
from netclawd.errors import ControlError, NetclawError, NoAnswerError, NotRunningError

if TYPE_CHECKING:
    from netclawd.core.restart import RestartRecord

#: From spawn to ready, seconds; a boot that takes longer is left alone and reported.
READY_S = 60.0
#: Lines of the log that explain a failed start.
LAST_LINES = 15
#: Seconds between two looks at what is waited for, and for the answer to one.
LOOK_S = 0.05
LOOK_ANSWER_S = 1.0


@frozen
class Launched:
    """How a start went; ``status`` is None when the daemon is not ready."""

    status: dict[str, Any] | None
    pid: int
    #: Exit code to report.
    code: int = 0
    #: Whether the process has ended.
    ended: bool = False
    last_lines: tuple[str, ...] = ()


def log_path(paths: Paths) -> str:
    """Return where a detached daemon writes its standard error."""
    return os.path.join(paths.state, "logs", "netclawd.log")


def launch(paths: Paths, environ: Mapping[str, str]) -> Launched:
    """Start a detached daemon and wait until it is ready or has ended."""
    path = log_path(paths)
    log_fd = _open_log(path)
    try:
        begin = os.fstat(log_fd).st_size
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "netclawd"],
            cwd="/",
            env={**_without_supervisor(environ), "NETCLAW_LOG_FILE": path},
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=True,
        )
    finally:
        os.close(log_fd)
    return _wait_until_ready(process, paths, begin)


def _without_supervisor(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what a supervisor told us: it must not take the detached daemon for its own."""
    told = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "NETCLAW_NOTIFY_FD")
    return {k: v for k, v in environ.items() if not k.startswith(told)}


def _open_log(path: str) -> int:
    try:
        logs = os.path.dirname(path)
        for folder in (os.path.dirname(logs), logs):  # makedirs gives its mode to the last alone
            os.makedirs(folder, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_size >= LIMIT_BYTES:
                rotate(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ControlError(
            f"The log file {path} can't be written: {error.strerror or error}.",
            "Make the state folder writable for this user, or set NETCLAW_HOME.",
        ) from error


def _wait_until_ready(process: subprocess.Popen[bytes], paths: Paths, log_begin: int) -> Launched:
    deadline = time.monotonic() + READY_S
    with ControlClient(os.path.join(paths.runtime, "control.sock"), patience_s=0) as client:
        while time.monotonic() < deadline:
            code = process.poll()
            if code is not None:
                lines = _last_lines(log_path(paths), log_begin)
                return Launched(
                    None, process.pid, code if code > 0 else 1, ended=True, last_lines=lines
                )
            with contextlib.suppress(NetclawError):  # not there yet, or between two images
                status = client.call("status")
                if status["pid"] == process.pid and status["phase"] in SERVING:
                    _let_go(process)
                    return Launched(status, process.pid)
            time.sleep(LOOK_S)
    _let_go(process)
    return Launched(None, process.pid, 1, last_lines=_last_lines(log_path(paths), log_begin))


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Take it as waited for: it outlives us, and subprocess would warn of that."""
    process.returncode = 0


def _last_lines(path: str, begin: int) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            text = file.read()[-16384:].decode(errors="replace")
    except OSError:
        return ()
    return tuple(visible(line) for line in text.splitlines()[-LAST_LINES:])


# -- the end -------------------------------------------------------------------------------------


@frozen
class Stopped:
    #: It drained, wrote its manifest, and said so in the journal.
    clean: bool
    killed: bool


def tell_stopped(stopped: Stopped, took_s: float) -> None:
    """Say in words how it ended."""
    if stopped.clean:
        click.echo(
            f"Stopped cleanly in {duration(took_s)}: every turn goes on with the next start."
        )
    elif stopped.killed:
        note("the daemon did not end in time and was killed; the next start finds out what it did.")
    else:
        note(
            "the daemon ended, but not cleanly; the next start finds out what it did. "
            "See `netclaw restarts` and `netclaw logs`."
        )


def stop_running(daemon: Daemon, *, quiet: bool) -> Stopped:
    """Ask the daemon to stop and wait for its end; kill it when it takes too long.

    The process is held by a descriptor (pidfd) from before the question on, so that a pid that was
    given to another process meanwhile is never killed.
    """
    with _held(daemon.status["pid"]) as pidfd:
        try:
            daemon.client.call("stop")
        except NoAnswerError:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        deadline = time.monotonic() + budgets.STOP_KILL_S
        with Progress(quiet=quiet) as progress:
            while time.monotonic() < deadline:
                if _ended_within(pidfd, LOOK_S):
                    return Stopped(clean=_was_clean(daemon), killed=False)
                _show(progress, daemon)
        return _kill(pidfd)


def stop_silent(paths: Paths) -> Stopped:
    """End a daemon that does not answer: SIGTERM, then SIGKILL when it takes too long.

    Who it is says the kernel: the process that listens at the control socket (SO_PEERCRED, unix(7)).
    """
    began = SystemClock().wall()
    with _held(_listener(paths)) as pidfd:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if _ended_within(pidfd, budgets.STOP_KILL_S):
            newest = _newest_record(paths)
            clean = newest is not None and _stopped(newest) and (newest.ended_at or 0.0) >= began
            return Stopped(clean=clean, killed=False)
        return _kill(pidfd)


def _listener(paths: Paths) -> int:
    for folder in folders_of(paths):
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.settimeout(LOOK_ANSWER_S)
            sock.connect(os.path.join(folder, "control.sock"))
            pid: int = struct.unpack(
                "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )[0]
            return pid
    raise ControlError(
        "It can't be found out which process listens at the control socket.",
        "Find it with `pgrep -a netclawd` or `ss -lxp` and end it with kill(1).",
    )


def _kill(pidfd: int) -> Stopped:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    _ended_within(pidfd, 5.0)
    return Stopped(clean=False, killed=True)


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int]:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise ControlError(
            f"The daemon (pid {pid}) can't be watched: {error.strerror}.",
            "Run this in the daemon's own PID namespace (container).",
        ) from error
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _ended_within(pidfd: int, timeout_s: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])


def _show(progress: Progress, daemon: Daemon) -> None:
    """Ask on a connection of its own, without patience: the daemon is about to go."""
    with (
        ControlClient(daemon.client.path, patience_s=0, answer_s=LOOK_ANSWER_S) as client,
        contextlib.suppress(NotRunningError, ControlError),
    ):
        progress.show(describe_wait(client.call("status")))


def _was_clean(daemon: Daemon) -> bool:
    """Whether the journal says that the process stopped after a whole drain."""
    newest = _newest_record(daemon.paths)
    # An older stop says nothing about this one.
    return (
        newest is not None and _stopped(newest) and newest.generation >= daemon.status["generation"]
    )


def _stopped(record: RestartRecord) -> bool:
    return record.outcome.value == "stopped"


def _newest_record(paths: Paths) -> RestartRecord | None:
    from netclawd.cli.wiring import open_store_read_only

    try:
        store = open_store_read_only(paths)
    except NetclawError:
        return None
    try:
        return next(iter(store.restarts(1)), None)
    except NetclawError:
        return None
    finally:
        store.close()
