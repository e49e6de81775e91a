"""What is not given to the TOML reader: keys so long that it would read on them for hours.

Pure. tomllib compares every beginning of a dotted key with every table, which is quadratic in the
number of its parts; a file of 1 MiB has room for half a million. Everything else it reads in time
that grows with the length.
"""

from __future__ import annotations

import re

#: Dots outside of strings and comments on one line; a key is on one line, and no setting needs five.
DOT_LIMIT = 500

#: Strings (the end of one may be missing) and a comment. It never looks at a character twice.
_NO_KEY = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?$)|' + r"'[^']*+(?:'|$)|#.*")


def overlong_key(text: str) -> int | None:
    """Return the line, counted from 1, that has more dots than any key may have; None without one."""
    if text.count(".") <= DOT_LIMIT:
        return None
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > DOT_LIMIT and _NO_KEY.sub("", line).count(".") > DOT_LIMIT:
            return number
    return None
