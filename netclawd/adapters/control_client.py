"""The control socket's client side: ask the daemon, across its restarts.

Imports nothing but the standard library and the errors, because every ``netclaw`` command pays for
it. A restart closes connections but keeps the listening socket: who connects in the gap waits in
the accept queue of the new image. A request is sent again when it was surely not read (the kernel
reports unread data as ECONNRESET or EPIPE), or when asking twice is harmless. One that may have
been carried out is never sent again.
"""

from __future__ import annotations

import json
import socket
import time
from types import TracebackType
from typing import Any, Self

from netclawd import errors

#: After these an end of file instead of an answer leaves open what happened.
ONCE = frozenset(
    {"reload", "stop", "decide", "resume", "cancel"}
    | {"run_reminder", "remove_reminder", "retry_outgoing", "drop_outgoing"}
)
#: A daemon that was reached before may be away this long (a crash and its supervisor's restart).
PATIENCE_S = 15.0
#: An answer takes at most this long, besides what the request itself waits; a restart's gap and a
#: slow boot are in it.
ANSWER_S = 30.0
RETRY_S = 0.05


class _ClosedUnansweredError(Exception):
    """The daemon read the request and closed the connection without an answer."""


class ControlClient:
    """One connection to the daemon, made when it is needed and again after a restart."""

    def __init__(
        self, path: str, *, patience_s: float = PATIENCE_S, answer_s: float = ANSWER_S
    ) -> None:
        self.path = path
        self._patience_s = patience_s
        self._answer_s = answer_s
        self._sock: socket.socket | None = None
        self._received = bytearray()
        self._reached = False
        self._last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._received.clear()

    def call(self, do: str, **arguments: Any) -> Any:
        """Ask and return the result.

        A daemon that never answered this client raises NotRunningError at once; one that did is
        waited for. Raises the error that the daemon answered with, under its own class.
        """
        self._last_id += 1
        request = {"id": self._last_id, "do": do, **arguments}
        answer = self._ask(request, float(arguments.get("wait_s", 0.0)))
        if answer.get("ok"):
            return answer.get("result")
        raise _error(answer.get("error") or {})

    def _ask(self, request: dict[str, Any], wait_s: float) -> dict[str, Any]:
        data = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        away_until = time.monotonic() + self._patience_s
        while True:
            try:
                return self._exchange(data, request["id"], wait_s + self._answer_s)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                self.close()
                if not self._reached or time.monotonic() > away_until:
                    raise _not_running(self.path) from error
            except (BrokenPipeError, ConnectionResetError, BlockingIOError):  # or its queue is full
                self.close()
                self._give_up_after(away_until)
            except _ClosedUnansweredError:
                self.close()
                if request["do"] in ONCE:
                    raise errors.ControlError(
                        f"The daemon ended the connection before it answered {request['do']!r}.",
                        "Look at `netclaw restarts` and `netclaw status` for what became of it.",
                    ) from None
                self._give_up_after(away_until)
            except TimeoutError:
                self.close()
                raise errors.NoAnswerError(
                    f"The daemon did not answer at {self.path} in time.",
                    "See its log; `netclaw daemon stop` ends it if it hangs.",
                ) from None
            except OSError as error:
                self.close()
                raise _unreachable(self.path, error) from error
            time.sleep(RETRY_S)

    def _give_up_after(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise _not_running(self.path)

    def _exchange(self, data: bytes, request_id: int, timeout_s: float) -> dict[str, Any]:
        sock = self._connected()
        deadline = time.monotonic() + timeout_s
        sock.settimeout(timeout_s)
        sock.sendall(data)
        while True:
            answer: Any = json.loads(self._read_line(sock, deadline))
            if answer.get("id") == request_id:
                return dict(answer)
            if answer.get("id") is None and not answer.get("ok"):  # the line itself was refused
                raise _error(answer.get("error") or {})

    def _connected(self) -> socket.socket:
        if self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self._answer_s)
            try:
                sock.connect(self.path)
            except BaseException:  # whatever it is, it goes on; only the socket must not stay open
                sock.close()
                raise
            self._sock, self._reached = sock, True
        return self._sock

    def _read_line(self, sock: socket.socket, deadline: float) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = sock.recv(65536)
            if not data:
                raise _ClosedUnansweredError
            self._received += data
        text = bytes(self._received[:end])
        del self._received[: end + 1]
        return text


def _not_running(path: str) -> errors.NotRunningError:
    return errors.NotRunningError(
        f"No daemon answers at {path}.", "Start one: `netclaw daemon start`."
    )


def _unreachable(path: str, error: OSError) -> errors.ControlError:
    remedy = "Check the path; NETCLAW_HOME says where the daemon lives."
    if isinstance(error, PermissionError):
        remedy = "Run this as the daemon's user, or as a member of the socket's group."
    return errors.ControlError(f"{path} can't be used: {error.strerror or error}.", remedy)


def _error(body: dict[str, Any]) -> errors.NetclawError:
    what, remedy = str(body.get("what", "The daemon refused.")), str(body.get("remedy", ""))
    slug = body.get("slug")
    if slug == errors.DrainingError.slug:
        retry_after_s = int(body.get("retry_after_s", 1))
        return errors.DrainingError(what, remedy, retry_after_s=retry_after_s)
    for kind in _all(errors.NetclawError):
        if kind.slug == slug:
            return kind(what, remedy)
    return errors.ControlError(what, remedy)


def _all(base: type[errors.NetclawError]) -> list[type[errors.NetclawError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _all(child))]
