"""A start that s6 carries out: asked for, followed until the daemon is ready or has ended, and reported.

Invariant: nothing here starts a process of netclawd, and s6 is asked for none while another one of this home
is there (core/s6.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Any

import click

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import s6
from netclawd.cli.launch import (
    LAST_LINES,
    LOOK_ANSWER_S,
    READY_S,
)
from netclawd.cli.log_reader import S6LogReader, s6_log_path
from netclawd.cli.output import note, say_json, visible
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import Daemon, folders_of
from netclawd.cli.s6_known import (
    Known,
    describe_known,
    describe_service,
    is_outside,
    know,
    known_json,
    look_at_both,
)
from netclawd.cli.status import SERVING
from netclawd.core import budgets
from netclawd.core.container import CONTAINER_LOG, Container
from netclawd.core.paths import Paths
from netclawd.core.s6 import (
    STOPPING,
    Attempt,
    Command,
    Service,
    Step,
    Verdict,
    begin,
    follow,
    judge_start,
    let_go,
    plan_commands,
)
from netclawd.core.values import frozen
from netclawd.errors import (
    EXIT_CONFIG,
    EXIT_FAILURE,
    EXIT_TEMPORARY,
    ControlError,
    NetclawError,
    SupervisorError,
)

#: Seconds between two looks at what is waited for.
LOOK_S = 0.1
#: Whom s6 calls ready and nobody can reach for so long is another home's, seconds.
SILENT_S = 10.0
#: What a daemon that has ended wrote comes through a pipe and s6-log: awaited this long, seconds.
WORDS_S = 1.0
#: So soon a daemon that was told to stop says that it does, seconds.
KEEP_S = 0.3


def start(container: Container, paths: Paths, *, as_json: bool) -> int:
    """Have the daemon started by who starts it, report, and return the exit code."""
    try:
        running, known = look_at_both(container, paths)
    except ControlError as error:  # it may not be asked, or does not answer: s6 knows more
        what = f"{error.what} {describe_known(container, know(container))}"
        raise type(error)(what, error.remedy) from error
    step = _judge(running, known)
    if step == Step.KEEP:
        s6.ask(container, Command.UP)
        time.sleep(KEEP_S)
        running, known = look_at_both(container, paths)
        step = _judge(running, known)
    if running is not None and step == Step.REPORT:
        return _say_managed(container, running, known, as_json=as_json)
    if known.service is None:
        raise _not_startable(container, running, known)
    with _Words(paths) as words:
        stopping = running is not None and running.status["phase"] == STOPPING
        attempt = begin(known.service, _pid(running), stopping=stopping)
        came = _wait_until_ready(container, paths, attempt, quiet=as_json)
        if came.status is not None and came.status["pid"] != came.service.pid:
            running, known = look_at_both(container, paths)  # somebody has started one by hand
            if running is not None:
                return _say_managed(container, running, known, as_json=as_json)
        if came.status is not None:
            return _say_started(container, came.status, as_json=as_json)
        lines = words.since() if came.ended else words.now()
    return _say_not_started(container, came, lines, as_json=as_json)


def _judge(running: Daemon | None, known: Known) -> Step:
    phase = running.status["phase"] if running is not None else ""
    return judge_start(phase, known.service, outside=is_outside(running, known.service))


def _pid(running: Daemon | None) -> int:
    return int(running.status["pid"]) if running is not None else 0


def _not_startable(container: Container, running: Daemon | None, known: Known) -> SupervisorError:
    nobody = (
        "No daemon answers"
        if running is None
        else f"The daemon (pid {running.status['pid']}) is stopping"
    )
    return SupervisorError(
        f"{nobody}, and only {container.label} ({container.supervisor}) starts one here. "
        f"{known.why_not.what if known.why_not is not None else ''}",
        known.why_not.remedy if known.why_not is not None else CONTAINER_LOG,
    )


@frozen
class _Came:
    """What came of a start; ``status`` is None when the daemon is not ready."""

    service: Service
    status: dict[str, Any] | None = None
    #: Its process has ended.
    ended: bool = False
    #: s6 says it is ready, and it does not answer here.
    elsewhere: bool = False


def _wait_until_ready(
    container: Container, paths: Paths, attempt: Attempt, *, quiet: bool
) -> _Came:
    began = time.monotonic()
    deadline = began + READY_S + (budgets.UNIT_STOP_S if attempt.leaving else 0.0)
    heard = began
    with Progress(quiet=quiet) as progress:
        while True:
            status = _ask_status(paths)
            service = s6.look(container)
            heard = time.monotonic() if status is not None else heard
            # One that stops says so: who answers like this is not on its way out.
            if status is not None and status["phase"] in SERVING:
                return _Came(service, status)
            attempt = let_go(attempt, service, gone=_is_gone(attempt.leaving))
            commands = plan_commands(attempt, service)
            for command in commands:
                s6.ask(container, command)
            attempt, verdict = follow(attempt, service, commands)
            if verdict == Verdict.ENDED:
                return _Came(service, ended=True)
            now = time.monotonic()
            if service.serves and now - max(heard, now - service.for_s) > SILENT_S:
                return _Came(service, elsewhere=True)
            if now > deadline:
                return _Came(service)
            progress.show(_shown(container, status, attempt))
            time.sleep(LOOK_S)


def _is_gone(pid: int) -> bool:
    """Whether a process has ended, also when nobody has waited for it yet."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return True
    try:
        return bool(select.select([pidfd], [], [], 0)[0])
    finally:
        os.close(pidfd)


