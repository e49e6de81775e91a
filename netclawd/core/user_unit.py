"""The unit file that `netclaw daemon install --user` writes: made of the packaged one, and recognised.

Pure. The first line says who wrote the file and seals what follows with a digest. Invariant: only a
file that is whole under its seal, or that says the same as what would be written, is ever replaced or
removed; what a person wrote or changed is theirs.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

from netclawd.core.values import frozen

#: What the packaged unit starts and reloads with.
PACKAGED_START = "/usr/bin/netclawd"
PACKAGED_RELOAD = "/usr/bin/netclaw"
_SEAL = "# Written by `netclaw daemon install --user`; sha256 of what follows: "


@frozen
class Installation:
    """What the unit has to start: two programs, and the home if one was chosen."""

    netclawd: str
    netclaw: str
    home: str | None = None


class Found(StrEnum):
    """What lies where the unit file belongs."""

    NOTHING = "nothing"
    #: What would be written, or the same in other words.
    SAME = "same"
    #: An older one of ours, unchanged since.
    OURS = "ours"
    #: One of ours that somebody has changed.
    CHANGED = "changed"
    FOREIGN = "foreign"


def render(template: str, installation: Installation) -> str:
    """Write the unit file for an installation, sealed."""
    start, reload = quote(installation.netclawd), quote(installation.netclaw)
    lines = []
    for line in template.splitlines():
        if line == f"ExecStart={PACKAGED_START}":
            if installation.home is not None:
                lines.append(f"Environment={quote(f'NETCLAW_HOME={installation.home}')}")
            line = f"ExecStart={start}"
        elif line.startswith(f"ExecReload={PACKAGED_RELOAD} "):
            line = f"ExecReload={reload}{line.removeprefix(f'ExecReload={PACKAGED_RELOAD}')}"
        lines.append(line)
    body = "\n".join(lines) + "\n"
    return f"{_SEAL}{_digest(body)}\n{body}"


def quote(word: str) -> str:
    """Quote a word of ExecStart= or Environment= (systemd.syntax(7)).

    A percent sign begins a specifier. A dollar sign is left alone: neither the path of the program nor
    Environment= has variables.
    """
    if re.fullmatch(r"[A-Za-z0-9/._+:,@=-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return re.sub(r"[\x00-\x1f\x7f]", _escape, f'"{escaped}"')


def _escape(control: re.Match[str]) -> str:
    """Escape a character that would end the line of a unit file, or could not stand in it."""
    return {"\n": "\\n", "\t": "\\t"}.get(control[0], f"\\x{ord(control[0]):02x}")


def judge_found(content: str | None, wanted: str) -> Found:
    """Say what lies there, by its content; None for nothing."""
    if content is None:
        return Found.NOTHING
    if essence(content) == essence(wanted):
        return Found.SAME
    first, _, body = content.partition("\n")
    if not first.startswith(_SEAL):
        return Found.FOREIGN
    return Found.OURS if first.removeprefix(_SEAL).strip() == _digest(body) else Found.CHANGED


def essence(content: str) -> tuple[str, ...]:
    """Return the lines that systemd reads: no comments, no blank lines."""
    lines = (line.strip() for line in content.splitlines())
    return tuple(line for line in lines if line and not line.startswith(("#", ";")))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode(errors="surrogateescape")).hexdigest()
