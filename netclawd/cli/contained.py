"""``netclaw daemon …`` where something else starts the daemon: s6 in a container, as its marker says.

Invariant: nothing here starts a process of netclawd. s6 is asked for one, or it is said why it can't be.
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
    Stopped,
    stop_running,
    stop_silent,
)
from netclawd.cli.log_reader import S6LogReader, s6_log_path
from netclawd.cli.output import duration, note, say_json, visible
from netclawd.cli.progress import Progress, describe_wait
from netclawd.cli.reach import Daemon, folders_of, reach, reach_or_none
from netclawd.cli.reload import reload_and_wait
from netclawd.cli.status import SERVING, describe, exit_code
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
    NoAnswerError,
    NotRunningError,
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


@frozen
class Known:
    """What s6 says, or why it can't be asked."""

    service: Service | None
    why_not: SupervisorError | None = None


def know(container: Container) -> Known:
    """Ask s6; what is in the way is part of the answer."""
    try:
        return Known(s6.look(container))
    except SupervisorError as error:
        return Known(None, error)


def is_outside(running: Daemon | None, service: Service | None) -> bool:
    """Whether a daemon answers that s6 did not start, as far as s6 could be asked."""
    return running is not None and service is not None and running.status["pid"] != service.pid


def _look_at_both(container: Container, paths: Paths) -> tuple[Daemon | None, Known]:
    """Return the daemon that answers and what s6 says, of one moment if s6 has just replaced one."""
    running, known = reach_or_none(paths), know(container)
    if is_outside(running, known.service):
        running, known = reach_or_none(paths), know(container)
    return running, known


# -- start ---------------------------------------------------------------------------------------


def start(container: Container, paths: Paths, *, as_json: bool) -> int:
    """Have the daemon started by who starts it, report, and return the exit code."""
    try:
        running, known = _look_at_both(container, paths)
    except ControlError as error:  # it may not be asked, or does not answer: s6 knows more
        what = f"{error.what} {describe_known(container, know(container))}"
        raise type(error)(what, error.remedy) from error
    step = _judge(running, known)
    if step == Step.KEEP:
        s6.ask(container, Command.UP)
        time.sleep(KEEP_S)
        running, known = _look_at_both(container, paths)
        step = _judge(running, known)
    if running is not None and step == Step.REPORT:
        return _say_managed(container, running, known, as_json=as_json)
    if known.service is None:
        raise _not_startable(container, running, known)
    with _Words(paths) as words:
        stopping = running is not None and running.status["phase"] == STOPPING
        attempt = begin(known.service, _pid(running), stopping=stopping)
        came = _wait_until_ready(container, paths, attempt, quiet=as_json)
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
        say_json({**shown, **_known_json(container, known, running)})
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
        say_json({**shown, **_known_json(container, know(container), None)})
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
        say_json({**shown, **_known_json(container, Known(service), None)})
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


# -- stop and restart ----------------------------------------------------------------------------


def stop(container: Container, paths: Paths, *, as_json: bool) -> int:
    """End the daemon with a drain and say what its supervisor does next; return the exit code."""
    began = time.monotonic()
    try:
        running = reach_or_none(paths)
    except NoAnswerError:
        if not as_json:
            note("the daemon does not answer; it is sent SIGTERM, and SIGKILL if it does not end.")
        stopped = stop_silent(paths)
    else:
        if running is None:
            return _say_nothing_to_stop(container, as_json=as_json)
        stopped = stop_running(running, quiet=as_json)
    return _say_stopped(container, stopped, time.monotonic() - began, as_json=as_json)


def _say_nothing_to_stop(container: Container, *, as_json: bool) -> int:
    known = know(container)
    if as_json:
        say_json({"stopped": False, "clean": True, **_known_json(container, known, None)})
    else:
        click.echo(f"No daemon runs here; nothing to stop. {describe_known(container, known)}")
        if known.service is None or known.service.wanted:
            click.echo(f"  {_how_to_keep_down(container)}")
    return 0


def _say_stopped(container: Container, stopped: Stopped, took_s: float, *, as_json: bool) -> int:
    known = know(container)
    again = known.service is None or known.service.wanted
    if as_json:
        shown = {"stopped": True, "clean": stopped.clean, "killed": stopped.killed}
        say_json({**shown, "starts_again": again, **_known_json(container, known, None)})
        return 0 if stopped.clean else 1
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
    if again:
        click.echo(f"{_capital(container.label)} will start it again in a moment.")
        click.echo(f"  {_how_to_keep_down(container)}")
    else:
        click.echo(f"{_capital(container.label)} keeps it down until `netclaw daemon start`.")
    return 0 if stopped.clean else 1


