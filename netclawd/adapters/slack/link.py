"""One connection of Socket Mode: slack_sdk's, on a wire of ours.

slack_sdk's own loses half a frame when the network pauses within it, spins at the end of a stream, and leaves
the socket of a failed handshake open; its client starts threads that take seconds to end. Here its
``Connection`` speaks the protocol, and what it holds for its socket gives it whole frames (RFC 6455, 5.2),
sends all of what it is given, and raises at the end. Threads, pings and reconnecting are the channel's.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from slack_sdk.errors import SlackClientError
from slack_sdk.socket_mode.builtin.connection import Connection, ConnectionState
from slack_sdk.socket_mode.builtin.internals import (
    _generate_sec_websocket_key,
    _parse_handshake_response,
    _validate_sec_websocket_accept,
)

from netclawd.adapters.slack.wire import Wire, WireError, Wires
from netclawd.core.slack import is_local

#: Longest frame, bytes; Slack's envelopes stay far below.
FRAME_BYTES = 8 * 1024 * 1024
_SWITCHING = 101


class Link(Connection):
    """From the handshake to the end. ``on_text`` gets each message, on the link's own thread."""

    def __init__(
        self,
        wires: Wires,
        url: str,
        on_text: Callable[[Link, dict[str, Any]], None],
        on_end: Callable[[], None],
    ) -> None:
        silent = logging.Logger("slack_sdk", logging.CRITICAL + 1)
        super().__init__(
            url,
            silent,
            receive_buffer_size=FRAME_BYTES,
            on_message_listener=self._on_message,
            on_error_listener=self._on_error,
            on_close_listener=self._on_closed,
        )
        self._wires = wires
        self._on_text = on_text
        self._on_end = on_end
        self._wire: Wire | None = None
        #: Slack has said hello: it takes us for connected.
        self.greeted = threading.Event()
        self.ended = threading.Event()
        #: Why it ended, in words that follow a colon.
        self.why = "it breaks the connection off"
        #: Slack has asked for another connection in its place.
        self.leaving = False
        self._lock = threading.Lock()
        #: Envelopes that were received and are not yet done with.
        self._underway = 0

    def open(self, deadline: float) -> None:
        """Connect and shake hands; WireError."""
        target = urlsplit(self.url)
        if target.scheme != "wss" and not (
            target.scheme == "ws" and is_local(target.hostname or "")
        ):
            raise WireError("its address is none of a WebSocket over TLS")
        wire = self._wire = self._wires.open(self.url, deadline)
        try:
            _shake_hands(wire, target.netloc, f"{target.path or '/'}?{target.query}", deadline)
        except BaseException:
            wire.close()
            raise
        held: Any = _Frames(wire)
        self.sock = held

    def run(self) -> None:
        """Receive until the end."""
        try:
            self.run_until_completion(ConnectionState())  # type: ignore[no-untyped-call]
        finally:
            self.disconnect()
            self.ended.set()
            self.greeted.set()
            self._on_end()

    @property
    def heard_at(self) -> float:
        """Monotonic instant at which Slack was last heard."""
        return self._wire.heard_at if self._wire is not None else 0.0

    def say_ping(self) -> None:
        """Send a ping; Slack's pong is what is heard."""
        try:
            self.ping(f"{self.session_id}:{int(time.monotonic())}")
        except OSError:
            self.cut()

    def acknowledge(self, envelope_id: str) -> bool:
        """Tell Slack that the envelope need not come again; False when that can't be sent."""
        try:
            self.send(json.dumps({"envelope_id": envelope_id}))
        except (SlackClientError, OSError):
            return False
        return True

    def cut(self) -> None:
        """End it, from any thread; does not wait."""
        if self._wire is not None:
            self._wire.cut()

    def take_up(self) -> None:
        with self._lock:
            self._underway += 1

    def lay_down(self) -> None:
        with self._lock:
            self._underway -= 1

    @property
    def idle(self) -> bool:
        return self._underway <= 0

    def _on_message(self, text: str) -> None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return  # Without its id nothing can be acknowledged.
        if isinstance(found, dict):
            self._on_text(self, found)

    def _on_error(self, error: Exception) -> None:
        if isinstance(error, WireError):
            self.why = str(error)
        else:
            # What can't be read of a stream leaves no place at which to go on.
            self.why = f"it does not speak WebSocket ({type(error).__name__})"
            self.cut()

    def _on_closed(self, code: int, _reason: str | None = None) -> None:
        self.why = f"it closes the connection ({code})"


class _Frames:
    """What slack_sdk takes for its socket: it reads one whole frame at a time."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._kept = bytearray()
        self._owes_nothing = False

    def recv(self, _size: int) -> bytes:
        if self._owes_nothing:
            # After a frame without content slack_sdk asks once more before it looks at it.
            self._owes_nothing = False
            return b""
        while (length := _frame_length(self._kept)) is None or len(self._kept) < length:
            piece = self._wire.recv(64 * 1024)
            if not piece:
                raise WireError("it breaks the connection off")
            self._kept += piece
        frame = bytes(self._kept[:length])
        del self._kept[:length]
        self._owes_nothing = len(frame) <= 2
        return frame

    def send(self, data: bytes) -> int:
        self._wire.send_all(data)
        return len(data)

    def close(self) -> None:
        self._wire.close()


def _frame_length(kept: bytearray) -> int | None:
    """Return the length of the first frame, None while its head is not whole."""
    if len(kept) < 2:
        return None
    size, head = kept[1] & 0x7F, 2
    if size == 126:
        head = 4
    elif size == 127:
        head = 10
    if len(kept) < head:
        return None
    if head == 4:
        (size,) = struct.unpack_from("!H", kept, 2)
    elif head == 10:
        (size,) = struct.unpack_from("!Q", kept, 2)
    if kept[1] & 0x80 or size > FRAME_BYTES - head:
        raise WireError("it does not speak WebSocket")
    return head + size


class _Bytes:
    """What the reader of a handshake takes for its socket."""

    def __init__(self, wire: Wire, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline
        self._left = 16 * 1024

    def recv(self, size: int) -> bytes:
        self._left -= size
        return self._wire.recv(size, self._deadline) if self._left > 0 else b""


def _shake_hands(wire: Wire, host: str, path: str, deadline: float) -> None:
    """Ask for the protocol (RFC 6455, 4.1); WireError."""
    key = _generate_sec_websocket_key()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    wire.send_all("\r\n".join([*lines, "", ""]).encode(), deadline)
    readable: Any = _Bytes(wire, deadline)
    try:
        status, headers, _ = _parse_handshake_response(readable)
        # slack_sdk leaves the last line feed of the head where the first frame is.
        whole = status == _SWITCHING and readable.recv(1) == b"\n"
        taken = whole and _validate_sec_websocket_accept(key, headers)
    except ConnectionError:
        raise WireError("it breaks the handshake off") from None
    except (ValueError, TypeError):
        raise WireError("its handshake is none") from None
    if not taken:
        raise WireError(
            f"it refuses the handshake ({status})" if status else "its handshake is none"
        )
