"""Hostile and random HTTP: strategies of bytes and documents, and what any answer to them must satisfy."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.http.bad_requests import BAD, CHUNK, INCOMPLETE, MESSAGE, chunked, get, message
from tests.waiting import scaled

#: Longest conversation, seconds; what is longer hangs.
_ANSWER_S = 15.0
_ANSWER = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9] ")
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)", re.IGNORECASE)

GOOD = [
    get(),
    get(path="http://localhost/api/health/live"),
    get("Connection: close", path="/api/sessions/{}/events?after=0&limit=3"),
    get("Connection: keep-alive", version="HTTP/1.0"),
    message(MESSAGE),
    message(MESSAGE, "Idempotency-Key: key", "Expect: 100-continue"),
    chunked(CHUNK + b"0\r\n\r\n"),
    chunked(b"1;a=b\r\n{\r\nd\r\n" + MESSAGE[1:] + b"\r\n0\r\nX: y\r\n\r\n"),
]
SEEDS = [*GOOD, *(bad.sent[:2000] for bad in BAD.values()), *INCOMPLETE.values()]

_PIECES = st.sampled_from([
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"\xff", b"%",
    b"..", b"[", b"\x85", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST ", b"HEAD ",
    b"Host: localhost\r\n", b"Host: \r\n", b"Content-Length: 0\r\n", b"Content-Length: 14\r\n",
    b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", CHUNK, MESSAGE,
    b"X-Forwarded-Host: x\r\n", b"Origin: null\r\n", b"Range: bytes=0-\r\n", b"Cookie: a=\"\r\n",
    b"If-Modified-Since: x\r\n", b"Forwarded: for=;\r\n", b"X-Forwarded-For: ,\r\n",
    b"?a=%&a[]=1;b", b"#", b"*",
])  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Take a request and cut, repeat, overwrite and insert in it, a few times."""
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        end = min(len(raw), at + draw(st.integers(0, 40)))
        piece = draw(_PIECES | st.binary(max_size=12))
        match draw(st.sampled_from(["insert", "overwrite", "cut", "repeat", "flip"])):
            case "insert":
                raw[at:at] = piece
            case "overwrite":
                raw[at : at + len(piece)] = piece
            case "cut":
                del raw[at:end]
            case "repeat":
                raw[at:at] = raw[at:end] * draw(st.integers(1, 50))
            case "flip" if at < len(raw):
                raw[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(raw)


_FIELDS = st.tuples(
    st.sampled_from([
        "Host", "Content-Length", "Transfer-Encoding", "Content-Type", "Content-Encoding",
        "Connection", "Expect", "Origin", "Accept", "Idempotency-Key", "Last-Event-ID",
        "X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X_Y", "Upgrade", "TE", "Trailer",
        "Cookie", "Range", "If-None-Match", "Date", "Authorization",
    ]),
    st.sampled_from([
        "", "localhost", "localhost:1", "[::1]", "0", "3", "14", "chunked", "gzip", "close",
        "keep-alive", "null", "application/json", "application/json; charset=utf-16",
        "100-continue", "*/*", "text/html", "websocket", "x" * 300, "bytes=0-1", "\xff", '"',
        "a=b; c", "99999999999999999999",
    ]),
)  # fmt: skip
_TARGETS = st.sampled_from([
    "/", "*", "//", "/api", "/api/health/live", "/api/health/ready", "/api/status",
    "/api/restarts?limit=1", "/openapi.json", "/api/sessions", "/api/sessions/{}",
    "/api/sessions/{}/messages", "/api/sessions/{}/events", "http://localhost/api/status",
    "/api/sessions/%2e%2e", "/api/sessions/{}/turns/%00/cancel", "?", "/%", "x:y",
])  # fmt: skip
_METHODS = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "CONNECT"]
)
_VERSIONS = st.sampled_from(
    ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0"]
)


@st.composite
def composed(draw: st.DrawFn) -> bytes:
    """Compose a request of parts that are each likely."""
    line = f"{draw(_METHODS)} {draw(_TARGETS)} {draw(_VERSIONS)}"
    fields = [f"{name}: {value}" for name, value in draw(st.lists(_FIELDS, max_size=6))]
    body = draw(
        st.sampled_from([b"", MESSAGE, b"{}", CHUNK + b"0\r\n\r\n"]) | st.binary(max_size=40)
    )
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


RAW = st.lists(mutated() | composed() | st.binary(max_size=200), min_size=1, max_size=3).map(
    b"".join
)

