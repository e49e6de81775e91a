"""The keys that were typed, on their way into files: made just before the configuration is written.

Invariant: a file stays only if the configuration that refers to it was written. Ctrl-C, TERM and a
terminal that goes away come as exceptions meanwhile, so that they leave none behind.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from netclawd.core.edits import lookup
from netclawd.core.interview import Hidden
from netclawd.core.units import Owner
from netclawd.core.values import frozen
from netclawd.daemon.key_file import Reader, write_key

_FILE = "file:"


@frozen
class Keys:
    """What is to be kept, and for whom."""

    #: By reference.
    pending: Mapping[str, Hidden]
    reader: Reader
    #: Files of older keys that are of no use once the new configuration is in force.
    replaced: tuple[str, ...] = ()


def reader_of(state: str, owner: object) -> Reader:
    """Find out whose daemon it is: its state folder is its user's, else the unit says, else it is ours."""
    with contextlib.suppress(OSError):
        status = os.stat(state)
        return Reader(status.st_uid, status.st_gid)
    if isinstance(owner, Owner) and owner.unit.user:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(owner.unit.user)
            return Reader(entry.pw_uid, entry.pw_gid)
    return Reader(os.geteuid(), os.getegid())


def replaced_files(
    folder: str, in_file: Mapping[str, Any], wanted: Mapping[tuple[str, ...], Any]
) -> tuple[str, ...]:
    """Return the files of ours that a provider's key leaves: in this folder, and nobody else's."""
    tables = in_file.get("providers")
    names = tables if isinstance(tables, Mapping) else {}
    keys = {("providers", n, "api_key"): lookup(names, (n, "api_key")) for n in names}
    now = {path: wanted.get(path, reference) for path, reference in keys.items()}
    gone = [ref for path, ref in keys.items() if isinstance(ref, str) and now[path] != ref]
    return tuple(
        ref.removeprefix(_FILE) for ref in gone if ref not in now.values() and _is_ours(folder, ref)
    )


def _is_ours(folder: str, reference: str) -> bool:
    head, name = os.path.split(reference.removeprefix(_FILE))
    return head == folder and bool(re.fullmatch(r"[a-z0-9_-]{1,64}(-\d+)?\.key", name))


@contextlib.contextmanager
def kept(keys: Keys, is_saved: Callable[[], bool]) -> Iterator[Callable[[], None]]:
    """Make the files; take them back unless what is given was called, or the configuration is saved."""
    made: list[str] = []
    saved = False

    def save() -> None:
        nonlocal saved
        saved = True

    with _heard():
        try:
            for reference, secret in keys.pending.items():
                path = reference.removeprefix(_FILE)
                made.append(path)
                try:
                    write_key(path, secret.reveal(), keys.reader)
                except Exception:  # none was made: what is there is somebody else's
                    made.remove(path)
                    raise
            yield save
        finally:
            if not saved and made and not is_saved():
                for path in made:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)


def forget(keys: Keys) -> None:
    """Remove the files of older keys."""
    for path in keys.replaced:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Have signals that end a process come as SystemExit."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
