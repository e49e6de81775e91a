"""Durations as people write them: ``30s``, ``5m``, ``1h30m``, ``1d``. Pure."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
#: Longest that is taken, seconds: a hundred years.
LONGEST_S = 100 * 366 * 86_400
_WRITTEN = re.compile(r"(?:\d{1,10}[smhd])+", re.ASCII)


def seconds_of(text: str) -> int:
    """Return the seconds; ValueError says how to write it."""
    written = text.strip().lower()
    if re.fullmatch(r"\d+", written, re.ASCII):
        number = written[:10]
        raise ValueError(f"say the unit: {number}s, {number}m, {number}h or {number}d.")
    if not _WRITTEN.fullmatch(written):
        raise ValueError("write whole numbers, each with its unit: 30s, 5m, 2h, 1d or 1h30m.")
    parts = re.findall(r"(\d+)([smhd])", written)
    if len({unit for _, unit in parts}) < len(parts):
        raise ValueError("each unit may stand there once: 1h30m.")
    found = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if found > LONGEST_S:
        raise ValueError("at most 100 years: 36600d.")
    return found


def in_units(seconds: float) -> str:
    """Write a duration so that :func:`seconds_of` takes it; parts of a second are left out."""
    rest, parts = int(seconds), ""
    for unit, size in sorted(_UNITS.items(), key=lambda one: -one[1]):
        if rest >= size:
            parts += f"{rest // size}{unit}"
            rest %= size
    return parts or "0s"
