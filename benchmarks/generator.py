"""A load generator in a process of its own: one thread, epoll, as little work per request as can be.

``closed``: N connections, each sends its next request when the answer is there.
``open``: requests are due at a fixed rate, whatever the server does; half over new connections, half
over kept ones. Latency counts from the instant at which a request was due.
``hold``: opens N event streams and holds them.

``closed`` ends when its time is over; ``open`` when its count is reached and its standard input has
ended; ``hold`` at the end of its standard input. Each prints one JSON object, ``hold`` as soon as all
streams are open.
"""

from __future__ import annotations

import argparse
import errno
import json
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: An answer that takes longer is a loss, seconds.
TIMEOUT_S = 15.0
CLOSE = b"Connection: close\r\n"


@dataclass
class Report:
    counts: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> str:
        return json.dumps(
            {
                "counts": dict(self.counts),
                "latencies_ms": [round(value, 2) for value in self.latencies_ms],
                "seconds": self.seconds,
            }
        )


class Exchange:
    """One connection and the request that is in progress on it."""

    __slots__ = ("due", "expect", "keep", "out", "received", "served", "sock")

    def __init__(self, address: tuple[str, int], *, keep: bool) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.keep = keep
        self.out = b""
        self.received = b""
        #: Length of the whole answer, 0 while it isn't known.
        self.expect = 0
        self.due = 0.0
        self.served = 0
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.sock.close()
            raise OSError(code, "connect")

    def begin(self, request: bytes, due: float) -> None:
        self.out, self.received, self.expect, self.due = request, b"", 0, due

    def read(self) -> str | None:
        """Read what is there; return an outcome when the exchange is over."""
        try:
            piece = self.sock.recv(65536)
        except BlockingIOError:
            return None
        except ConnectionRefusedError:
            return "refused"
        except ConnectionError:
            return "reset"
        if not piece:
            return "broken" if self.received else "empty"
        self.received += piece
        if not self.expect:
            self.expect = expected_length(self.received)
        return self.verdict() if self.expect and len(self.received) >= self.expect else None

    def verdict(self) -> str:
        head = self.received[:512].lower()
        status = head[9:12]
        if b"connection: close" in head:
            self.keep = False
        if status in (b"200", b"201", b"202"):
            return "ok"
        return "retry" if status == b"503" and b"retry-after:" in head else "status"


