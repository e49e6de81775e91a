"""What is no proper request, as bytes, with the answer that each must get; ``{}`` stands for a session."""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE = b'{"text": "hi"}'
MESSAGES = "/api/sessions/{}/messages"


@dataclass(frozen=True)
class Bad:
    #: ``{}`` stands for the session.
    sent: bytes
    status: int
    slug: str = "bad-request"
    #: The connection goes on behind the answer.
    kept: bool = False


def head(method: str, path: str, *fields: str, version: str = "HTTP/1.1") -> bytes:
    """Render a head."""
    lines = [f"{method} {path} {version}", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def get(*fields: str, path: str = "/api/health/live", version: str = "HTTP/1.1") -> bytes:
    return head("GET", path, *fields, version=version)


def post(*fields: str, body: bytes = MESSAGE, kind: str = "application/json") -> bytes:
    """Render a message with these fields of framing."""
    return head("POST", MESSAGES, f"Content-Type: {kind}", *fields) + body


def message(body: bytes, *fields: str, kind: str = "application/json") -> bytes:
    """Render a message that is framed well."""
    return post(f"Content-Length: {len(body)}", *fields, body=body, kind=kind)


def chunked(body: bytes, *fields: str) -> bytes:
    return post("Transfer-Encoding: chunked", *fields, body=body)


CHUNK = b"e\r\n" + MESSAGE + b"\r\n"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(256))[::3]

