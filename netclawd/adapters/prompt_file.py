"""Reads the file of ``agent.system_prompt_file``: a regular file, UTF-8, not too large.

Each generation reads it anew; its content counts for the digest of the configuration as a secret does.
"""

from __future__ import annotations

import errno
import os
import stat

from netclawd.errors import ConfigMeaningError

#: Longest file, bytes.
LIMIT_BYTES = 256 * 1024
_BOM = b"\xef\xbb\xbf"


def read_prompt(path: str) -> str:
    """Return the text of the file; ConfigMeaningError says why it can't be had."""
    try:
        # Not blocking: a FIFO without a writer would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigMeaningError(
                f"The system prompt {path} is not a regular file.", "Name a text file."
            )
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)
    if len(content) > LIMIT_BYTES:
        raise ConfigMeaningError(
            f"The system prompt {path} has more than {LIMIT_BYTES // 1024} KiB.", "Make it shorter."
        )
    try:
        return content.removeprefix(_BOM).decode().strip()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigMeaningError(
            f"The system prompt {path} is not UTF-8: byte 0x{error.object[error.start]:02x} on"
            f" line {line}.",
            "Save it as UTF-8.",
        ) from None


def _unreadable(path: str, error: OSError | ValueError) -> ConfigMeaningError:
    code = (error.errno if isinstance(error, OSError) else None) or errno.EINVAL
    remedies = {
        errno.ENOENT: f"Create {path}, or leave the setting empty for the built-in prompt.",
        errno.EACCES: f"Let the daemon's user (uid {os.geteuid()}) read {path}.",
    }
    return ConfigMeaningError(
        f"The system prompt {path} can't be read: {os.strerror(code)}.",
        remedies.get(code, "Name a text file."),
    )
