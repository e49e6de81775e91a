"""One model call over HTTP: its tries, its deadlines, and what becomes of whatever is answered.

A try may be repeated while nothing of a reply has come: after 429, 5xx and failed connections, with
growing pauses or after what Retry-After asks for, all within the call's total time. After the first
token nothing is repeated here: the text was shown, and the turn decides. A reply counts only when it is
whole (:mod:`netclawd.adapters.providers.reply`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from netclawd import __version__
from netclawd.adapters.providers.events import EventParser
from netclawd.adapters.providers.refusals import Server, Verdict
from netclawd.adapters.providers.reply import FailedError, ReplyUnderWay, UnfitError, read_json
from netclawd.adapters.providers.retry_after import read_retry_after
from netclawd.core.session import ModelReply, ModelRequest
from netclawd.core.settings import ProviderSettings
from netclawd.errors import ConfigMeaningError
from netclawd.ports import Cancel, Cancelled

if TYPE_CHECKING:
    from netclawd.adapters.providers.deadlines import Deadlines, Line
    from netclawd.adapters.providers.transport import Answer, Transport

_log = logging.getLogger(__name__)

#: Bytes of a whole answer at most, and of an error's body that are read.
LIMIT_BYTES = 256 * 1024 * 1024
ERROR_BYTES = 64 * 1024
#: Seconds that are waited for the rest of an error's body, and behind a whole reply.
ERROR_TIMEOUT_S = 5.0
REST_TIMEOUT_S = 0.2
#: Pauses before another try, seconds: the first, and the longest whoever asks for it.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
#: Tries that cost nothing: on kept connections that turn out to be closed, and without what is refused.
MOST_FREE_TRIES = 24


class Reader(Protocol):
    """Reads one reply of a wire format into a ReplyUnderWay."""

    def take(self, name: str, data: str) -> None:
        """Take an event; UnfitError or FailedError where it is no part of a reply."""

    def take_whole(self, value: Mapping[str, Any]) -> None:
        """Take the JSON of a whole reply; the same errors."""


class Wire(Protocol):
    """A wire format and the server that speaks it."""

    @property
    def url(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def body(self, request: ModelRequest) -> Mapping[str, Any]: ...

    def reader(self, reply: ReplyUnderWay) -> Reader: ...

    def concede(self, body: str) -> None:
        """Do without what the server says that it refuses."""


def common_headers() -> dict[str, str]:
    """Return what every wire format sends."""
    return {
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"netclawd/{__version__}",
    }


def output_limit(request: ModelRequest, settings: ProviderSettings) -> int:
    """Return how many tokens a reply may have: what the request wants, within the setting."""
    wanted, most = request.options.get("max_tokens"), settings.max_output_tokens
    return min(wanted, most) if isinstance(wanted, int) else most


class _FailedTryError(Exception):
    def __init__(self, verdict: Verdict, *, free: bool = False) -> None:
        super().__init__(verdict.error.slug)
        self.verdict = verdict
        #: Worth another try at once that counts for nothing.
        self.free = free


class Caller:
    """Makes the calls of one provider, from any thread; implements :class:`netclawd.ports.Provider`."""

    def __init__(self, settings: ProviderSettings, wire: Wire, key: str) -> None:
        _check_key(key, f"providers.{settings.name}.api_key")
        self._settings = settings
        self._wire = wire
        place = _find_place(wire.url, f"providers.{settings.name}.base_url")
        self._server = Server(settings.name, place, settings.model, key)
        self._lock = threading.Lock()
        self._made: tuple[Transport, Deadlines] | None = None

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        total_at = time.monotonic() + self._settings.total_timeout_s
        tries = free = 0
        while True:
            try:
                return self._try(request, on_text, cancel, total_at)
            except _FailedTryError as failed:
                verdict = failed.verdict
                may_be_free = failed.free and free < MOST_FREE_TRIES
            if may_be_free:
                free += 1
                continue
            pause_s = self._pause(verdict, tries)
            if pause_s is None or time.monotonic() + pause_s >= total_at:
                raise self._told(verdict, tries)
            tries += 1
            _log.info(
                "model call: %s, tried again in %.1f s (%d of %d)",
                verdict.error.slug,
                pause_s,
                tries,
                self._settings.retries,
            )
            if cancel.wait(pause_s):
                raise Cancelled

    def close(self) -> None:
        """Close the connections that are kept; another call makes new ones."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[0].close()

    def _pause(self, verdict: Verdict, tries: int) -> float | None:
        """Return how long to wait before another try, None for no other try."""
        if not verdict.again or tries >= self._settings.retries:
            return None
        asked_s = verdict.retry_after_s
        if asked_s is not None:
            # Not all of those that were sent away at once come back at once.
            return asked_s + random.uniform(0, 0.1) if asked_s <= LONGEST_PAUSE_S else None  # noqa: S311
        growing_s = min(FIRST_PAUSE_S * 2.0**tries, LONGEST_PAUSE_S)
        return growing_s * random.uniform(0.5, 1.0)  # noqa: S311

    def _told(self, verdict: Verdict, tries: int) -> Exception:
        error = verdict.error
        asked_s = verdict.retry_after_s
        if verdict.again and asked_s is not None and asked_s > LONGEST_PAUSE_S:
            error.what = f"{error.what} It asks to come back in {asked_s:.0f} s."
        elif tries:
            error.what = f"{error.what} It was asked {tries + 1} times."
        return error

    def _connections(self) -> tuple[Transport, Deadlines]:
        """Return what makes connections; its library is imported with the first call, if not before."""
        from netclawd.adapters.providers.deadlines import Deadlines
        from netclawd.adapters.providers.transport import Transport

        with self._lock:
            if self._made is None:
                self._made = (Transport(), Deadlines())
            return self._made

    # -- one try

    def _try(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        cancel: Cancel,
        total_at: float,
    ) -> ModelReply:
        from netclawd.adapters.providers.deadlines import Line

        transport, deadlines = self._connections()
        body = self._encode(request)
        reply = ReplyUnderWay(on_text)
        with Line(deadlines, total_at) as line:
            take_back = cancel.on_set(line.cancel)
            try:
                answer = self._ask(transport, line, body)
                try:
                    if answer.status != 200:
                        self._refuse(answer, line, lambda: self._encode(request) != body)
                    self._read(answer, line, reply)
                finally:
                    answer.finish()
            except _FailedTryError:
                # What the socket's end looked like says nothing when it was we who ended it.
                self._raise_if_cut(line)
                raise
            finally:
                take_back()
            if not reply.whole:
                self._raise_if_cut(line)
                raise _FailedTryError(self._server.cut(reply.begun, ""))
        return reply.result()

    def _ask(self, transport: Transport, line: Line, body: bytes) -> Answer:
        from netclawd.adapters.providers.transport import UnreachableError

        settings = self._settings
        timeouts_s = settings.connect_timeout_s, settings.first_byte_timeout_s
        try:
            return transport.post(line, self._wire.url, self._wire.headers, body, timeouts_s)
        except UnreachableError as error:
            verdict = self._server.unreachable(error.why, again=error.again)
            # The server closed a kept connection when we wrote to it: nothing was asked yet.
            raise _FailedTryError(verdict, free=line.reused and error.again) from None

    def _read(self, answer: Answer, line: Line, reply: ReplyUnderWay) -> None:
        pieces = self._pieces(answer, line, reply)
        reader = self._wire.reader(reply)
        try:
            kind, pieces = _tell_kind(answer, pieces)
            if kind == "events":
                _read_events(pieces, reader, reply)
            else:
                reader.take_whole(read_json(b"".join(pieces).decode("utf-8", "replace")))
        except UnfitError as unfit:
            raise _FailedTryError(self._server.unfit(str(unfit))) from None
        except FailedError as failed:
            verdict = self._server.judge(failed.status, failed.body)
            if reply.begun:
                verdict = Verdict(verdict.error)
            raise _FailedTryError(verdict) from None
        self._read_rest(answer, line, REST_TIMEOUT_S)

    def _pieces(self, answer: Answer, line: Line, reply: ReplyUnderWay) -> Iterator[bytes]:
        """Yield the body as it comes; each piece is a sign of life."""
        from netclawd.adapters.providers.deadlines import Cut
        from netclawd.adapters.providers.transport import BrokenOffError

        settings, size = self._settings, 0
        while True:
            try:
                piece = answer.read()
            except BrokenOffError:
                if reply.whole:
                    return
                how = ": the connection broke"
                raise _FailedTryError(self._server.cut(reply.begun, how)) from None
            if not piece:
                return
            size += len(piece)
            if size > LIMIT_BYTES:
                raise UnfitError(f"more than {LIMIT_BYTES // 1024 // 1024} MiB")
            yield piece
            if reply.begun:
                line.allow(Cut.IDLE, settings.idle_timeout_s)
            else:
                # A model that is being loaded, or reads a long history, says nothing for long.
                line.allow(Cut.FIRST_BYTE, settings.first_byte_timeout_s)

    def _encode(self, request: ModelRequest) -> bytes:
        # Half a surrogate pair is no text: servers fail on it.
        return json.dumps(self._wire.body(request), ensure_ascii=False).encode(errors="replace")

    def _refuse(self, answer: Answer, line: Line, is_stale: Callable[[], bool]) -> None:
        """Raise what an answer means that is no reply; ``is_stale``: would we ask otherwise by now?"""
        if 300 <= answer.status < 400:
            location = answer.headers.get("Location", "")
            raise _FailedTryError(self._server.redirected(answer.status, location))
        if answer.status < 400:
            raise _FailedTryError(self._server.unfit(f"status {answer.status}"))
        body = self._read_rest(answer, line, ERROR_TIMEOUT_S).decode("utf-8", "replace")
        free = False
        if answer.status in (400, 422):
            self._wire.concede(body)
            free = is_stale()
        asked_s = read_retry_after(answer.headers)
        raise _FailedTryError(self._server.judge(answer.status, body, asked_s), free=free)

    def _read_rest(self, answer: Answer, line: Line, seconds: float) -> bytes:
        """Return what comes in time of a body's rest; read to its end, the connection can be kept."""
        from netclawd.adapters.providers.deadlines import Cut
        from netclawd.adapters.providers.transport import BrokenOffError

        line.allow(Cut.REST, seconds)
        body = b""
        # Too late, or broken off: the connection is lost, and nothing else depends on it.
        with contextlib.suppress(BrokenOffError):
            while len(body) < ERROR_BYTES and (piece := answer.read()):
                body += piece
        return body[:ERROR_BYTES]

    def _raise_if_cut(self, line: Line) -> None:
        """Raise what the end of the line means, if it was we who ended it."""
        from netclawd.adapters.providers.deadlines import Cut

        settings, late = self._settings, self._server.late
        match line.why:
            case Cut.CANCELLED:
                raise Cancelled
            case Cut.CONNECT:
                verdict = late(
                    "could not be reached within",
                    "connect_timeout_s",
                    settings.connect_timeout_s,
                    again=True,
                )
            case Cut.FIRST_BYTE:
                verdict = late(
                    "did not begin to reply within",
                    "first_byte_timeout_s",
                    settings.first_byte_timeout_s,
                )
            case Cut.IDLE:
                verdict = late(
                    "paused in its reply for more than", "idle_timeout_s", settings.idle_timeout_s
                )
            case Cut.TOTAL:
                verdict = late(
                    "did not end its reply within", "total_timeout_s", settings.total_timeout_s
                )
            case _:
                return
        raise _FailedTryError(verdict) from None


