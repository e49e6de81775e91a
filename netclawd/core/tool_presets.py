"""Named sets of tool policies, as ``netclaw init`` offers them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from netclawd.core.settings import DEFAULT_POLICIES, Policy

#: Tools that only look.
READING = ("read_file", "list_files")
#: Tools that change something or reach out.
ACTING = ("shell", "write_file", "edit_file", "fetch_url", "config_propose")

#: By their names; each has a policy for every tool that is asked about.
PRESETS: Mapping[str, Mapping[str, Policy]] = {
    "ask": {name: DEFAULT_POLICIES[name] for name in (*ACTING, *READING)},
    "read-only": {
        **dict.fromkeys(ACTING, Policy.DENY),
        **dict.fromkeys(READING, Policy.ALLOW),
    },
    # What decides about the sandbox itself is not for who is in it.
    "sandbox": {
        **dict.fromkeys((*ACTING, *READING), Policy.ALLOW),
        "config_propose": Policy.ASK,
    },
}


def preset_of(policies: Mapping[str, str]) -> str | None:
    """Return the name of the preset that these policies are, None when they are none."""
    return next((name for name, wanted in PRESETS.items() if dict(wanted) == dict(policies)), None)
