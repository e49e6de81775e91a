"""Waitress's parser, stricter and quicker to refuse.

What can't become a request is refused as soon as its first line shows it, not when its sender gives up:
the hello of TLS has no blank line that waitress would wait for. What a proxy in front might read
otherwise than we do (two codings, a coding in an older version of HTTP) is refused, or ends the
connection behind the answer. What waitress lets escape as ValueError is a refusal too.
"""

from __future__ import annotations

import re
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import BadRequest, Error

#: RFC 9112 section 3: method, target, version. Bytes above 0x7f in a target are waitress's to refuse.
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~\x80-\xff]+ HTTP/([0-9])\.[0-9]")
_TOKEN_BEGINS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_CODINGS = re.compile(rb"^transfer-encoding[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
#: First byte of a TLS record of a handshake, and of SSL 2's hello.
_TLS = (0x16, 0x80)


class VersionNotSupported(Error):  # type: ignore[misc]  # noqa: N818 -- named as waitress's are
    """The request is of another major version of HTTP."""

    code = 505
    reason = "HTTP Version Not Supported"


class NotHttp(BadRequest):  # type: ignore[misc]
    """The connection speaks another protocol; says what to do."""

    remedy = "Speak HTTP/1.1: an http:// address, not https://."


def judge_line(line: bytes) -> Error | None:
    """Return why this is no request line of HTTP/1, None if it is one."""
    match = _LINE.fullmatch(line)
    if match is None:
        return BadRequest("Start line is invalid")
    if match[1] != b"1":
        return VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are spoken here")
    return None


def judge_beginning(begun: bytes) -> Error | None:
    """Return why no request can begin like this, None if one can."""
    if not _TOKEN_BEGINS.match(begun):
        what = "the hello of TLS" if begun[0] in _TLS else "a byte that begins no method"
        return NotHttp(f"The connection begins with {what}")
    line, newline, _rest = begun.partition(b"\n")
    if newline and not line.endswith(b"\r"):
        return BadRequest("The request line ends with a bare LF")
    return judge_line(line.rstrip()) if newline else None


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """Parses one request; doesn't invite a body that will not come or will not be taken."""

    woken = False
    #: With which the request has left its worker, to be run again.
    ticket: Any = None
    completed: bool
    error: Any
    #: Why the request line was refused, where waitress has no class for it.
    _refused: Error | None = None

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if not (self.completed or self.headers_finished):
            begun = self.header_plus.lstrip()
            self._refused = judge_beginning(begun) if begun else None
            self.completed = self._refused is not None
        if self._refused is not None:
            self.error = self._refused
        if self.completed:
            # Waitress would answer 100 and then wait for more of a request that is whole.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        self._refused = judge_beginning(header_plus)
        if self._refused is not None:
            raise ParsingError(self._refused.body)
        try:
            super().parse_header(header_plus)
        except ValueError:
            # An address without its bracket; a length of more digits than int() takes.
            raise ParsingError("The target or the Content-Length is invalid") from None
        self._judge_codings(header_plus)
        # Waitress compares the whole value; RFC 9112 section 9.6 has a list (libwww-perl sends one).
        wishes = self.headers.get("CONNECTION", "")
        asked = "," in wishes and "close" in {wish.strip().lower() for wish in wishes.split(",")}
        # Two lengths: a proxy may have believed the other one, so what follows isn't trusted (6.1).
        if asked or (self.chunked and "CONTENT_LENGTH" in self.headers):
            self.headers["CONNECTION"] = "close"

    def _judge_codings(self, header_plus: bytes) -> None:
        """Refuse what RFC 9112 section 6.1 forbids and waitress takes."""
        codings = b",".join(_CODINGS.findall(header_plus)).lower()
        if codings and self.version != "1.1":
            raise ParsingError("Transfer-Encoding belongs to HTTP/1.1")
        if codings.count(b"chunked") > 1:
            raise ParsingError("The body is chunked more than once")

    @property
    def begun(self) -> bool:
        """Whether more than blank lines has arrived."""
        return bool(self.headers_finished or self.header_plus.strip())
