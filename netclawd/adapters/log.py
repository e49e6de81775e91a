"""Log records: to the journal with their fields, else as lines on standard error.

A record's fields come in ``extra={…}``, in capitals as in the journal (systemd.journal-fields(7)).
Where standard error is the journal each record goes there with all its fields; elsewhere a line shows
the ids among them at its end. Invariant: whatever the journal doesn't take is a line on standard error,
and what that has no room for either is counted: nobody ever waits for who reads them.

`netclaw daemon start` opens ``state/logs/netclawd.log`` as standard error and names it in
NETCLAW_LOG_FILE; only then the daemon rotates: it renames, opens anew and puts the new file under
the descriptors 1 and 2, so that whatever writes to them goes on in the new file.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.core.text import one_line

_log = logging.getLogger(__name__)

#: Size at which the file is rotated, and old files kept.
LIMIT_BYTES = 10 * 1024 * 1024
KEPT = 3

#: A log line holds at most this much free text, bytes.
_LINE_BYTES = 2000

#: The fields that a line shows, and what it calls them.
SHOWN = {
    "REMINDER_ID": "reminder",
    "SESSION_ID": "session",
    "TURN_ID": "turn",
    "CALL_ID": "call",
}

_FIELD = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

#: Takes the fields of one record; ImportError where that can't be, OSError when it failed.
Send = Callable[[Mapping[str, str]], None]


def fields(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields that a record was given."""
    return {k: str(v) for k, v in vars(record).items() if _FIELD.fullmatch(k)}


def shown(known: Mapping[str, str]) -> str:
    """Return the ids among the fields as the end of a line: `` session=… turn=…``."""
    return "".join(
        f" {name}={one_line(known[field])}" for field, name in SHOWN.items() if known.get(field)
    )


class OneLine(logging.Formatter):
    """``level logger: text``, one line, secrets masked; the supervisor adds the time.

    A traceback follows on lines of its own, indented: no text can begin a line that looks like ours.
    """

    def __init__(self, redact: Callable[[str], str], *, timed: bool) -> None:
        time = "%(asctime)s " if timed else ""
        super().__init__(f"{time}%(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = self.text(record.message)
        return super().formatMessage(record) + shown(fields(record))

    def text(self, text: str) -> str:
        """Mask secrets, then make it one bounded line."""
        return one_line(self._redact(text), _LINE_BYTES)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return self._indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return self._indented(stack_info)

    def _indented(self, text: str) -> str:
        lines = self._redact(text).splitlines()
        return "\n".join("  " + one_line(line, _LINE_BYTES) for line in lines)


class MessageOnly(OneLine):
    """The text alone, with its traceback: the journal has the rest in fields."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(redact, timed=False)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return self.text(record.message)


class WithPriority(OneLine):
    """A line as the journal reads it off standard error: ``<N>`` is its priority (sd-daemon(3))."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__(redact, timed=False)

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{priority(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


def priority(level: int) -> int:
    """Return the priority of syslog(3) for a level of logging."""
    floors = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((number for floor, number in floors if level >= floor), 7)


class JournalHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """The journal, with all fields; standard error for what it doesn't take.

    ``make_send`` is called by the first record, since what it imports is not needed to serve. Without
    that library standard error has everything.
    """

    def __init__(self, redact: Callable[[str], str], make_send: Callable[[], Send]) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(WithPriority(redact))
        self._redact = redact
        self._message = MessageOnly(redact)
        self._make_send = make_send
        self._send: Send | None = None
        #: Records that nobody took, since the journal took the last.
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._send is None:
                self._send = self._make_send()
            self._send(self._fields(record))
        except Exception as error:  # noqa: BLE001 - whatever hinders it, the record is not lost
            if isinstance(error, ImportError):
                self._send = _refuse
            if _has_room(2):
                super().emit(record)
            else:
                self._lost += 1
        else:
            self._say_lost()

    def _say_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            _log.warning("log records lost: %d, while the journal read nothing", lost)

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        added = {k: one_line(self._redact(v), _LINE_BYTES) for k, v in fields(record).items()}
        return {
            **added,
            "MESSAGE": self._message.format(record),
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "netclawd",
            "LOGGER": record.name,
            "THREAD_NAME": record.threadName or "",
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
        }


class RotatingStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error as a file that is rotated by size."""

    def __init__(self, path: str) -> None:
        super().__init__(sys.stderr)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        try:
            if os.fstat(2).st_size >= LIMIT_BYTES:
                rotate(self._path)
                self._redirect()
        except OSError:
            self.handleError(record)

    def _redirect(self) -> None:
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(fresh, 1)
        os.dup2(fresh, 2)
        os.close(fresh)


def rotate(path: str) -> None:
    """Rename path to path.1, path.1 to path.2 …; the oldest is replaced."""
    for number in range(KEPT - 1, 0, -1):
        _rename_if_there(f"{path}.{number}", f"{path}.{number + 1}")
    _rename_if_there(path, f"{path}.1")


def _rename_if_there(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        pass  # Not so many yet.


def _has_room(fd: int) -> bool:
    """Tell whether a line can be written without waiting; a descriptor that is broken says so then."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(0))


def _refuse(_fields: Mapping[str, str]) -> None:
    raise OSError("systemd-python is not installed")


def goes_to_journal(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Tell whether a descriptor is the stream that JOURNAL_STREAM names (systemd.exec(5)).

    The variable alone says nothing: it is inherited by whoever redirects its standard error.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def set_up_logging(
    redact: Callable[[str], str],
    log_file: str | None,
    environ: Mapping[str, str],
    make_send: Callable[[], Send],
) -> None:
    """Log INFO and up: to the journal where standard error leads there, else to standard error."""
    handler: logging.Handler
    if goes_to_journal(environ):
        handler = JournalHandler(redact, make_send)
    else:
        handler = RotatingStderr(log_file) if log_file else logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLine(redact, timed=True))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
