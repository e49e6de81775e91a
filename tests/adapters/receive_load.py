"""A process that receives messages of a channel, to be killed: says on stdout what it acknowledged.

``python -m tests.adapters.receive_load PATH CONVERSATIONS``. Each event is delivered twice. One line for
each that is acknowledged, the message's text, in one write, so that a line is there whole or not at all.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.values import replace
from tests.adapters.channel_stores import message, notice


def receive_for_ever(store: SqliteStore, conversation: str) -> None:
    for n in itertools.count():
        text = f"{conversation}-{n}"
        first = message(f"E-{text}", f"m-{text}", text)
        assert first.input is not None
        ids = {"session_id": f"s-{conversation}", "input_id": f"in-{text}", "turn_id": f"t-{text}"}
        received = replace(
            first,
            route=conversation,
            input=replace(first.input, **ids),
            messages=(notice(f"notice:{text}", route=conversation),),
        )
        for _ in range(2):
            store.outgoing.receive(received, 1.0)
        os.write(1, f"{text}\n".encode())


def main(path: str, conversations: int) -> None:
    store = SqliteStore.open(path)
    for n in range(conversations):
        threading.Thread(target=receive_for_ever, args=(store, f"c{n}")).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
