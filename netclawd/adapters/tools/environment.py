"""The environment of a command: the daemon's own without what is the daemon's alone, and without secrets.

Pure. Left out are the variables of supervisors and of netclawd, those that lead to other sessions and
agents of the user, those that the configuration refers to, those whose name or value looks like a
secret, and those in which a known secret stands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_PREFIXES = ("NETCLAW_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "XDG_", "DBUS_")
#: Of systemd.exec(5) and of shells; TMPDIR and HOME are replaced.
_NAMES = frozenset(
    {
        "BASH_ENV",
        "CACHE_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "ENV",
        "FDSTORE",
        "HOME",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LOGS_DIRECTORY",
        "MAINPID",
        "MANAGERPID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "OLDPWD",
        "PWD",
        "RUNTIME_DIRECTORY",
        "SHLVL",
        "STATE_DIRECTORY",
        "SYSTEMD_EXEC_PID",
        "TMPDIR",
        "_",
    }
)
#: Words of a name that tell of a secret: GITHUB_TOKEN, AWS_SECRET_ACCESS_KEY, PGPASSWORD, SSH_AUTH_SOCK.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:\w*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|APIKEY|ACCESSKEY)S?"
    r"|KEYS?|PASS|PWD|AUTH|COOKIE|PAT|DSN|NETRC)(?:_|\d|$)",
    re.IGNORECASE,
)
#: A URL with a password, a private key.
_SECRET_VALUE = re.compile(r"\w://[^/\s@]*:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY")


def scrubbed(
    environ: Mapping[str, str], referenced: Collection[str], secrets: Collection[str]
) -> dict[str, str]:
    """Return what a command may have of the environment.

    ``referenced``: variables that the configuration names as secrets; ``secrets``: their values.
    """
    known = [secret for secret in secrets if secret.strip()]
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_PREFIXES)
        and name not in _NAMES
        and name not in referenced
        and not _SECRET_NAME.search(name)
        and not _SECRET_VALUE.search(value)
        and not any(_holds(value, secret) for secret in known)
    }


def _holds(value: str, secret: str) -> bool:
    """Say whether a secret stands in a value; a very short one only as the whole."""
    return secret in value if len(secret) >= 4 else secret == value


def of_command(scrubbed_environ: Mapping[str, str], workspace: str) -> dict[str, str]:
    """Return the environment of a command in this working folder; no terminal is there."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        **scrubbed_environ,
        "HOME": workspace,
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
    }