BAD: dict[str, Bad] = {
    # -- what speaks something else
    "tls": Bad(TLS_HELLO, 400),
    "tls with a blank line in it": Bad(TLS_HELLO[:11] + b"\r\n\r\n", 400),
    "ssl 2": Bad(b"\x80\x2e\x01\x00\x02" + bytes(40), 400),
    "ssh": Bad(b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "zeros": Bad(bytes(1000), 400),
    "zeros and a blank line": Bad(bytes(100) + b"\r\n\r\n", 400),
    "redis": Bad(b"*1\r\n$4\r\nPING\r\n", 400),
    "words": Bad(b"hello?\r\n", 400),
    "http/0.9": Bad(b"GET /api/health/live\r\n", 400),
    "http/0.9 with a blank line": Bad(b"GET /api/health/live\r\n\r\n", 400),
    "http/2 preface": Bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 505, "http-version-not-supported"),
    "http/2": Bad(get(version="HTTP/2.0"), 505, "http-version-not-supported"),
    "http/9.9": Bad(get(version="HTTP/9.9"), 505, "http-version-not-supported"),
    "http/11": Bad(get(version="HTTP/11"), 400),
    "https": Bad(get(version="HTTPS/1.1"), 400),
    # -- request lines
    "lower case": Bad(head("get", "/api/health/live"), 400),
    "no method": Bad(b" /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "parenthesis in the method": Bad(head("G(T", "/"), 400),
    "unknown method": Bad(head("BREW", MESSAGES), 501, "not-implemented", kept=True),
    "long method": Bad(head("G" * 1000, "/"), 501, "not-implemented", kept=True),
    "connect": Bad(head("CONNECT", "localhost:80"), 404, "not-found", kept=True),
    "trace": Bad(head("TRACE", "/api/health/live"), 405, "method-not-allowed", kept=True),
    "delete": Bad(head("DELETE", MESSAGES), 405, "method-not-allowed", kept=True),
    "two spaces": Bad(b"GET  /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "four words": Bad(b"GET / now HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "zero in the target": Bad(get(path="/\0"), 400),
    "8 bits in the target": Bad(get(path="/\xff"), 400),
    "bracket in the target": Bad(get(path="http://[::1/api/health/live"), 400),
    "target of another host": Bad(get(path="http://evil.example/"), 403, "forbidden-host", kept=True),
    "long target": Bad(get(path="/" + "x" * 70_000), 431, "headers-too-large"),
    "dots": Bad(get(path="/../../etc/passwd"), 404, "not-found", kept=True),
    "percent": Bad(get(path="/api/sessions/%zz%00%ff"), 404, "not-found", kept=True),
    # -- headers
    "10,000 headers": Bad(get(*(f"X-{number}: x" for number in range(10_000))), 431, "headers-too-large"),
    "a head without an end": Bad(get()[:-2] + b"X: " + b"x" * 200_000, 431, "headers-too-large"),
    "no host": Bad(b"GET /api/health/live HTTP/1.1\r\n\r\n", 400, kept=True),
    "two hosts": Bad(get("Host: evil.example"), 403, "forbidden-host", kept=True),
    "bracket in the host": Bad(b"GET / HTTP/1.1\r\nHost: [::\r\n\r\n", 403, "forbidden-host", kept=True),
    "empty origin": Bad(get("Origin: "), 403, "forbidden-origin", kept=True),
    "no colon": Bad(get("Nothing"), 400),
    "no name": Bad(get(": x"), 400),
    "space before the colon": Bad(get("X : x"), 400),
    "zero in a header": Bad(get("X: a\0b"), 400),
    "zero in a name": Bad(get("X\0: b"), 400),
    "bare CR": Bad(get("X: a\rb"), 400),
    "bare LF": Bad(get("X: a\nY: b"), 400),
    "bare LF everywhere": Bad(b"GET /api/health/live HTTP/1.1\nHost: localhost\n\n", 400),
    "folded from the start": Bad(b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    # -- framing
    "two lengths": Bad(post("Content-Length: 14", "Content-Length: 3"), 400),
    "two equal lengths": Bad(post("Content-Length: 14", "Content-Length: 14"), 400),
    "negative length": Bad(post("Content-Length: -1"), 400),
    "signed length": Bad(post("Content-Length: +14"), 400),
    "hexadecimal length": Bad(post("Content-Length: 0xe"), 400),
    "underscore in the length": Bad(post("Content-Length: 1_4"), 400),
    "empty length": Bad(post("Content-Length: "), 400),
    "length of 30 digits": Bad(post("Content-Length: " + "9" * 30), 413, "body-too-large"),
    "length of 5,000 digits": Bad(post("Content-Length: " + "9" * 5000), 400),
    "no length": Bad(post(body=b""), 400, kept=True),
    "unknown coding": Bad(chunked(b"", "Transfer-Encoding: br"), 501, "not-implemented"),
    "identity": Bad(post("Transfer-Encoding: identity"), 501, "not-implemented"),
    "almost chunked": Bad(post("Transfer-Encoding: xchunked"), 501, "not-implemented"),
    "chunked twice": Bad(chunked(CHUNK + b"0\r\n\r\n", "Transfer-Encoding: Chunked"), 400),
    "chunked in http/1.0": Bad(
        head("POST", MESSAGES, "Connection: keep-alive", "Transfer-Encoding: chunked", version="HTTP/1.0")
        + CHUNK + b"0\r\n\r\n", 400,
    ),
    "chunk of negative size": Bad(chunked(b"-1\r\n\r\n"), 400),
    "chunk size with a prefix": Bad(chunked(b"0x" + CHUNK + b"0\r\n\r\n"), 400),
    "chunk size with an underscore": Bad(chunked(b"0_" + CHUNK + b"0\r\n\r\n"), 400),
    "chunk size of words": Bad(chunked(b"fourteen\r\n"), 400),
    "chunk without an end": Bad(chunked(CHUNK[:-2] + b"XX0\r\n\r\n"), 400),
    "chunk size without an end": Bad(chunked(b"1" * (1 << 20) + b"1"), 413, "body-too-large"),
    "chunk extension without an end": Bad(chunked(b"1;" + b"x" * (1 << 20)), 413, "body-too-large"),
    "trailers without an end": Bad(chunked(CHUNK + b"0\r\n" + b"a: b\r\n" * 200_000), 413, "body-too-large"),
    "large body": Bad(message(b" " * (1 << 20) + b"{}"), 413, "body-too-large"),
    # -- bodies
    "another kind": Bad(message(MESSAGE, kind="text/xml"), 415, "unsupported-media-type", kept=True),
    "a kind of semicolons": Bad(message(MESSAGE, kind=";;;"), 415, "unsupported-media-type", kept=True),
    "coded": Bad(message(MESSAGE, "Content-Encoding: gzip"), 415, "unsupported-media-type", kept=True),
    "no json": Bad(message(b'{"text": '), 400, kept=True),
    "not utf-8": Bad(message(b'{"text": "\xff\xfe"}'), 400, kept=True),
    "utf-16": Bad(message(MESSAGE.decode().encode("utf-16")), 400, kept=True),
    "half a surrogate pair": Bad(message(b'{"text": "\xed\xa0\x80"}'), 400, kept=True),
    "deep arrays": Bad(message(b"[" * 500_000), 400, kept=True),
    "deep objects": Bad(message(b'{"a":' * 200_000), 400, kept=True),
    "number of 100,000 digits": Bad(message(b'{"text": ' + b"9" * 100_000 + b"}"), 400, kept=True),
    "unusable key": Bad(message(MESSAGE, "Idempotency-Key: \xff"), 400, kept=True),
    "unusable last event": Bad(
        get("Accept: text/event-stream", "Last-Event-ID: -1", path="/api/sessions/{}/events"), 400, kept=True
    ),
    "unusable parameter": Bad(get(path="/api/sessions?limit=%ff"), 400, kept=True),
}  # fmt: skip

#: Ended by the client in the middle.
INCOMPLETE: dict[str, bytes] = {
    "half a line": b"GET /api/hea",
    "half a head": get()[:-2],
    "half a body": message(MESSAGE)[:-1],
    "half a size": chunked(b"e"),
    "half a chunk": chunked(CHUNK[:-5]),
    "chunks without the last": chunked(CHUNK),
    "half a trailer": chunked(CHUNK + b"0\r\nX: "),
    "a chunk of 16 exbibytes": chunked(b"ffffffffffffffff\r\nx"),
}
