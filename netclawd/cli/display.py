"""Where what a session says appears: replies on standard output, remarks beside them.

On a terminal both are one column, with the remarks in another shade; NO_COLOR (no-color.org) and
TERM=dumb turn that off. Elsewhere standard output is the replies alone, each printed when it is whole,
so that one that was repeated differently stands there once; remarks go to standard error.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

from netclawd.cli.output import note, visible
from netclawd.core.remarks import WIDTH
from netclawd.core.screen import DIFFERS, Column, Kind, Piece, as_it_is

#: SGR parameters (ECMA-48) of a line that is no reply; dim where nothing else is said.
_SHADES = {Kind.TROUBLE: "31", Kind.ASK: "1", Kind.DECIDED: "2"}
#: Narrower terminals get lines that wrap, characters.
_LEAST_WIDTH = 40


def at_terminal() -> bool:
    """Whether a terminal shows standard output."""
    return sys.stdout.isatty()


def in_colour() -> bool:
    """Whether standard output takes colours, and nobody said no."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return at_terminal() and wanted


def paint(kind: Kind, line: str) -> str:
    """Set a line off from the replies."""
    return f"\x1b[{_SHADES.get(kind, '2')}m{line}\x1b[0m"


class Display:
    """One session's output."""

    def __init__(self) -> None:
        self.terminal = at_terminal()
        colour = paint if in_colour() else as_it_is
        self._column = Column(visible, colour) if self.terminal else Column()
        #: Text of a reply that is not whole, where no terminal shows it meanwhile.
        self._partial = ""

    @property
    def columns(self) -> int:
        """Columns of the terminal, as wide as it is by now."""
        return shutil.get_terminal_size().columns if self.terminal else WIDTH

    @property
    def width(self) -> int:
        """Room for a remark, characters."""
        return max(_LEAST_WIDTH, self.columns - len("—  —")) if self.terminal else WIDTH

    def show(self, pieces: Iterable[Piece]) -> None:
        if self.terminal:
            sys.stdout.write(self._column.render(pieces))
            sys.stdout.flush()
            return
        for piece in pieces:
            self._put(piece)

    def remark(self, text: str, kind: Kind = Kind.NOTE) -> None:
        """Say something of our own."""
        self.show([Piece(kind, text)])

    def prompt(self, text: str) -> None:
        """Begin a line that a person is to end; it is no part of the replies."""
        stream = sys.stdout if self.terminal else sys.stderr
        stream.write(visible(text))
        stream.flush()

    def _put(self, piece: Piece) -> None:
        match piece.kind:
            case Kind.TEXT:
                self._partial += piece.text
            case Kind.END:
                sys.stdout.write(self._partial.removesuffix("\n") + "\n")
                sys.stdout.flush()
                self._partial = ""
            case Kind.TURN_ENDED:
                if piece.text != "parked":  # nothing makes it whole any more
                    self._partial = ""
            case Kind.PAUSE | Kind.WAITS:
                pass
            case Kind.INPUT:
                note(visible(f"> {piece.text}"))
            case _:
                if piece.text == DIFFERS:
                    self._partial = ""
                note(visible(" ".join(piece.text.split())))
