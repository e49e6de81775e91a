"""Clients of the demonstration: they ask all the time and count what they lose."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field

#: Seconds between two requests of one client.
PACE_S = 0.006
TIMEOUT_S = 10.0
#: Clients over one connection that is kept, and clients with a connection for each request.
KEPT, NEW = 2, 2
#: Descriptions of failures that are kept.
FAILURES = 5


@dataclass(slots=True)
class Tally:
    answered: int = 0
    #: Answered 503 with Retry-After: not served, but told so.
    put_off: int = 0
    lost: int = 0
    failures: list[str] = field(default_factory=list)

    def lose(self, reason: str) -> None:
        self.lost += 1
        if len(self.failures) < FAILURES:
            self.failures.append(reason)


class Load:
    """Asks one address for its health from several threads. Use as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._ending = threading.Event()
        self._tallies = [Tally() for _ in range(KEPT + NEW)]
        self._threads = [
            threading.Thread(target=self._run, args=(tally, number < KEPT), daemon=True)
            for number, tally in enumerate(self._tallies)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def total(self) -> Tally:
        """Return the sum of what all clients have seen so far."""
        return Tally(
            answered=sum(t.answered for t in self._tallies),
            put_off=sum(t.put_off for t in self._tallies),
            lost=sum(t.lost for t in self._tallies),
            failures=[f for t in self._tallies for f in t.failures][:FAILURES],
        )

    def _run(self, tally: Tally, keep: bool) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        while not self._ending.wait(PACE_S):
            self._ask(connection, tally, keep)
            if not keep:
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, tally: Tally, keep: bool) -> None:
        try:
            connection.request(
                "GET",
                "/api/health/live",
                headers={} if keep else {"Connection": "close"},
            )
            with connection.getresponse() as response:
                response.read()
                status, later = response.status, response.headers.get("Retry-After")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            kind = "a kept connection" if keep else "a new connection"
            tally.lose(f"{kind}: {type(error).__name__}: {error}")
            return
        if status == 200:
            tally.answered += 1
        elif status == 503 and later:
            tally.put_off += 1
        else:
            tally.lose(f"status {status}")
