"""What a command prints: its beginning and its end in memory, the whole in a file of the working folder.

The file is made only when there is more than the model reads, so that small commands leave none.
Invariant: memory holds at most the limit and one piece, the file at most its own limit.
"""

from __future__ import annotations

import os

from netclawd.adapters.tools.shown import as_text, count, is_binary

#: The folder of such files in the working folder.
FOLDER = "output"


class Output:
    """Used by one thread."""

    def __init__(self, workspace: str, name: str, limit_bytes: int, file_limit_bytes: int) -> None:
        """Take the working folder, the file's name, and the bytes that the model reads and that are kept."""
        self._folder = os.path.join(workspace, FOLDER)
        self._name = name
        self._limit = limit_bytes
        self._most = file_limit_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._file: int | None = None
        self._total = 0
        #: Why the file has not all of it.
        self._lost = ""

    @property
    def is_full(self) -> bool:
        """Whether more was printed than is kept."""
        return self._total > self._most

    def add(self, piece: bytes) -> None:
        """Take what was printed."""
        kept = piece[: max(0, self._most - self._total)]
        self._total += len(piece)
        if self._total > self._limit:
            self._keep(kept)
        room = self._limit - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        del self._tail[: -(self._limit // 2)]

    def _keep(self, piece: bytes) -> None:
        if self._lost:
            return
        try:
            if self._file is None:
                self._file = self._make()
                # Until now all of it is in the head.
                piece = bytes(self._head) + piece
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._lost = error.strerror or "it can't be written"

    def _make(self) -> int:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        # What the command itself may have laid there is not followed.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(self._name, flags | os.O_NONBLOCK, 0o600, dir_fd=folder)
        finally:
            os.close(folder)

    def text(self) -> str:
        """Return what the model reads, once all was added and before :meth:`close`."""
        if not self._total:
            return "[no output]"
        head = bytes(self._head)
        if is_binary(head):
            if self._file is None:
                self._keep(b"")
            return f"[{count(self._total)} of binary output; {self._where()}]\n{_beginning(head)}"
        if self._total <= self._limit:
            return as_text(head)
        half = self._limit // 2
        # Of what is just above the limit some of the end is in the head.
        end = (head + bytes(self._tail))[-half:]
        left_out = f"{count(self._total - 2 * half)} of {count(self._total)} left out"
        return f"{as_text(head[:half])}\n… [{left_out}; {self._where()}] …\n{as_text(end)}"

    def _where(self) -> str:
        if self._lost:
            return f"they are not kept: {self._lost}"
        kept = f"the first {count(self._most)} are" if self.is_full else "all of it is"
        return f"{kept} in {FOLDER}/{self._name}"

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _beginning(raw: bytes) -> str:
    """Return the first bytes as hexadecimal numbers."""
    return raw[:64].hex(" ") + (" …" if len(raw) > 64 else "")