_TEXTS = st.text(max_size=20) | st.text(
    st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF), max_size=2
)
#: Documents of JSON, and what Python's json writes beyond it (NaN, halves of surrogate pairs).
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_TEXTS | st.just("text"), inner, max_size=4)
    ),
    max_leaves=12,
)
_VALUES = st.sampled_from(
    ["", "0", "1", "-1", "1.5", "x", "%00", "%ff", "9" * 19, "9" * 30, "nan", "1e9"]
)
_PAIRS = st.tuples(st.sampled_from(["after", "limit", "cursor", "x"]), _VALUES).map("=".join)
_WAITS = st.sampled_from(["0", "-1", "nan", "inf", "1e-3", "1e9", "x", "%00"]).map(
    "wait_s={}".format
)
_QUERY = st.lists(_PAIRS | _WAITS, max_size=3).map(lambda pairs: "?" + "&".join(pairs))
_IDS = st.sampled_from(
    ["{}", "ses_0", "%00", "%ff", "%F0%9F%A6%80", "..", "x" * 300, "a%0d%0ab", "%ed%a0%80"]
)
_ROUTES = st.one_of(
    st.sampled_from(["/api/health/live", "/api/health/ready", "/api/status", "/openapi.json"]),
    st.just("/api/restarts"),
    st.just("/api/sessions"),
    st.just("/api/reminders"),
    _IDS.map(lambda one: f"/api/reminders/{one}"),
    st.tuples(_IDS, st.sampled_from(["run", "pause", "resume"])).map(
        lambda two: f"/api/reminders/{two[0]}/{two[1]}"
    ),
    _IDS.map(lambda one: f"/api/hooks/{one}"),
    _IDS.map(lambda one: f"/api/sessions/{one}"),
    _IDS.map(lambda one: f"/api/sessions/{one}/messages"),
    st.just("/api/sessions/{}/messages"),
    _IDS.map(lambda one: f"/api/sessions/{one}/events"),
    st.tuples(_IDS, _IDS).map(lambda two: f"/api/sessions/{two[0]}/turns/{two[1]}/cancel"),
)  # fmt: skip
_WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=9)
_KEYS = st.none() | st.sampled_from(["k1", "k2", "", "x" * 256]) | _WORDS


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, str, Any, dict[str, str | None]]:
    """Draw method, path, document and headers of a request that is well formed as HTTP."""
    document = draw(
        DOCUMENTS
        | st.fixed_dictionaries({"text": DOCUMENTS})
        | st.fixed_dictionaries({"text": _TEXTS})
        | st.sampled_from(["in_s", "at", "every_s", "cron"]).flatmap(
            lambda name: st.fixed_dictionaries({"text": _TEXTS, name: DOCUMENTS, "tz": _TEXTS})
        )
    )
    body = document if draw(st.booleans()) else None
    method = draw(st.sampled_from(["GET", "POST", "POST", "POST", "HEAD", "PUT", "DELETE"]))
    return method, draw(_ROUTES) + draw(_QUERY), body, {"Idempotency_Key": draw(_KEYS)}


@dataclass(frozen=True)
class Heard:
    """What came back until the end of the connection."""

    raw: bytes
    #: The connection became a stream of events, which has no end.
    stream: bool

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """Take the answers apart; those to HEAD have a length and no body."""
        rest = self.raw
        while rest:
            head, end, rest = rest.partition(b"\r\n\r\n")
            assert end, f"a head without an end: {head!r}"
            assert _ANSWER.match(head), head
            length = _LENGTH.search(head)
            if length is not None and not rest.startswith(b"HTTP/1."):
                body, rest = rest[: int(length[1])], rest[int(length[1]) :]
                assert len(body) in (0, int(length[1])), (
                    f"a body that is cut off: {head!r} {body!r}"
                )
            elif self.stream and b"text/event-stream" in head:
                return
            else:
                body = b""
            yield int(head.split()[1]), body


def talk(address: tuple[str, int], raw: bytes, *, end: bool = True) -> Heard:
    """Send these bytes, end our side, and read to the end; TimeoutError if it doesn't come."""
    with socket.create_connection(address, timeout=scaled(_ANSWER_S)) as sock:
        sender = threading.Thread(target=_send, args=(sock, raw, end))
        sender.start()
        heard = b""
        try:
            while piece := sock.recv(65536):
                heard += piece
                if b"\r\nContent-Type: text/event-stream" in heard:
                    return Heard(heard, stream=True)
        finally:
            sender.join()
    return Heard(heard, stream=False)


def _send(sock: socket.socket, raw: bytes, end: bool) -> None:
    try:
        sock.sendall(raw)
        if end:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        return  # It was refused before it was all sent.


def check_heard(heard: Heard) -> list[int]:
    """Assert what holds for every conversation; return the statuses."""
    statuses = []
    for status, body in heard.answers():
        statuses.append(status)
        assert status not in (500, 502, 504), (status, body)
        if status >= 400 and body:
            problem = json.loads(body)
            assert problem["status"] == status
            assert problem["type"].startswith("urn:netclaw:problem:")
            assert problem["detail"]
            assert problem.get("remedy"), problem
    return statuses
