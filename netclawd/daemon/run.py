"""Runs the daemon: joins image, service, performer and arbiter, and turns errors into exit codes."""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import sys
import threading

from netclawd.core.events import Booted
from netclawd.core.lifecycle import Stage, State
from netclawd.core.notices import Notice
from netclawd.daemon.arbiter import TICK_S, Arbiter
from netclawd.daemon.crash import write_crash_log
from netclawd.daemon.gate import Gate
from netclawd.daemon.handoff import rescue
from netclawd.daemon.image import Image
from netclawd.daemon.parts import Parts
from netclawd.daemon.performer import Performer
from netclawd.daemon.records import describe_records
from netclawd.daemon.rehearsal import Rehearsal
from netclawd.daemon.service import DaemonService
from netclawd.daemon.signals import SignalPipe
from netclawd.errors import EXIT_FAILURE, NetclawError

log = logging.getLogger("netclawd")

#: Threads without which nothing is answered.
VITAL = ("http", "pump", "store", "control")


def run(parts: Parts) -> int:
    """Serve until a stop; return the exit code. Called on the main thread with signals blocked.

    An error of an image that is not ready is raised: the stub leads back from it.
    """
    _keep_name()
    _raise_descriptor_limit()
    image = Image(parts, Gate(parts.snapshot.settings.drain.new_work))
    describe_records(image)
    signals = SignalPipe()
    signals.install()
    faulthandler.enable()
    try:
        return _arbitrate(image, signals)
    except NetclawError as error:
        if not parts.boot.over:
            raise
        log.critical("%s %s", error.what, error.remedy)
        # systemd shows it when it has given up; the log of the last attempt it shows no more.
        parts.notifier.status(f"{'ended' if image.generation else 'not started'}: {error.what}")
        return error.exit_code
    except Exception as error:
        _leave_crash_log(image, error)
        if not parts.boot.over:
            raise
        return EXIT_FAILURE  # The last resort: let the supervisor act.


def _keep_name() -> None:
    """Be called netclawd by ps(1) and pkill(1): execve names a process after its interpreter."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write("netclawd")
    except OSError:
        pass  # Only a comfort; /proc may be hidden.


def _raise_descriptor_limit() -> None:
    """Use all the descriptors that we may have: a stream is one, and execve places each anew.

    The soft limit is low for programs that use select(2), which we don't.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning("descriptor limit not raised: %s", error)


def _arbitrate(image: Image, signals: SignalPipe) -> int:
    parts = image.parts
    queued = parts.handoff.queued if parts.handoff is not None else ()
    state = State(Stage.NEW, parts.snapshot.settings.drain, queued=queued)
    performer: Performer | None = None

    def post(event: object) -> None:
        arbiter.post(event)  # type: ignore[arg-type]

    service = DaemonService(image, post)
    rehearsal = Rehearsal(parts.origin, len(sys.argv) - 1, parts.codec, post, image.upgrade.refusal)
    performer = Performer(image, service, rehearsal, post)
    tick_s = image.progress.tick_s(TICK_S)
    arbiter = Arbiter(state, parts.clock, parts.ids, signals, performer, tick_s)
    performer.attach(arbiter)
    parts.boot.rescue = lambda: rescue(image, arbiter.waiting_requests())
    parts.boot.heard = arbiter.unheeded_signals
    threading.excepthook = lambda args: _on_thread_error(image, args)
    arbiter.post(Booted())
    signals.unblock()
    return arbiter.run()


def _on_thread_error(image: Image, args: threading.ExceptHookArgs) -> None:
    """A thread died of an error. Without one of the vital ones nobody is served: then the process ends
    as by SIGKILL, and the supervisor starts it again; an image that is not ready yet goes back."""
    if args.exc_value is None:
        return
    name = args.thread.name if args.thread is not None else "a thread"
    path = _leave_crash_log(image, args.exc_value)
    if name in VITAL:
        boot, why = image.parts.boot, f"The thread {name} of the new image died; {path} says why."
        code = boot.roll_back("boot-failed", why, "Look at the crash log, then reload.")
        os._exit(EXIT_FAILURE if code is None else code)
    image.degraded[f"thread {name}"] = (
        f"The thread {name} died; {path} says why. Restart the daemon: `netclaw daemon restart`."
    )


def _leave_crash_log(image: Image, error: BaseException) -> str:
    """Return the path of the crash log, "the log" when none can be written."""
    folder = image.parts.folders.in_state("logs")
    try:
        path = write_crash_log(
            folder, error, image.generation, image.phase.value, image.parts.redact
        )
    except OSError:
        log.exception("crash, and no crash log could be written")
        return "the log"
    log.critical(
        "crash: %s: %s; see %s",
        type(error).__name__,
        error,
        path,
        extra={"MESSAGE_ID": Notice.CRASHED, "CRASH_LOG": path},
    )
    return path
