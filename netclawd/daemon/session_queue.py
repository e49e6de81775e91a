"""Which session a worker takes next: fair over sessions, one worker for each.

Holds no turns: which turn of a session is next is asked of the store when a worker takes it. Not
thread-safe; the engine guards it. Invariant: a session is in at most one of ``first``, ``ready`` and
``held``, and what is added while it is held is not forgotten.
"""

from __future__ import annotations

from collections.abc import Collection

from netclawd.core.session import SessionId


class SessionQueue:
    def __init__(self) -> None:
        #: May run while the gate is closed: resumed turns, and decided approvals.
        self._first: dict[SessionId, None] = {}
        #: Has queued turns, which need an open gate.
        self._ready: dict[SessionId, None] = {}
        #: A worker has it. Whether it was added meanwhile, and as one of the first.
        self._held: dict[SessionId, tuple[bool, bool]] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._ready)

    @property
    def first(self) -> int:
        """How many sessions wait that may run with the gate closed."""
        return len(self._first)

    def add(self, session_id: SessionId, *, first: bool = False) -> None:
        """Say that the session has, or may have, something to do."""
        if session_id in self._held:
            self._held[session_id] = (True, first or self._held[session_id][1])
        elif first:
            self._ready.pop(session_id, None)
            self._first.setdefault(session_id)
        elif session_id not in self._first:
            self._ready.setdefault(session_id)

    def take(self, *, gate_open: bool, but: Collection[SessionId] = ()) -> SessionId | None:
        """Hold and return the session whose turn it is, None when none may run; none of ``but``."""
        session_id = self.peek(gate_open=gate_open, but=but)
        if session_id is not None:
            for source in (self._first, self._ready):
                source.pop(session_id, None)
            self._held[session_id] = (False, False)
        return session_id

    def peek(self, *, gate_open: bool, but: Collection[SessionId] = ()) -> SessionId | None:
        """Return what :meth:`take` would."""
        sources = (self._first, self._ready) if gate_open else (self._first,)
        return next((s for source in sources for s in source if s not in but), None)

    def release(self, session_id: SessionId, *, again: bool) -> None:
        """Give a held session back; ``again``: it may have more to do, and queues behind the others."""
        added, first = self._held.pop(session_id)
        if again or added:
            self.add(session_id, first=first)
