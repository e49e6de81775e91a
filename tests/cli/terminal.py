"""A person at a terminal: reads what ``netclaw`` prints there, and types."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Self

import pexpect

from tests.waiting import scaled

NETCLAW = "from netclawd.cli.client import main; main()"
#: What a terminal does and a person doesn't read: colours, a line that is drawn again.
_DRIVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """Runs a command of ``netclaw`` at a terminal. Use as a context manager."""

    def __init__(
        self, *words: str, environment: Mapping[str, str] | None = None, first: str = "pass"
    ) -> None:
        """``first``: a statement that is executed before the command."""
        self.child: Any = pexpect.spawn(
            sys.executable,
            ["-c", f"{first}; {NETCLAW}", *words],
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            encoding="utf-8",
            codec_errors="replace",
            timeout=scaled(30.0),
            dimensions=(60, 200),
        )
        self.child.delaybeforesend = None
        #: All that was printed so far, as it came.
        self.raw = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close(force=True)

    @property
    def text(self) -> str:
        """What a person has read."""
        return _DRIVES.sub("", self.raw)

    def read_to(self, words: str) -> None:
        """Read until these words have come."""
        try:
            self.child.expect_exact(words)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            raise AssertionError(
                f"{words!r} did not come ({type(error).__name__}):\n{self.raw}{self.child.before}"
            ) from None
        self.raw += self.child.before + self.child.after

    def answer(self, question: str, text: str = "") -> None:
        """Wait for a question and type an answer."""
        self.ask(question)
        self.child.sendline(text)

    def ask(self, question: str) -> None:
        """Wait until a question is asked, and the answer is read."""
        self.read_to(f"  {question}")
        self.read_to(": ")

    def confirm(self, text: str = "") -> None:
        """Answer the one question after the diff."""
        self.read_to("Write this")
        self.read_to("]: ")
        self.child.sendline(text)

    def press(self, key: str) -> None:
        """Press Ctrl and a key."""
        self.child.sendcontrol(key)

    def end(self) -> int:
        """Read to the end; return the exit code, or minus the signal."""
        self.child.expect(pexpect.EOF)
        self.raw += self.child.before
        self.child.close()
        code: int | None = self.child.exitstatus
        return -int(self.child.signalstatus) if code is None else code
