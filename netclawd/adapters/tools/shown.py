"""What bytes of unknown origin look like to a model: always text, never what breaks a log or a terminal.

Pure. Bytes that are no UTF-8 become the replacement character, control characters a visible escape;
bytes that are no text at all are not shown, only told of.
"""

from __future__ import annotations

import re

#: C0 and C1 but tab, newline and carriage return.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: Of this share of odd characters on, bytes are no text.
_ODD_SHARE = 0.1


def is_binary(raw: bytes) -> bool:
    """Say whether bytes (a beginning of some) are no text."""
    if not raw:
        return False
    text = raw.decode("utf-8", "replace")
    # Escape sequences of terminals are text.
    odd = text.count("\ufffd") + sum(c != "\x1b" for c in _CONTROL.findall(text))
    return b"\0" in raw or odd > len(text) * _ODD_SHARE


def as_text(raw: bytes) -> str:
    """Return bytes as text; a character that is cut at either end is left out."""
    whole = raw[_cut_before(raw) : len(raw) - _cut_behind(raw)]
    text = whole.decode("utf-8", "replace").replace("\r\n", "\n")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _cut_before(raw: bytes) -> int:
    """Count the bytes at the beginning that continue a character of which the beginning is missing."""
    count = 0
    while count < min(3, len(raw)) and raw[count] & 0xC0 == 0x80:
        count += 1
    return count


def _cut_behind(raw: bytes) -> int:
    """Count the bytes at the end that begin a character of which the end is missing."""
    for back in range(1, min(3, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
        return back if byte >= 0xC0 and length > back else 0
    return 0


def as_name(name: str) -> str:
    """Return a file's name as text: what is no UTF-8 or not printable as an escape."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count(size: int) -> str:
    """Return a count of bytes for people."""
    return "1 byte" if size == 1 else f"{size:,} bytes"
