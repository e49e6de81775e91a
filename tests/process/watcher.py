"""A watcher of one session's event stream that re-joins after every restart and verifies what it sees.

It asserts nothing while it runs: it notes faults, and the test looks at them afterwards.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from tests.waiting import scaled


class Placed(Protocol):
    """A daemon of which only the port has to be known; it may move."""

    @property
    def port(self) -> int: ...


@dataclass
class Seen:
    #: Durable events, in the order of their coming.
    events: list[dict[str, Any]] = field(default_factory=list)
    #: Text by (turn, step, attempt) as the deltas built it.
    texts: dict[tuple[str, int, int], str] = field(default_factory=dict)
    #: How often the stream was joined, and how often a restart ended it politely.
    joins: int = 0
    restarts: int = 0
    faults: list[str] = field(default_factory=list)


class StreamWatcher:
    """Watches in a thread until the context ends or ``at_most_s`` is over."""

    def __init__(self, daemon: Placed, session: str, *, at_most_s: float = 120.0) -> None:
        self.seen = Seen()
        self._daemon = daemon
        self._session = session
        self._deadline = time.monotonic() + scaled(at_most_s)
        self._stop = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._watch, name=f"watch {session}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def last_seq(self) -> int:
        return self.seen.events[-1]["seq"] if self.seen.events else 0

    def _watch(self) -> None:
        while not self._stop.is_set() and time.monotonic() < self._deadline:
            try:
                self._join_once()
            except TimeoutError:
                # Nothing happened for a moment; the stream was left, it is joined again.
                continue
            except (OSError, http.client.HTTPException) as error:
                self.seen.faults.append(f"stream broken: {type(error).__name__}: {error}")
                return

    def _join_once(self) -> None:
        headers = {"Accept": "text/event-stream"}
        if self.last_seq:
            headers["Last-Event-ID"] = str(self.last_seq)
        # A short timeout is what lets the thread look at its stop flag.
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=scaled(1.0))
        try:
            connection.request("GET", f"/api/sessions/{self._session}/events", headers=headers)
            response = connection.getresponse()
            if response.status == 503 and response.getheader("Retry-After"):
                return
            if response.status != 200:
                self.seen.faults.append(f"stream refused: {response.status} {response.read()!r}")
                self._stop.set()
                return
            self.seen.joins += 1
            with response:
                self._read(response)
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> None:
        message: dict[str, str] = {}
        while not self._stop.is_set():
            raw = response.readline()
            if not raw:
                self.seen.faults.append(f"the stream ended without a word, after {message}")
                return
            line = raw.decode().rstrip("\r\n")
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(":")
                message[name] = value.removeprefix(" ")
            elif message:
                if self._take(message):
                    return
                message = {}

    def _take(self, message: dict[str, str]) -> bool:
        """Take one message; return whether it ends the stream."""
        kind = message.get("event", "message")
        data = json.loads(message.get("data", "{}"))
        if kind == "restart" and "id" not in message:
            if "retry" not in message:
                self.seen.faults.append("the end of the stream did not say when to come back")
            self.seen.restarts += 1
            return True
        if kind == "delta":
            self._take_delta(data)
        elif "id" in message:
            self._take_event(int(message["id"]), kind, data)
        return False

    def _take_event(self, number: int, kind: str, data: dict[str, Any]) -> None:
        if number != self.last_seq + 1:
            self.seen.faults.append(f"event {number} came after {self.last_seq}")
        if data["seq"] != number or data["type"] != kind:
            self.seen.faults.append(f"event {number} ({kind}) contradicts itself: {data}")
        self.seen.events.append(data)
        if kind == "model.completed":
            self._compare_text(data)

    def _take_delta(self, data: dict[str, Any]) -> None:
        key = (data["turn_id"], data["step"], data["attempt"])
        text = self.seen.texts.get(key, "")
        if data["offset"] == 0:
            # A joiner gets the text so far as one.
            self.seen.texts[key] = data["text"]
        elif data["offset"] == len(text):
            self.seen.texts[key] = text + data["text"]
        else:
            self.seen.faults.append(f"a delta at {data['offset']}, the text has {len(text)}: {key}")

    def _compare_text(self, data: dict[str, Any]) -> None:
        key = (data["turn_id"], data["step"], data["attempt"])
        built = self.seen.texts.get(key)
        if built is not None and not str(data["text"]).startswith(built):
            self.seen.faults.append(f"deltas built {built!r}, the step says {data['text']!r}")
