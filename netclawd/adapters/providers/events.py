"""Server-sent events out of bytes, as the HTML standard reads them, with a bound on what is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

from netclawd.adapters.providers.reply import UnfitError

#: Longest event, bytes: the arguments of a call may be a whole file.
LIMIT_BYTES = 8 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventParser:
    """Takes bytes as they come; gives (name, data) of each event that has data."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._name = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Yield the events that these bytes complete."""
        self._size += len(data)
        if self._size > LIMIT_BYTES:
            raise UnfitError(f"one event of more than {LIMIT_BYTES // 1024 // 1024} MiB")
        self._pieces.append(data)
        if b"\n" not in data and b"\r" not in data and not self._ends_with_cr():
            return
        whole = b"".join(self._pieces)
        # A CR at the end may be the first half of a CR LF.
        held = b"\r" if whole.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(whole[: len(whole) - len(held)])
        self._pieces = [rest + held]
        for line in lines:
            yield from self._take(line)
        if not self._data:
            self._size = len(self._pieces[0])

    def _ends_with_cr(self) -> bool:
        return len(self._pieces) > 1 and self._pieces[-2].endswith(b"\r")

    def end(self) -> Iterator[tuple[str, str]]:
        """Yield what the last bytes hold, if they lack the empty line that ends an event."""
        rest = b"".join(self._pieces)
        self._pieces = []
        if rest.strip():
            yield from self._take(rest.rstrip(b"\r"))
        yield from self._take(b"")

    def _take(self, line: bytes) -> Iterator[tuple[str, str]]:
        if not line:
            if self._data:
                yield self._name, "\n".join(self._data)
            self._name = ""
            self._data = []
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
