"""What may be asked about the outbox: each request is one call of the daemon's Service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from netclawd.adapters.control.arguments import Arguments
from netclawd.core.listing import UNSENT, message_object
from netclawd.core.outgoing import OutgoingId
from netclawd.ports import Service

#: Messages in one answer, at most and without ``limit``.
MOST, DEFAULT = 1_000, 200


def _list(service: Service, args: Arguments) -> Any:
    states, limit = () if args.flag("all") else UNSENT, args.count("limit", DEFAULT, MOST)
    return [message_object(each) for each in service.outgoing(states, max(1, limit))]


def _retry(service: Service, args: Arguments) -> Any:
    return message_object(service.retry_outgoing(OutgoingId(args.text("message_id"))))


def _drop(service: Service, args: Arguments) -> Any:
    return message_object(service.drop_outgoing(OutgoingId(args.text("message_id"))))


REQUESTS: Mapping[str, Callable[[Service, Arguments], Any]] = {
    "outbox": _list,
    "retry_outgoing": _retry,
    "drop_outgoing": _drop,
}
