"""What a counterpart may answer: replies as models make them, and everything that goes wrong with them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A piece of text, or what makes it at the moment when it is sent.
Piece = str | Callable[[], str]


def text_of(piece: Piece) -> str:
    return piece if isinstance(piece, str) else piece()


class Ending(enum.Enum):
    """How a streamed reply ends."""

    WHOLE = "finish reason and end marker"
    NO_MARKER = "finish reason, no end marker"
    NO_FINISH = "end marker, no finish reason"
    NEITHER = "neither, though the body ends as it should"
    CUT = "the connection is closed in the middle"
    RESET = "the connection is reset in the middle"
    STALL = "nothing more comes"
    ENDLESS = "the text goes on for ever"
    ERROR = "an error event"


#: Endings with which nothing follows the pieces.
CUT = (Ending.CUT, Ending.RESET, Ending.STALL)


class CallStyle(enum.Enum):
    """How a stream of chat completions brings tool calls."""

    FRAGMENTS = "arguments in fragments, the calls' fragments in turns"
    WHOLE = "each call in one piece"
    NO_INDEX = "each call in one piece, without an index"
    NO_ID = "each call in one piece, without an id"
    SAME_INDEX = "each call in one piece, all with index 0"
    OBJECT = "each call in one piece, the arguments a JSON object instead of a string"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Base of all."""

    #: Seconds before the first byte of the answer.
    first_byte_s: float = 0.0
    #: Close the connection behind the answer without saying so in it.
    close_after: bool = False


@dataclass(frozen=True)
class Call:
    name: str
    #: A string is sent as it is, JSON or not.
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None

    def text_of(self, dumps: Callable[[Any], str]) -> str:
        return self.arguments if isinstance(self.arguments, str) else dumps(dict(self.arguments))


@dataclass(frozen=True)
class Reply(Answer):
    """A model's reply."""

    #: A string is sent in words.
    text: str | Sequence[Piece] = "Hello from the model."
    calls: Sequence[Call] = ()
    reasoning: str = ""
    #: The wire's own word; None: what fits.
    finish: str | None = None
    #: Input and output tokens; None: words are counted.
    usage: tuple[int, int] | None = None
    #: Seconds between two pieces; None: the server's.
    pace_s: float | None = None
    #: Seconds between the head of the answer and its first piece.
    first_token_s: float = 0.0
    ending: Ending = Ending.WHOLE
    #: Pieces before the ending; None: all.
    after: int | None = None
    style: CallStyle = CallStyle.FRAGMENTS
    #: Send a ping (an SSE comment, or the event) before each piece.
    pings: bool = False
    #: Answer with one JSON object though a stream was asked for.
    unstreamed: bool = False
    content_type: str | None = None

    def pieces(self) -> list[Piece]:
        if not isinstance(self.text, str):
            return list(self.text)
        words = self.text.split(" ")
        return [w if n == 0 else f" {w}" for n, w in enumerate(words)] if self.text else []


@dataclass(frozen=True)
class Status(Answer):
    """An error in the wire's own form."""

    status: int
    message: str = "No."
    type: str = "scripted_error"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw(Answer):
    """Anything: a page of HTML, a redirect, half a JSON object."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Close the connection so many bytes before the end that Content-Length promises.
    missing_bytes: int = 0


@dataclass(frozen=True)
class Silent(Answer):
    """The request is read and never answered."""


@dataclass(frozen=True)
class Hangup(Answer):
    """The connection is closed instead of an answer."""

    reset: bool = False


@dataclass(frozen=True)
class Events(Answer):
    """A stream of server-sent events as they are, with pauses (seconds) between them."""

    items: Sequence[bytes | float] = ()
    #: Leave the chunked body without its end.
    cut: bool = False


def redirect(location: str, status: int = 307) -> Raw:
    return Raw(status=status, headers={"Location": location})
