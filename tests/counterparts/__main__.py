"""Serve as a model server until TERM or INT: ``python -m tests.counterparts chat --port 0``.

The first line on standard output is the base_url.
"""

from __future__ import annotations

import argparse
import signal

from tests.counterparts.chat import ChatServer
from tests.counterparts.messages import MessagesServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.counterparts")
    parser.add_argument("wire", choices=["chat", "messages"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two words")
    parser.add_argument("--api-key", help="refuse requests with another one")
    parser.add_argument("--model", action="append", help="a name that /v1/models lists")
    given = parser.parse_args()
    # Inherited by the server's threads, so that sigwait(3) alone takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    make = ChatServer if given.wire == "chat" else MessagesServer
    with make(
        port=given.port,
        pace_s=given.pace,
        api_key=given.api_key,
        models=given.model or ["test-model"],
    ) as server:
        print(server.base_url, flush=True)
        signal.sigwait((signal.SIGTERM, signal.SIGINT))


if __name__ == "__main__":
    main()
