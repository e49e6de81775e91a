"""Users and groups of this host, by name or number."""

from __future__ import annotations

from netclawd.core.settings import UnixAccess
from netclawd.core.words import shown
from netclawd.errors import ConfigMeaningError

#: chown(2) takes the last number for "leave it".
_HIGHEST_ID = 2**32 - 2


def owner_of(access: UnixAccess) -> tuple[int | None, int | None]:
    """Return the numbers of user and group, None for one that is left to the process.

    ConfigMeaningError for one that this host doesn't know.
    """
    return _user(access.user), _group(access.group)


def _user(text: str) -> int | None:
    if not text or text.isdecimal():
        return _number(text, "daemon.unix_user")
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise _unknown(text, "daemon.unix_user", "user", "getent passwd") from None


def _group(text: str) -> int | None:
    if not text or text.isdecimal():
        return _number(text, "daemon.unix_group")
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise _unknown(text, "daemon.unix_group", "group", "getent group") from None


def _number(text: str, key: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or len(text) > 10 or int(text) > _HIGHEST_ID:
        raise ConfigMeaningError(
            f"{key} is the number {shown(text)}, which no account can have.",
            f"Use a number up to {_HIGHEST_ID}, or a name.",
        )
    return int(text)


def _unknown(text: str, key: str, noun: str, command: str) -> ConfigMeaningError:
    return ConfigMeaningError(
        f"{key} names {shown(text)}, and this host knows no such {noun}.",
        f"Use a name that `{command}` lists, or a number.",
    )