def _find_place(url: str, setting: str) -> str:
    """Return scheme, host and port; ConfigMeaningError where there are none to connect to."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigMeaningError(
            f"{setting} names no server to connect to.",
            "Write it like https://models.example.org/v1 or http://127.0.0.1:11434/v1.",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _check_key(key: str, setting: str) -> None:
    """Raise ConfigMeaningError for a key that no header can carry."""
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigMeaningError(
            f"The key that {setting} refers to can't be sent: it has characters no key has.",
            "See that the file or variable holds the key alone, on one line.",
        )


def _tell_kind(answer: Answer, pieces: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """Tell a stream from one JSON object, by the type or by how it begins."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnfitError("a compressed body, which nobody asked for")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return "events", pieces
    if kind == "application/json":
        return "json", pieces
    if kind not in ("", "text/plain", "application/octet-stream"):
        raise UnfitError(f"the content type {kind[:60]!a}")
    first = b""
    for piece in pieces:
        first += piece
        if len(first.lstrip()) >= 6:
            break
    rest = _chain(first, pieces)
    if first.lstrip().startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        return "events", rest
    if first.lstrip().startswith(b"{"):
        return "json", rest
    raise UnfitError("plain text" if first.strip() else "nothing")


def _chain(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from pieces


def _read_events(pieces: Iterator[bytes], reader: Reader, reply: ReplyUnderWay) -> None:
    """Read a stream up to its marker or its end."""
    parser = EventParser()
    for piece in pieces:
        for name, data in parser.feed(piece):
            reader.take(name, data)
            if reply.ended:
                return
    for name, data in parser.end():
        if not reply.ended:
            reader.take(name, data)
