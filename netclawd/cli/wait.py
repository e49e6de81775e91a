"""``netclawd-wait``: waits until the daemon may start again under s6, then becomes what its arguments say.

s6 starts a service again at once, whatever its exit code. This program stands before the daemon in ``run``
and puts a growing pause between two starts (``core/backoff.py``). It is executed anew for each of them, so
what it knows lies in the service folder, its working directory:

``last-start``  written here, before the daemon starts;
``last-exit``   written by ``finish``, and removed here before the daemon starts. Where it still lies when
                ``finish`` comes, the daemon wasn't started, and who has ended is this program;
``waiting``     written here for `netclaw daemon start`: by its process ID it is known for this wait's.

HUP, TERM and INT are blocked from the beginning and through execve, after which the daemon unblocks them
itself: a TERM that comes in between stops the daemon, and does not get lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from netclawd import __version__
from netclawd.core.backoff import (
    Exit,
    Start,
    Waiting,
    judge_wait,
    read_exit,
    read_start,
    read_uptime,
    write_start,
    write_waiting,
)
from netclawd.core.paths import locate
from netclawd.errors import EXIT_FAILURE, EXIT_USAGE, NetclawError

LAST_START = "last-start"
LAST_EXIT = "last-exit"
WAITING = "waiting"

_HEARD = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
#: So often the configuration file is looked at, seconds; and so long it must have rested after a change.
_LOOK_S = 0.2
#: As env(1) has them: there is no such program, it can't be executed.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_USAGE = """\
Usage: netclawd-wait [--config FILE] PROGRAM [ARGUMENT]...

Wait until the daemon may start again, then execute PROGRAM. For the run script of an s6 service;
the working directory must be the service folder. See netclawd-wait(8).

Options:
  --config FILE  Look at this configuration file instead of the one of this home.
  --version      Show the version and exit.
  -h, --help     Show this message and exit.
"""


def main() -> None:
    """Run ``netclawd-wait``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    config, command = _read_arguments(sys.argv[1:])
    config = config or _config_path()
    start, end = read_start(_content(LAST_START)), read_exit(_content(LAST_EXIT))
    seen = _look(config)
    wait = judge_wait(start, end, _now(), seen)
    delay_s = wait.delay_s
    if end is not None and wait.left_s > 0:
        _note(WAITING, write_waiting(Waiting(os.getpid(), _now() + wait.left_s)))
        _say(
            f"the daemon {end.words}: it starts again in {wait.left_s:.1f} s, or as soon as"
            f" {config or 'its configuration'} changes."
        )
        cut, seen = _sit_out(end, wait.left_s, config, seen)
        delay_s = 0.0 if cut else delay_s
    _record(Start(_now(), delay_s, seen))
    _become(command)


def _read_arguments(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the configuration file that is named, and the command; exit where there is none."""
    config = ""
    while arguments and arguments[0].startswith("-"):
        option, _, value = arguments.pop(0).partition("=")
        if option in ("-h", "--help"):
            _leave(_USAGE)
        elif option == "--version":
            _leave(f"netclawd-wait {__version__}\n")
        elif option == "--config" and (value or arguments):
            config = os.path.abspath(value or arguments.pop(0))
        elif option == "--":
            break
        else:
            _fail(
                f"{option} is no option, or lacks its value; see netclawd-wait --help.", EXIT_USAGE
            )
    if not arguments:
        _fail("it is not said which program to start; see netclawd-wait --help.", EXIT_USAGE)
    return config, arguments


def _config_path() -> str:
    """Return the path of the configuration file; "" where there is none (the daemon will say why)."""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
        user, home = entry.pw_name, entry.pw_dir
    except KeyError:  # A container may run us under a user that nobody wrote down.
        user, home = "", ""
    try:
        return locate(os.environ, os.getuid(), user=user, user_home=home).config
    except NetclawError:
        return ""


def _sit_out(end: Exit, left_s: float, config: str, seen: str) -> tuple[bool, str]:
    """Wait, and return whether that was cut short, and what the file looks like now.

    TERM and INT end the process: with the daemon's last code, so that it is the container's.
    """
    deadline = _now() + left_s
    last = seen
    while (left := deadline - _now()) > 0:
        heard = signal.sigtimedwait(_HEARD, min(left, _LOOK_S))
        if heard is not None and heard.si_signo != signal.SIGHUP:
            _forget(LAST_EXIT, LAST_START)
            sys.exit(end.status)
        if heard is not None:
            _say("asked by a HUP: starting.")
            return True, _look(config)
        now = _look(config)
        if now != seen and now == last:  # It rests: half a file would only fail again.
            _say(f"{config} has changed: starting.")
            return True, now
        last = now
    return last != seen, last


def _look(config: str) -> str:
    """Return what a change of the file changes; links are followed, as Kubernetes makes them."""
    try:
        found = os.stat(config)
    except OSError as error:
        return f"errno-{error.errno}"
    parts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return ":".join(map(str, parts))


def _now() -> float:
    """Return the seconds since boot, from where ``finish`` has them too; a container may see its own.

    0 where they are hidden: then no exit has an instant, and there is no pause.
    """
    try:
        return read_uptime(_content("/proc/uptime"))
    except ValueError:
        return 0.0


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _record(start: Start) -> None:
    if _note(LAST_START, write_start(start)):
        # Crash: `finish` leaves the exit, and the next wait takes it for one of before the start.
        _forget(LAST_EXIT)


def _note(name: str, content: str) -> bool:
    """Replace a record; return whether that went well."""
    try:
        with open(f"{name}.new", "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(f"{name}.new", name)
    except OSError as error:
        _say(
            f"the working directory can't be written ({error.strerror}), so the next start may not"
            " wait. It has to be the service folder, and the supervisor's."
        )
        return False
    return True


def _forget(*names: str) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _become(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)  # noqa: S606 - what this is for
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        _fail(f"{command[0]} can't be started: {error.strerror}.", code)


def _say(text: str) -> None:
    os.write(2, f"netclawd-wait: {text}\n".encode(errors="surrogateescape"))


def _leave(text: str) -> None:
    os.write(1, text.encode())
    sys.exit(0)


def _fail(text: str, code: int = EXIT_FAILURE) -> None:
    _say(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
