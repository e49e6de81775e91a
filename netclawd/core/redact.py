"""The one redactor: takes secret values out of whatever leaves the process.

Pure. Longer secrets are taken out before shorter ones, so that one which contains another leaves
nothing of itself behind. A secret of fewer than four characters is taken out only where it stands
alone: removing every "a" from a log hides nothing and destroys the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

REDACTED = "[redacted]"
#: Shorter secrets are taken out only as whole words, characters.
SHORT = 4


class Redactor:
    """Replaces secrets by ``[redacted]``; immutable, a new generation makes its own."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(_expression, ordered))) if ordered else None

    def __repr__(self) -> str:
        return "Redactor()"

    def text(self, text: str) -> str:
        """Redact one text."""
        return self._pattern.sub(REDACTED, text) if self._pattern else text

    def value(self, value: Any) -> Any:
        """Redact every text in nested mappings (keys too), lists and tuples; the rest is kept."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape"
            )
        if isinstance(value, Mapping):
            return {self.value(k): self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            entries = [self.value(entry) for entry in value]
            return entries if isinstance(value, list) else tuple(entries)
        return value


def _forms(secret: str) -> set[str]:
    """Return the forms in which a secret shows up: plain, JSON, Python's, a URL's; whole and by lines."""
    if not secret.strip():
        return set()
    lines = [line for line in secret.splitlines() if len(line) >= SHORT]
    texts = {secret, *lines} if len(lines) > 1 else {secret}
    return {
        form
        for text in texts
        for form in (
            text,
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            repr(text)[1:-1],
            quote(text, safe=""),
        )
    }


def _expression(form: str) -> str:
    escaped = re.escape(form)
    return escaped if len(form) >= SHORT else rf"(?<!\w){escaped}(?!\w)"
