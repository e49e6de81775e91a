"""A process under load, to be killed: admits from many threads and says on stdout what was acknowledged.

``python -m tests.adapters.store_load PATH CLIENTS``. One line an acknowledged admission: the turn's
id, in one write, so that a line is there whole or not at all.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.session import AdmitInput, InputId, SessionId, TurnId
from netclawd.errors import ConflictError


def admit_for_ever(store: SqliteStore, session_id: SessionId, name: str) -> None:
    for n in itertools.count():
        turn_id = TurnId(f"t-{name}-{n}")
        new = AdmitInput(
            session_id, InputId(f"in-{name}-{n}"), turn_id, "hello", f"{name}-{n}", False
        )
        store.admit(new, 1.0)
        os.write(1, f"{turn_id}\n".encode())


def main(path: str, clients: int) -> None:
    store = SqliteStore.open(path)
    for n in range(clients):
        session_id = SessionId(f"s-{n % 4}")
        try:
            store.create_session(session_id, 1.0)
        except ConflictError:
            pass
        name = f"{os.getpid()}-{n}"
        threading.Thread(target=admit_for_ever, args=(store, session_id, name)).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
