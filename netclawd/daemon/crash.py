"""Crash logs: what an error that nobody expected leaves for the one who looks for it."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from io import StringIO
from typing import IO

#: Crash logs that stay.
KEPT = 20


def write_crash_log(
    logs_dir: str,
    reason: BaseException,
    generation: int,
    phase: str,
    redact: Callable[[str], str] = str,
) -> str:
    """Write ``crash-<time>-<pid>.log`` with reason, generation, phase and all threads; return its path.

    ``redact`` masks secrets: an error may quote what it stumbled over.
    """
    text = StringIO()
    _tell(text, reason, generation, phase)
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    os.makedirs(logs_dir, mode=0o700, exist_ok=True)
    path = _free_name(os.path.join(logs_dir, f"crash-{now}-{os.getpid()}"))
    with open(path, "w", encoding="utf-8", errors="backslashreplace", opener=_private) as file:
        file.write(redact(text.getvalue()))
    _forget_old(logs_dir)
    return path


def _tell(file: IO[str], reason: BaseException, generation: int, phase: str) -> None:
    file.write(f"reason: {type(reason).__name__}: {reason}\n")
    file.write(f"generation: {generation}\nphase: {phase}\npid: {os.getpid()}\n\n")
    file.write("".join(traceback.format_exception(reason)))
    file.write("\nthreads:\n")
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        file.write(f"\n{names.get(ident, ident)}\n")
        file.write("".join(traceback.format_stack(frame)))


def _free_name(stem: str) -> str:
    """Return a name that is free: the first of two crashes in a second is the one to look at."""
    path, number = f"{stem}.log", 2
    while os.path.lexists(path):
        path, number = f"{stem}-{number}.log", number + 1
    return path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _forget_old(logs_dir: str) -> None:
    logs = sorted(name for name in os.listdir(logs_dir) if name.startswith("crash-"))
    for name in logs[:-KEPT]:
        os.unlink(os.path.join(logs_dir, name))
