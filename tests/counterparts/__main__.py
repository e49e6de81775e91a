"""Serve as a model server or a Slack workspace: ``python -m tests.counterparts chat --port 0``.

Until TERM or INT. The first line on standard output is the base_url; of a workspace, it is the table for the
agent's configuration, and what is typed is said there.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from tests.counterparts.chat import ChatServer
from tests.counterparts.messages import MessagesServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.counterparts")
    parser.add_argument("wire", choices=["chat", "messages", "slack"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two words")
    parser.add_argument("--api-key", help="refuse requests with another one")
    parser.add_argument("--model", action="append", help="a name that /v1/models lists")
    given = parser.parse_args()
    # Inherited by the server's threads, so that sigwait(3) alone takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    if given.wire == "slack":
        serve_slack(given.port)
        return
    make = ChatServer if given.wire == "chat" else MessagesServer
    with make(
        port=given.port,
        pace_s=given.pace,
        api_key=given.api_key,
        models=given.model or ["test-model"],
    ) as server:
        print(server.base_url, flush=True)
        signal.sigwait((signal.SIGTERM, signal.SIGINT))


def serve_slack(port: int) -> None:
    # Only here: a model server needs no library for it.
    from tests.counterparts import slack_talk
    from tests.counterparts.slack import Workspace

    with Workspace(port=port, on_change=slack_talk.show_post) as slack:
        slack_talk.introduce(slack)
        person = slack_talk.Person(slack)
        threading.Thread(target=person.talk, args=(sys.stdin,), daemon=True).start()
        signal.sigwait((signal.SIGTERM, signal.SIGINT))


if __name__ == "__main__":
    main()
