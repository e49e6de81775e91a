"""Watches a session over the daemon's HTTP event stream, across restarts and changes of address.

The control socket stays where it is when the port moves, so after every end of the stream it is
asked for the address, and the stream is joined again with Last-Event-ID. What a reader does with
repeats is :mod:`netclawd.core.screen`'s part. A daemon without a TCP address is asked for durable
events over the control socket, which has no deltas.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from netclawd.adapters.control_client import ControlClient
from netclawd.core.values import frozen
from netclawd.errors import ControlError, NotFoundError, StoreClosedError

#: Heartbeats come every 15 s: a stream that is silent this long is dead, seconds.
SILENCE_S = 45.0
#: Seconds before the stream is joined again.
REJOIN_S = 0.1
#: Seconds to wait when the daemon has no room for another stream.
ROOM_S = 2.0
CONTROL_WAIT_S = 20.0
#: A daemon that answers on its control socket alone is given up after this, seconds.
JOIN_S = 90.0


class Kind(StrEnum):
    EVENT = "event"
    DELTA = "delta"
    #: Another generation serves now; ``data`` has its number.
    RESTARTED = "restarted"


@frozen
class Item:
    kind: Kind
    data: dict[str, Any]


@dataclass(slots=True)
class SessionStream:
    client: ControlClient
    session_id: str
    #: Number of the newest durable event that was given out.
    last_seq: int = 0
    #: Generation that was seen last.
    generation: int = 0
    #: Monotonic instant at which a stream was open last.
    _open_at: float = field(default=0.0, init=False)

    def items(self) -> Generator[Item, None, None]:
        """Yield events and deltas for ever; NotRunningError when the daemon stays away."""
        self._open_at = time.monotonic()
        while True:
            status = self.client.call("status")
            address = tcp_address(status["addresses"])
            if address is None:
                yield from self._restarted(status["generation"])
                yield from self._ask_control()
                continue
            try:
                yield from self._join(*address)
            except (OSError, http.client.HTTPException):
                pass  # Cut by a restart or a crash: the next round finds out.
            if time.monotonic() - self._open_at > JOIN_S:
                raise ControlError(
                    f"The daemon does not serve the event stream at {address[0]}:{address[1]}.",
                    "Look at `netclaw status` and the daemon's log.",
                )
            time.sleep(REJOIN_S)

    def _join(self, host: str, port: int) -> Iterator[Item]:
        connection = http.client.HTTPConnection(host, port, timeout=SILENCE_S)
        try:
            connection.request(
                "GET",
                f"/api/sessions/{self.session_id}/events",
                headers={"Accept": "text/event-stream", "Last-Event-ID": str(self.last_seq)},
            )
            # The body ends with the connection, so the response owns the socket.
            with connection.getresponse() as response:
                if response.status != 200:
                    return self._judge(response)
                yield from self._restarted(int(response.headers.get("X-Netclaw-Generation", 0)))
                try:
                    yield from self._read(response)
                finally:
                    self._open_at = time.monotonic()
        finally:
            connection.close()

    def _judge(self, response: http.client.HTTPResponse) -> None:
        """Wait where a retry helps; raise otherwise."""
        body = response.read(65536)
        if response.status == 404:
            raise NotFoundError(
                f"There is no session {self.session_id}.", "See `netclaw sessions list`."
            )
        if response.status not in (429, 503):
            raise ControlError(
                f"The event stream was refused ({response.status}): {_detail(body)}",
                "Look at `netclaw status` and the daemon's log.",
            )
        retry_after = response.headers.get("Retry-After", "")
        time.sleep(min(float(retry_after), ROOM_S) if retry_after.isdigit() else ROOM_S)

    def _read(self, response: http.client.HTTPResponse) -> Iterator[Item]:
        for kind, data in frames(iter(response.readline, b"")):
            if kind == "restart" and "seq" not in data:  # the end, not the durable event
                return
            if kind == "delta":
                yield Item(Kind.DELTA, data)
            else:
                self.last_seq = data["seq"]
                yield Item(Kind.EVENT, data)

    def _restarted(self, generation: int) -> Iterator[Item]:
        before, self.generation = self.generation, generation or self.generation
        if before and self.generation > before:
            yield Item(Kind.RESTARTED, {"generation": self.generation})

    def _ask_control(self) -> Iterator[Item]:
        try:
            found = self.client.call(
                "events", session_id=self.session_id, after=self.last_seq, wait_s=CONTROL_WAIT_S
            )
        except StoreClosedError:  # between two generations
            time.sleep(REJOIN_S)
            return
        for event in found:
            self.last_seq = event["seq"]
            yield Item(Kind.EVENT, event)


#: Where a daemon that listens everywhere is asked.
_AS_LOOPBACK = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


def tcp_address(addresses: Iterable[str]) -> tuple[str, int] | None:
    """Return the first address that HTTP can be spoken to, a wildcard as loopback."""
    for address in addresses:
        host, colon, port = address.rpartition(":")
        if colon and port.isdigit() and not address.startswith(("fd:", "unix:")):
            host = host.strip("[]")
            return _AS_LOOPBACK.get(host, host), int(port)
    return None


def frames(lines: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read an event stream (WHATWG HTML, 9.2): (event type, data) each; comments are left out."""
    kind, data = "message", list[str]()
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if data:
                yield kind, json.loads("\n".join(data))
            kind, data = "message", []
            continue
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def _detail(body: bytes) -> str:
    try:
        problem = json.loads(body)
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return "no reason given"