def expected_length(received: bytes) -> int:
    """Return the length of the whole answer, 0 while its head is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = received[:end].lower()
    start = head.find(b"content-length:")
    if start < 0:
        raise ValueError(f"an answer without a length: {received[:200]!r}")
    return end + 4 + int(head[start + 15 :].split(b"\r\n", 1)[0])


class Generator:
    def __init__(self, address: tuple[str, int], requests: Callable[[int], bytes]) -> None:
        self.address = address
        self.requests = requests
        self.report = Report()
        self.sent = 0
        self.poller = select.epoll()
        self.active: dict[int, Exchange] = {}
        self.idle: deque[Exchange] = deque()
        self.input_open = True
        self.poller.register(sys.stdin.fileno(), select.EPOLLIN)

    def send(self, exchange: Exchange | None, due: float, *, keep: bool) -> None:
        """Begin the next request, on this connection or on a new one."""
        request = self.requests(self.sent)
        self.sent += 1
        if not keep:
            request = request.replace(b"\r\n\r\n", b"\r\n" + CLOSE + b"\r\n", 1)
        if exchange is None:
            try:
                exchange = Exchange(self.address, keep=keep)
            except OSError:
                self.report.counts["refused"] += 1
                return
            self.poller.register(exchange.sock, select.EPOLLOUT)
        else:
            self.poller.modify(exchange.sock, select.EPOLLOUT)
        exchange.begin(request, due)
        self.active[exchange.sock.fileno()] = exchange

    def turn(self, timeout_s: float) -> list[Exchange]:
        """Wait for the network once; return the kept connections that became free."""
        free = []
        for number, event in self.poller.poll(max(0.0, timeout_s)):
            if number == sys.stdin.fileno():
                self.input_open = False
                self.poller.unregister(number)
                continue
            exchange = self.active.get(number)
            if exchange is None:
                # A kept connection that the server ended while it was idle: no request is lost.
                self._drop_idle(number)
                continue
            outcome = self._advance(exchange, event)
            if outcome is not None and self._finish(exchange, outcome):
                free.append(exchange)
        return free

    def _advance(self, exchange: Exchange, event: int) -> str | None:
        if event & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP) and exchange.out:
            try:
                sent = exchange.sock.send(exchange.out)
            except BlockingIOError:
                return None
            except ConnectionRefusedError:
                return "refused"
            except ConnectionError:
                return "reset"
            exchange.out = exchange.out[sent:]
            if not exchange.out:
                self.poller.modify(exchange.sock, select.EPOLLIN)
            return None
        return exchange.read()

    def _finish(self, exchange: Exchange, outcome: str) -> bool:
        """Count the outcome; return whether the connection can be used again."""
        del self.active[exchange.sock.fileno()]
        self.report.counts[outcome] += 1
        if outcome == "ok":
            self.report.latencies_ms.append((time.monotonic() - exchange.due) * 1000)
        exchange.served += 1
        if outcome in ("ok", "retry") and exchange.keep:
            self.poller.modify(exchange.sock, select.EPOLLIN)
            return True
        exchange.sock.close()
        return False

    def _drop_idle(self, number: int) -> None:
        for exchange in list(self.idle):
            if exchange.sock.fileno() == number:
                self.idle.remove(exchange)
                exchange.sock.close()
                self.report.counts["idle-ended"] += 1

    def expire(self, now: float) -> None:
        for exchange in [e for e in self.active.values() if now - e.due > TIMEOUT_S]:
            self._finish(exchange, "timeout")

    def close(self) -> None:
        for exchange in (*self.active.values(), *self.idle):
            exchange.sock.close()
        self.poller.close()


def run_closed(generator: Generator, connections: int, seconds: float) -> None:
    begun = time.monotonic()
    end = begun + seconds
    for _ in range(connections):
        generator.send(None, begun, keep=True)
    while (now := time.monotonic()) < end:
        free = generator.turn(end - now)
        now = time.monotonic()
        for exchange in free:
            generator.send(exchange, now, keep=True)
        for _ in range(connections - len(generator.active)):
            generator.send(None, now, keep=True)
    generator.report.seconds = time.monotonic() - begun


def run_open(generator: Generator, rate: float, count: int) -> None:
    """Go on until ``count`` requests were sent and standard input has ended."""
    begun = time.monotonic()
    while generator.sent < count or generator.input_open:
        now = time.monotonic()
        while (due := begun + generator.sent / rate) <= now:
            keep = generator.sent % 2 == 1
            kept = generator.idle.popleft() if keep and generator.idle else None
            generator.send(kept, due, keep=keep)
        generator.idle.extend(generator.turn(due - now))
        generator.expire(now)
    while generator.active:
        generator.idle.extend(generator.turn(0.1))
        generator.expire(time.monotonic())
    generator.report.seconds = time.monotonic() - begun


def run_hold(address: tuple[str, int], request: bytes, count: int) -> None:
    held = []
    for _ in range(count):
        stream = socket.create_connection(address, TIMEOUT_S)
        stream.sendall(request)
        held.append(stream)
    for stream in held:
        head = stream.recv(4096)
        if b" 200 " not in head[:20]:
            raise SystemExit(f"a stream was refused: {head[:200]!r}")
    print(json.dumps({"held": len(held)}), flush=True)
    sys.stdin.read()
    for stream in held:
        stream.close()


def build_request(method: str, path: str, body: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def cycle(requests: list[bytes]) -> Callable[[int], bytes]:
    return lambda number: requests[number % len(requests)]


def paths_of(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the path, or one for each session where it has a place for it."""
    for session in (arguments.sessions or "").split(",") if arguments.sessions else [""]:
        yield arguments.path.replace("{}", session)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["closed", "open", "hold"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/api/health/live")
    parser.add_argument("--sessions", help="ids, separated by commas, for {} in the path")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--body", default="")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    address = ("127.0.0.1", arguments.port)
    if arguments.mode == "hold":
        head = (
            f"GET {next(paths_of(arguments))} HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        run_hold(address, head.encode(), arguments.count)
        return
    requests = [build_request(arguments.method, p, arguments.body) for p in paths_of(arguments)]
    generator = Generator(address, cycle(requests))
    try:
        if arguments.mode == "closed":
            run_closed(generator, arguments.connections, arguments.seconds)
        else:
            run_open(generator, arguments.rate, arguments.count)
    finally:
        generator.close()
    print(generator.report.as_json())


def start_arguments(**options: Any) -> list[str]:
    """Return the command line of a generator."""
    mode = options.pop("mode")
    command = [sys.executable, "-m", "benchmarks.generator", mode]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return command


if __name__ == "__main__":
    main()