def _ask_status(paths: Paths) -> dict[str, Any] | None:
    for folder in folders_of(paths):
        path = os.path.join(folder, "control.sock")
        with (
            ControlClient(path, patience_s=0, answer_s=LOOK_ANSWER_S) as client,
            contextlib.suppress(NetclawError),
        ):
            return dict(client.call("status"))
    return None


def _shown(container: Container, status: dict[str, Any] | None, attempt: Attempt) -> str:
    if attempt.leaving:
        busy = describe_wait(status) if status is not None else "stopping …"
        return f"pid {attempt.leaving} ends first: {busy}"
    if status is not None:
        return describe_wait(status)
    return f"{container.label} starts the daemon …"


class _Words:
    """What the daemon writes from now on, where s6-log keeps it and this user may read that."""

    def __init__(self, paths: Paths) -> None:
        self._path = s6_log_path(paths)
        self._reader: S6LogReader | None = None
        self._lines: list[bytes] = []

    def __enter__(self) -> _Words:
        reader = self._open()
        if reader is not None:
            reader.last(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.__exit__()

    def _open(self) -> S6LogReader | None:
        if self._reader is None:
            with contextlib.suppress(NetclawError):
                self._reader = S6LogReader(self._path)
        return self._reader

    def now(self) -> list[str]:
        """Return the last lines since the beginning."""
        reader = self._open()
        if reader is not None:
            self._lines += reader.more()
        return [visible(line.decode(errors="replace")) for line in self._lines[-LAST_LINES:]]

    def since(self) -> list[str]:
        """Return the last lines since the beginning, once they have all come."""
        deadline = time.monotonic() + WORDS_S
        before = -1
        while (len(self._lines) != before or not self._lines) and time.monotonic() < deadline:
            before = len(self._lines)
            time.sleep(LOOK_S)
            self.now()
        return self.now()


def _say_managed(container: Container, running: Daemon, known: Known, *, as_json: bool) -> int:
    pid, phase = running.status["pid"], running.status["phase"]
    outside = is_outside(running, known.service)
    if as_json:
        shown = {"started": False, "pid": pid, "phase": phase}
        say_json({**shown, **known_json(container, known, running)})
    elif outside:
        click.echo(f"The daemon runs already: PID {pid}, {phase}.")
        note(
            f"{container.label} did not start it; `netclaw daemon stop` ends it, and `netclaw daemon "
            "start` then asks s6 for one."
        )
    else:
        click.echo(f"The daemon runs already, managed by {container.label} (PID {pid}): {phase}.")
    return 0


def _say_started(container: Container, found: dict[str, Any], *, as_json: bool) -> int:
    pid, generation = found["pid"], found["generation"]
    if as_json:
        shown = {"started": True, "pid": pid, "generation": generation}
        say_json({**shown, **known_json(container, know(container), None)})
    else:
        click.echo(
            f"The daemon is {found['phase']}, managed by {container.label} (PID {pid}): generation "
            f"{generation}, answers on {', '.join(found['addresses']) or 'no address'}."
        )
    return 0


def _say_not_started(container: Container, came: _Came, lines: list[str], *, as_json: bool) -> int:
    service = came.service
    told = came.ended and service.exit_code in (EXIT_TEMPORARY, EXIT_CONFIG)
    code = service.exit_code if told and service.exit_code else EXIT_FAILURE
    if as_json:
        shown = {"started": False, "exit_code": code, "log": lines}
        say_json({**shown, **known_json(container, Known(service), None)})
        return code
    if came.elsewhere:
        note(
            f"{container.label} says that its daemon is ready (PID {service.pid}), but none answers "
            "here: is NETCLAW_HOME, or RUNTIME_DIRECTORY, another one's?"
        )
        return code
    if came.ended:
        note(f"the daemon did not start. {describe_service(container, service)}")
    else:
        note(f"the daemon is not ready yet. {describe_service(container, service)}")
    if lines:
        click.echo("  The end of its log:", err=True)
    for line in lines:
        click.echo(f"    {line}", err=True)
    if not lines:
        click.echo(f"  {CONTAINER_LOG}", err=True)
    if came.ended and service.wanted:
        click.echo("  s6 goes on trying; a changed configuration file is tried at once.", err=True)
    return code
