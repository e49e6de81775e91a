"""What is known of the model server that answers: for the status and the log.

Every model call reports here what came of it, whoever makes it, from any thread. Not durable: the
next generation may have another provider. The log hears of a change, not of each failure.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from netclawd.core.values import as_map, frozen
from netclawd.errors import ContextOverflowError

_log = logging.getLogger(__name__)


@frozen
class Failure:
    slug: str
    #: For people; without secrets.
    what: str
    #: Wall clock, seconds since the epoch: the newest failure.
    at: float
    #: What to do about it, empty where nobody knows.
    remedy: str = ""


class ProviderState:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_reply_at: float | None = None
        self._failure: Failure | None = None

    def replied(self, at: float) -> None:
        """Note a whole reply; ``at`` is wall clock."""
        with self._lock:
            before, self._failure = self._failure, None
            self._last_reply_at = at
        if before is not None:
            _log.info("model provider answers again", extra={"SLUG": before.slug})

    def failed(self, slug: str, what: str, at: float, remedy: str = "") -> None:
        """Note a model call that failed, not one that was cancelled; ``what`` has no secret.

        That a conversation is too long says nothing of the server.
        """
        if slug == ContextOverflowError.slug:
            return
        with self._lock:
            before, self._failure = self._failure, Failure(slug, what, at, remedy)
        if before is None or before.slug != slug:
            _log.warning("model provider fails: %s", what, extra={"SLUG": slug})

    def told(self) -> Mapping[str, Any]:
        """Return {last_reply_at, error: {slug, what, at, remedy} or None}, as the status shows it."""
        with self._lock:
            failure = self._failure
            return {
                "last_reply_at": self._last_reply_at,
                "error": None if failure is None else as_map(failure),
            }
