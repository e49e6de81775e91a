"""What a start must know of the configurations before it: the last good one, and a refused one.

``state/last-good.toml`` is the text that was last served by a daemon that got ready;
``state/refused.cbor`` the digest that is not tried again by itself, with the reason. Both are
replaced whole. Neither stops a daemon: one that can't be read is as good as none.
"""

from __future__ import annotations

import logging
import os

from netclawd.core.beginning import RefusedConfig
from netclawd.core.handoff import refused_from_map
from netclawd.core.values import as_map
from netclawd.daemon.durable import replace_file
from netclawd.errors import ManifestError
from netclawd.ports import Codec

log = logging.getLogger("netclawd.memory")


class Memory:
    def __init__(self, state_dir: str, codec: Codec) -> None:
        self._last_good = os.path.join(state_dir, "last-good.toml")
        self._refused = os.path.join(state_dir, "refused.cbor")
        self._codec = codec

    def last_good(self) -> bytes | None:
        """Return the text that was last good, None when there is none."""
        return _read(self._last_good, self._codec.limit_bytes)

    def keep_last_good(self, text: bytes) -> None:
        """Write the text, unless it is there already. Crash: before the rename the older one holds."""
        if self.last_good() != text:
            _write(self._last_good, text)

    def refused(self) -> RefusedConfig | None:
        """Return what was refused, None when nothing was or the note is damaged."""
        data = _read(self._refused, self._codec.limit_bytes)
        if data is None:
            return None
        try:
            return refused_from_map(self._codec.unseal(data))
        except (ManifestError, KeyError, TypeError) as error:
            log.warning("note of a refused configuration left out: %s", error)
            return None

    def keep_refused(self, refused: RefusedConfig | None) -> None:
        """Remember it; None forgets."""
        if refused is not None:
            _write(self._refused, self._codec.seal(as_map(refused)))
            return
        try:
            os.unlink(self._refused)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("%s not removed: %s", self._refused, error.strerror)


def _read(path: str, limit: int) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s not read: %s", path, error.strerror)
        return None


def _write(path: str, content: bytes) -> None:
    """A disk that is full costs a start after a crash its memory, not this daemon."""
    try:
        replace_file(path, content)
    except OSError as error:
        log.error("%s not written: %s", path, error.strerror)
