"""The tool ``ledger``: takes its time, then appends its call id to a file; the file tells what happened.

Not idempotent unless the call says so: then the id is looked for first, under the same lock, and the
call has one effect however often it is issued. A line without its newline is one that a crash tore:
it counts as not written, and the next line begins on its own.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
from collections.abc import Mapping
from typing import Any

from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel

_LOCK_RETRY_S = 0.02

_INTERRUPTED = ToolOutcome(ToolStatus.INTERRUPTED, "Ended before the line was written.")


class LedgerTool:
    name = "ledger"
    description = "Write one line into the ledger, after some seconds."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"seconds": {"type": "number"}, "idempotent": {"type": "boolean"}},
    }

    def __init__(self, path: str) -> None:
        self._path = path

    def idempotent(self, call: ToolCall) -> bool:
        return call.arguments.get("idempotent") is True

    def describe(self, call: ToolCall) -> str:
        return f"Write {call.id} into the ledger."

    def refusal(self, call: ToolCall) -> str | None:  # noqa: ARG002 - the port's
        return None

    def close(self) -> None:
        return

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        seconds = call.arguments.get("seconds", 0)
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            return ToolOutcome(ToolStatus.ERROR, "seconds must be a number from 0.")
        if cancel.wait(float(seconds)):
            return _INTERRUPTED
        try:
            return self._write(call, cancel)
        except OSError as error:
            return ToolOutcome(ToolStatus.ERROR, f"The ledger can't be written: {error.strerror}.")

    def _write(self, call: ToolCall, cancel: Cancel) -> ToolOutcome:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            while not _lock(descriptor):
                if cancel.wait(_LOCK_RETRY_S):
                    return _INTERRUPTED
            return self._append(descriptor, call)
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, call: ToolCall) -> ToolOutcome:
        content = _read(descriptor) if self.idempotent(call) else _last_byte(descriptor)
        line = f"{call.id}\n".encode()
        if self.idempotent(call) and line in content.splitlines(keepends=True):
            return ToolOutcome(ToolStatus.OK, f"{call.id} was written before.")
        torn = content and not content.endswith(b"\n")
        # Crash: within the write the line may be torn; before the fsync it may be lost.
        whole = b"\n" + line if torn else line
        if os.write(descriptor, whole) != len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
        self._sync_folder()
        return ToolOutcome(ToolStatus.OK, f"{call.id} is written.")

    def _sync_folder(self) -> None:
        folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lock(descriptor: int) -> bool:
    """Take the lock, which the close of the descriptor gives back, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _last_byte(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, 1, size - 1) if size else b""
