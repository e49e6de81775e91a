"""Log lines on standard error, and the rotation of the file that it may be appended to.

`netclaw daemon start` opens ``state/logs/netclawd.log`` as standard error and names it in
NETCLAW_LOG_FILE; only then the daemon rotates: it renames, opens anew and puts the new file under
the descriptors 1 and 2, so that whatever writes to them goes on in the new file.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from netclawd.core.text import one_line

#: Size at which the file is rotated, and old files kept.
LIMIT_BYTES = 10 * 1024 * 1024
KEPT = 3

#: A log line holds at most this much free text, bytes.
_LINE_BYTES = 2000


class OneLine(logging.Formatter):
    """``level logger: text``, one line, secrets masked; the supervisor adds the time.

    A traceback follows on lines of its own, indented: no text can begin a line that looks like ours.
    """

    def __init__(self, redact: Callable[[str], str], *, timed: bool) -> None:
        time = "%(asctime)s " if timed else ""
        super().__init__(f"{time}%(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = one_line(self._redact(record.message), _LINE_BYTES)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return self._indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return self._indented(stack_info)

    def _indented(self, text: str) -> str:
        lines = self._redact(text).splitlines()
        return "\n".join("  " + one_line(line, _LINE_BYTES) for line in lines)


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


def set_up_logging(redact: Callable[[str], str], log_file: str | None) -> None:
    """Log to standard error, INFO and up. Under systemd the journal adds the time itself."""
    handler = RotatingStderr(log_file) if log_file else logging.StreamHandler(sys.stderr)
    timed = "JOURNAL_STREAM" not in os.environ
    handler.setFormatter(OneLine(redact, timed=timed))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
