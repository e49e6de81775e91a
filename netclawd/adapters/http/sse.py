"""How events look on the wire: pure. The form of the JSON is docs/internals/architecture.md's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.adapters.http.raw import GENERATION_HEADER
from netclawd.core.session import Delta, SessionEvent

HEARTBEAT = b":\n\n"


def encode(value: Any) -> bytes:
    """Render JSON without a line break in it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event_object(event: SessionEvent) -> dict[str, Any]:
    """Return a durable event as the API shows it."""
    return {
        "seq": event.seq,
        "type": event.type.value,
        "at": event.at,
        "turn_id": event.turn_id,
        **event.data,
    }


def durable(event: SessionEvent) -> bytes:
    """Render a durable event: only these carry an id, so only these move Last-Event-ID."""
    head = f"id: {event.seq}\nevent: {event.type.value}\ndata: ".encode()
    return head + encode(event_object(event)) + b"\n\n"


def delta(text: Delta) -> bytes:
    """Render text of a reply that is being made."""
    data = {
        "turn_id": text.turn_id,
        "step": text.step,
        "attempt": text.attempt,
        "offset": text.offset,
        "text": text.text,
    }
    return b"event: delta\ndata: " + encode(data) + b"\n\n"


def restart(data: Mapping[str, Any], retry_ms: int) -> bytes:
    """Render the last event of a stream that a drain ends."""
    return f"event: restart\nretry: {retry_ms}\ndata: ".encode() + encode(data) + b"\n\n"


def head(generation: int, more: Sequence[str] = ()) -> bytes:
    """Render the response head, with more header lines; the body ends with the connection."""
    lines = "".join(f"{line}\r\n" for line in more)
    return (
        "HTTP/1.1 200 OK\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n"
        "Content-Type: text/event-stream; charset=utf-8\r\n"
        # nginx would collect the events in a buffer.
        "X-Accel-Buffering: no\r\n"
        f"{GENERATION_HEADER}: {generation}\r\n{lines}\r\n"
    ).encode("latin-1")
