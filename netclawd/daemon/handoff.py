"""The handoff: everything that crosses execve, put in its place; and taken over on the other side.

The commit point of a restart is the execve in :func:`perform_exec`. Before it everything is durable
and the store is closed, so a death here is like a stop; if execve returns, every descriptor is put
back and the old generation goes on. Learned from pitfalls that others met: signals are blocked first
and the wakeup pipe is read once more (a TERM there turns the restart into a stop); descriptors are
inheritable for this moment only; the record travels in a memfd because one string of the
environment is capped at 128 KiB; the new image is started from the first start's arguments and
environment, so nothing accumulates.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from netclawd.core import budgets
from netclawd.core.beginning import Beginning
from netclawd.core.effects import Exec
from netclawd.core.events import Event, ExecFailed, Refusal, Request, StopRequested
from netclawd.core.handoff import HandoffRecord, from_map, renumber, to_map
from netclawd.core.listeners import Kept
from netclawd.core.restart import RestartRecord
from netclawd.core.values import replace
from netclawd.daemon import signals
from netclawd.daemon.descriptors import (
    Inheritance,
    Named,
    Placement,
    listen_variables,
    plan_numbers,
)
from netclawd.daemon.image import Image
from netclawd.errors import ManifestError
from netclawd.ports import Codec, Quiesced

log = logging.getLogger("netclawd.handoff")

#: Kept connections that cross execve at most: their names share one environment string of 128 KiB.
#: Beyond it the oldest stay; an idle connection that is closed costs its client one reconnect.
MOST_KEPT = 8192

#: How long an image that failed may take to come to rest, seconds.
_RESCUE_S = 1.0

#: s6's descriptor is used once; the next image must not write to a number that is somebody else's.
_USED_UP = (b"NETCLAW_NOTIFY_FD",)


class Queue(Protocol):
    def pending_stop(self) -> Request | None: ...
    def pending_requests(self) -> tuple[Request, ...]: ...


def perform_exec(image: Image, effect: Exec, queue: Queue) -> Event:
    """Replace this image by the next. Returns only when that did not happen."""
    signals.block()
    stop = queue.pending_stop()
    if stop is not None:
        _unblock()
        return StopRequested(stop)
    held_back = image.upgrade.refusal()  # Unpacking may have begun during the drain.
    if held_back is not None:
        _unblock()
        return ExecFailed(held_back)
    queued = (*effect.queued, *queue.pending_requests())
    try:
        record = _record(image, effect, queued)
        _replace_process(image, record)
    except (OSError, ValueError, ManifestError) as error:
        _unblock()
        log.error("execve failed: %s", error)
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return ExecFailed(
            Refusal(
                "exec-failed",
                f"The new image can't be started: {why.rstrip('.')}.",
                "Mend the installation (is the interpreter still there?) and reload again.",
            )
        )
    raise AssertionError("execve returned without an error")


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.HANDLED)


def _record(image: Image, effect: Exec, queued: tuple[Request, ...]) -> HandoffRecord:
    parts, quiesced = image.parts, image.quiesced
    assert quiesced is not None
    assert image.restart is not None
    restart: RestartRecord = image.restart
    return HandoffRecord(
        pid=os.getpid(),
        generation=image.generation,
        snapshot=effect.change.snapshot,
        last_good=image.snapshot,
        restart=restart,
        requests=effect.requests,
        queued=queued,
        argv=parts.origin.argv,
        environ={k: v for k, v in parts.origin.environ.items() if k not in _USED_UP},
        last_accept=quiesced.last_accept,
        kept=tuple(quiesced.kept[:MOST_KEPT]),
        code=image.candidate_code,
        started_at=parts.origin.started_at,
        counters=image.counters.totals,
        refused=image.refused if image.candidate_without_file else None,
    )


def _replace_process(image: Image, record: HandoffRecord) -> None:
    """Place the descriptors and execve; put everything back and raise OSError if it returns."""
    parts = image.parts
    memory = os.memfd_create("netclawd-handoff", os.MFD_CLOEXEC)
    boot = os.memfd_create("netclawd-boot", os.MFD_CLOEXEC)
    try:
        named = descriptors(image, record.kept, memory, boot)
        numbers = plan_numbers(named)
        moved = replace(record, kept=renumber(record.kept, numbers))
        _fill(memory, parts.codec.seal(to_map(moved)))
        _fill(boot, _note(image))
        with _records_held():
            placement = Placement(named)
            try:
                environ = {**record.environ, **listen_variables(named, record.pid)}
                arguments = [os.fsencode(parts.origin.executable), *record.argv[1:]]
                _flush()
                # The commit point. Crash: before it, as after a stop; behind it, as a start that failed.
                os.execve(parts.origin.executable, arguments, environ)  # noqa: S606 - what this is for
            finally:
                placement.undo()
    finally:
        os.close(memory)
        os.close(boot)


def _fill(memory: int, content: bytes) -> None:
    with open(memory, "wb", closefd=False) as file:
        file.write(content)


def _note(image: Image) -> bytes:
    """Return what the next stub must know: it can't read the record."""
    return image.parts.boot.note(
        image.settings.daemon.boot_timeout_s,
        budgets.ROLLBACK_LIMIT,
        budgets.ROLLBACK_WINDOW_S,
        image.parts.clock.monotonic(),
    )