def _how_to_keep_down(container: Container) -> str:
    return (
        f"To keep it down, stop the container, or bring the service down: `s6-svc -d "
        f"{container.service}`; `netclaw daemon start` brings it up again."
    )


def restart(container: Container, paths: Paths, *, as_json: bool) -> int:
    """Re-execute the daemon in place, which needs no supervisor; have it started when none runs."""
    running = reach_or_none(paths)
    if running is None or running.status["phase"] == STOPPING:
        return start(container, paths, as_json=as_json)
    return reload_and_wait(running.client, force=True, as_json=as_json)


# -- status --------------------------------------------------------------------------------------


def status(container: Container, paths: Paths, *, as_json: bool) -> int:
    """Show what the daemon says of itself and its supervisor beside it; return the exit code."""
    try:
        running = reach(paths)
    except NotRunningError as error:
        known = know(container)
        down = with_service(container, error, known)
        if not as_json:
            raise down from error
        body = {"slug": down.slug, "what": down.what, "remedy": down.remedy}
        say_json({"error": body, **_known_json(container, known, None)})
        return down.exit_code
    except ControlError as error:  # it may not be asked, or does not answer: s6 knows more
        raise with_service(container, error, know(container)) from error
    known = know(container)
    if is_outside(running, known.service):
        known = know(container)
    found = running.status
    if as_json:
        say_json({**found, **_known_json(container, known, running)})
    else:
        click.echo("\n".join(describe(found)))
        beside = "; it did not start this daemon" if is_outside(running, known.service) else ""
        said = describe_known(container, known).rstrip(".")
        click.echo(f"  {'supervisor':<14} {visible(said)}{beside}")
    return exit_code(found)


def with_service(container: Container, error: NetclawError, known: Known) -> NetclawError:
    """Add what s6 knows to an error of a daemon that does not answer."""
    remedy = error.remedy
    if isinstance(error, NotRunningError):
        if known.why_not is not None:
            remedy = known.why_not.remedy
        elif known.service is not None and known.service.up:
            remedy = "See why it is not ready: `netclaw logs`."
            if known.service.waiting:
                remedy = "See why with `netclaw logs`; `netclaw daemon start` starts it now."
    return type(error)(f"{error.what} {describe_known(container, known)}", remedy)


# -- words ---------------------------------------------------------------------------------------


def describe_known(container: Container, known: Known) -> str:
    """Say in a sentence what the supervisor knows."""
    if known.service is not None:
        return describe_service(container, known.service)
    why = known.why_not.what if known.why_not is not None else ""
    return f"{_capital(container.label)} can't be asked: {why}"


def describe_service(container: Container, service: Service) -> str:
    """Say in a sentence how s6 has a service."""
    words, last = "", _how_it_ended(service)
    since = f" for {duration(service.for_s)}" if service.for_s >= 1 else ""
    if service.waiting:
        when = "" if service.starts_in_s is None else f", in {duration(service.starts_in_s)}"
        words = f"waits before it starts the daemon again{when}"
    elif service.up:
        how = "is paused" if service.paused else "is ready" if service.ready else "is not ready"
        wanted = "" if service.wanted else ", and wants it down"
        words = f"has PID {service.pid} up{since}; it {how}{wanted}"
    elif service.wanted:
        words = "is about to start the daemon again"
    else:
        words = f"keeps the daemon down{since}"
    ended = (
        f"; the one before ended with {last}" if last and service.up and not service.waiting else ""
    )
    ended = f"; it ended with {last}" if last and not ended else ended
    return f"{_capital(container.label)} {words}{ended}."


def _how_it_ended(service: Service) -> str:
    if service.signal is not None:
        return f"signal {service.signal}"
    return "" if service.exit_code is None else f"exit code {service.exit_code}"


def _known_json(container: Container, known: Known, running: Daemon | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": container.supervisor, "service": container.service}
    if known.service is not None:
        shown |= known.service.as_dict()
    elif known.why_not is not None:
        shown["error"] = known.why_not.what
    return {"supervisor": shown, "outside_supervisor": is_outside(running, known.service)}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
