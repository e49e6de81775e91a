"""The one way to replace a file durably."""

from __future__ import annotations

import os


def replace_file(path: str, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace ``path`` with ``content`` atomically; readers see the old or the new file, whole.

    ``durable``: write, fsync, rename (the commit point), fsync of the folder. Crash: before the
    rename a ``.new`` file is left, which the next call overwrites.
    """
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        write_whole(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    if durable:
        sync_folder(os.path.dirname(path))


def write_whole(descriptor: int, content: bytes) -> None:
    """Write all of it, however many calls the kernel needs."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(path: str) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