def descriptors(image: Image, kept: Sequence[Kept], memory: int, boot: int) -> list[Named]:
    """Return all that crosses execve, in the order of their future numbers."""
    assert image.control_socket is not None
    return [
        Named("handoff", memory),
        Named("boot", boot),
        Named("lock", image.parts.lock_fd),
        Named("control", image.control_socket.fileno()),
        *image.listeners.to_hand_over(),
        *(Named(f"conn={index}", k.fd) for index, k in enumerate(kept)),
    ]


@contextmanager
def _records_held() -> Iterator[None]:
    """Let no other thread log: the journal's descriptor may lie under a number that is about to be a
    connection's."""
    with ExitStack() as held:
        for handler in logging.getLogger().handlers:
            handler.acquire()
            held.callback(handler.release)
        yield


def _flush() -> None:
    """Flush what buffers: after execve nobody does."""
    for buffer in (*logging.getLogger().handlers, sys.stdout, sys.stderr):
        try:
            buffer.flush()
        except (OSError, ValueError):
            pass  # The terminal is gone; there is nobody to tell.


# -- back from an image that failed ---------------------------------------------------------------


def rescue(image: Image, waiting: Sequence[Request]) -> list[tuple[str, int]] | None:
    """Come to rest as far as that goes: return a record and the connections that can be kept.

    For an image that is not ready; who asked it for a reload is judged by the next one. When HTTP does
    not come to rest its connections end with the image; the listeners, and the connections that HTTP
    has not got yet, are the stub's to hand over. None without a handoff. Called by any thread.
    """
    record = image.parts.handoff
    if record is None:
        return None
    at_rest = _come_to_rest(image)
    kept: tuple[Kept, ...] = ()
    if at_rest is not None:
        kept = tuple(at_rest.kept[:MOST_KEPT])
        record = replace(record, kept=kept, last_accept=at_rest.last_accept)
    content = image.parts.codec.seal(to_map(replace(record, queued=tuple(waiting))))
    memory = os.memfd_create("netclawd-handoff", os.MFD_CLOEXEC)
    _fill(memory, content)
    return [("handoff", memory), *((f"conn={index}", k.fd) for index, k in enumerate(kept))]


def _come_to_rest(image: Image) -> Quiesced | None:
    http = image.http
    if http is None:
        return None
    at_rest: list[Quiesced] = []
    done = threading.Event()

    def on_quiesced(quiesced: Quiesced) -> None:
        at_rest.append(quiesced)
        done.set()

    http.quiesce(image.parts.clock.monotonic() + budgets.REQUEST_MINIMUM_S, 1, on_quiesced)
    if not done.wait(_RESCUE_S):
        log.error("connections are not kept: HTTP does not come to rest")
        return None
    return at_rest[0]


# -- on the other side ---------------------------------------------------------------------------


def take_record(inherited: Inheritance, codec: Codec, pid: int) -> HandoffRecord | None:
    """Claim and read the record; None at a cold start. ManifestError when it isn't ours."""
    note = inherited.claim("boot")
    if note is not None:
        os.close(note)  # The stub has read it.
    fd = inherited.claim("handoff")
    if fd is None:
        return None
    try:
        # A memfd: it can be read at a position, and without waiting.
        data = os.pread(fd, codec.limit_bytes + 1, 0)
    except OSError as error:
        raise ManifestError(
            f"The handoff record can't be read: {error.strerror}.",
            "Start the daemon without LISTEN_FDS from an earlier run.",
        ) from error
    finally:
        os.close(fd)
    return from_map(codec.unseal(data), pid)


def go_on(record: HandoffRecord, failure: tuple[str, str, str] | None) -> Beginning:
    """Return what this image serves: what was handed over, or after a failure what was good before."""
    if failure is not None:
        return Beginning(record.last_good, Refusal(*failure), record.snapshot.digest)
    if record.refused is not None:
        return Beginning(record.snapshot, record.refused.refusal, record.refused.digest)
    return Beginning(record.snapshot)


def claim_control(inherited: Inheritance) -> socket.socket | None:
    """Claim the control socket, which clients go on connecting to during the gap."""
    fd = inherited.claim("control")
    if fd is None:
        return None
    return socket.socket(fileno=fd)


def claim_kept(inherited: Inheritance, kept: Sequence[Kept]) -> tuple[Kept, ...]:
    """Claim the kept connections by their names, under the numbers that they have now."""
    claimed = []
    for index, connection in enumerate(kept):
        fd = inherited.claim(f"conn={index}")
        if fd is not None:
            claimed.append(replace(connection, fd=fd))
    return tuple(claimed)
