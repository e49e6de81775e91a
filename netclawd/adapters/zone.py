"""The host's time zone, by its IANA name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from netclawd.core.local_time import zone_of
from netclawd.errors import BadRequestError

_FOLDER = "zoneinfo/"


def host_zone(environ: Mapping[str, str], etc: str = "/etc") -> str:
    """Return the first of these that names a zone: TZ, the link localtime, the file timezone; else UTC.

    A TZ that spells out rules (CET-1CEST) names none (tzset(3)).
    """
    for name in _candidates(environ, etc):
        try:
            zone_of(name)
        except BadRequestError:
            continue
        return name
    return "UTC"


def _candidates(environ: Mapping[str, str], etc: str) -> Iterator[str]:
    yield _name_in(environ.get("TZ", "").removeprefix(":"))
    try:
        yield _name_in(os.path.realpath(f"{etc}/localtime"), of_path=True)
        with open(f"{etc}/timezone", encoding="ascii") as file:
            yield file.readline(256).strip()
    except (OSError, ValueError):
        pass  # Neither has to be there.


def _name_in(text: str, *, of_path: bool = False) -> str:
    _, found, name = text.rpartition(_FOLDER)
    return name if found or not of_path else ""
