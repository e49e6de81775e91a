"""Resolves references to secrets: ``credential:NAME``, ``env:NAME``, ``file:PATH``.

A message names the reference and the remedy, never a value. One newline at the end of a value is
taken off: editors and ``echo`` put it there. A generation reads its secrets anew.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from netclawd.errors import ConfigMeaningError

#: Longest value, bytes.
LIMIT_BYTES = 64 * 1024


class Secrets:
    """The secrets that this process can reach."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take the environment that the daemon was started with (CREDENTIALS_DIRECTORY, ``env:``)."""
        self._environ = environ

    def resolve(self, reference: str) -> str:
        """Return the value behind a reference; ConfigMeaningError says why it can't be had."""
        scheme, _, name = reference.partition(":")
        match scheme:
            case "env":
                raw = self._from_environment(name)
            case "credential":
                raw = self._from_credential(name)
            case "file":
                raw = _read(name, reference)
            case _:
                # The text may be the secret itself.
                raise ConfigMeaningError(
                    "A secret is not given as a reference.",
                    "Write credential:NAME, env:NAME or file:/PATH.",
                )
        return _decode(raw, reference)

    def _from_environment(self, name: str) -> bytes:
        value = self._environ.get(name)
        if value is None:
            raise ConfigMeaningError(
                f"The secret env:{name} is not there: the variable is not set.",
                f"Set {name} where the daemon is started; a running one keeps its environment.",
            )
        return os.fsencode(value)

    def _from_credential(self, name: str) -> bytes:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ConfigMeaningError(
                f"The secret credential:{name} is not there: $CREDENTIALS_DIRECTORY is not set.",
                f"Add LoadCredential={name}:/PATH to the unit, or refer to it by file:/PATH.",
            )
        return _read(os.path.join(folder, name), f"credential:{name}", private=False)


class Masking:
    """Takes secrets out of what an agent reads, as they are by now: from any thread.

    A generation uses those of its beginning; a tool may meet one that was rotated since.
    """

    def __init__(
        self, resolve: Callable[[str], str], references: Collection[str], known: Collection[str]
    ) -> None:
        self._resolve = resolve
        self._references = references
        self._lock = threading.Lock()
        self._known = frozenset(known)
        from netclawd.core.redact import Redactor  # Not for who only reads the settings.

        self._make = Redactor
        self._redactor = Redactor(known)

    def text(self, text: str) -> str:
        found = set(self._known)
        for reference in self._references:
            with suppress(ConfigMeaningError):  # The next generation is refused for it.
                found.add(self._resolve(reference))
        with self._lock:
            if not found <= self._known:
                self._known |= found
                self._redactor = self._make(self._known)
            redactor = self._redactor
        return redactor.text(text)


def _read(path: str, reference: str, *, private: bool = True) -> bytes:
    """Read a file whole. ``private``: refuse one that everyone may read or write."""
    try:
        # Not blocking: a FIFO without a writer would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unreadable(error, path, reference) from None
    try:
        _judge(os.fstat(fd), path, reference, private=private)
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise _unreadable(error, path, reference) from None
    finally:
        os.close(fd)


def _unreadable(error: OSError | ValueError, path: str, reference: str) -> ConfigMeaningError:
    code = error.errno if isinstance(error, OSError) else errno.EINVAL
    reason = os.strerror(code or errno.EIO)
    remedy = {
        errno.ENOENT: f"Create {path}, or correct the reference.",
        errno.EACCES: f"Let the daemon's user (uid {os.geteuid()}) read {path}.",
    }
    return ConfigMeaningError(
        f"The secret {reference} can't be read: {reason}.",
        remedy.get(code or 0, "Refer to a regular file."),
    )


def _judge(status: os.stat_result, path: str, reference: str, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigMeaningError(
            f"The secret {reference} is not in a regular file.", "Refer to a regular file."
        )
    if private and status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigMeaningError(
            f"The secret {reference} is open to everyone (mode {stat.S_IMODE(status.st_mode):04o}).",
            f"Close it: chmod 0600 {path}; and change the secret if others use this host.",
        )


def _decode(raw: bytes, reference: str) -> str:
    if len(raw) > LIMIT_BYTES:
        raise ConfigMeaningError(
            f"The secret {reference} has more than {LIMIT_BYTES // 1024} KiB.",
            "Refer to a file or variable that holds the secret alone.",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigMeaningError(
            f"The secret {reference} is not UTF-8 text.", "Store it as text."
        ) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigMeaningError(
            f"The secret {reference} is empty.", "Store the secret, or remove the reference."
        )
    return text
