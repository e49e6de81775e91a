"""Model servers for tests: chat completions and messages over real sockets, with scripted faults.

    with ChatServer(Status(429, headers={"Retry-After": "0"}), Reply("Hi")) as server:
        …  # [providers.x] kind = "openai", base_url = server.base_url
        assert server.asked[1].body["messages"] == …

What isn't scripted is answered by :mod:`tests.counterparts.talk`. They refuse, with 400, what the
real servers refuse. ``python -m tests.counterparts chat|messages --port P`` serves until it is ended.
"""

from tests.counterparts.answers import (
    Answer,
    Call,
    CallStyle,
    Ending,
    Events,
    Hangup,
    Raw,
    Reply,
    Silent,
    Status,
    redirect,
)
from tests.counterparts.chat import ChatServer
from tests.counterparts.messages import MessagesServer
from tests.counterparts.wire import CERTIFICATE, Asked, Server

__all__ = [
    "CERTIFICATE",
    "Answer",
    "Asked",
    "Call",
    "CallStyle",
    "ChatServer",
    "Ending",
    "Events",
    "Hangup",
    "MessagesServer",
    "Raw",
    "Reply",
    "Server",
    "Silent",
    "Status",
    "redirect",
]
