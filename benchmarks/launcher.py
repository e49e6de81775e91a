"""Start netclawd for a measurement: durability off, or counters and instants written to a file.

``BENCH_SYNCHRONOUS=OFF`` replaces ``PRAGMA synchronous``. ``BENCH_NOTES`` names a file that gets a
line of JSON before each effect, and the store's counters every 50 ms.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sqlite3
import sys
import threading
import time
from typing import Any


class Relaxed(sqlite3.Connection):
    """A connection on which every statement that sets ``synchronous`` sets it as told."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute(relax(sql), *arguments)

    def executescript(self, sql: str) -> sqlite3.Cursor:
        return super().executescript(relax(sql))


def relax(sql: str) -> str:
    level = os.environ["BENCH_SYNCHRONOUS"]
    return re.sub(r"(?i)(pragma\s+synchronous\s*=\s*)\w+", rf"\g<1>{level}", sql)


def take_durability_away() -> None:
    connect: Any = sqlite3.connect

    def connect_relaxed(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **{**options, "factory": Relaxed})
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    setattr(sqlite3, "connect", connect_relaxed)  # noqa: B010 - mypy forbids the assignment


def note_effects(path: str) -> None:
    performer = importlib.import_module("netclawd.daemon.performer").Performer
    perform = performer.perform
    notes = open(path, "a", buffering=1, encoding="ascii")  # noqa: SIM115 - open for good

    def note_store(store: Any) -> None:
        while True:
            time.sleep(0.05)
            notes.write(json.dumps({"counters": dict(store.counters())}) + "\n")

    def perform_and_note(self: Any, effect: Any) -> Any:
        name = type(effect).__name__
        notes.write(json.dumps({"effect": name, "at": time.time()}) + "\n")
        answer = perform(self, effect)
        if name == "OpenStore":
            store = self._image.the_store()
            threading.Thread(target=note_store, args=(store,), daemon=True).start()
        return answer

    performer.perform = perform_and_note


def main() -> None:
    if "--rehearse" not in sys.argv:
        if "BENCH_SYNCHRONOUS" in os.environ:
            take_durability_away()
        if "BENCH_NOTES" in os.environ:
            note_effects(os.environ["BENCH_NOTES"])
    sys.exit(importlib.import_module("netclawd.__main__").main())


if __name__ == "__main__":
    main()
