"""What a package upgrade holds back, for how long, and what is asked again when it is over."""

from __future__ import annotations

import pytest

from netclawd.core import budgets, upgrade
from netclawd.core.events import Request
from netclawd.core.values import replace
from tests.core.examples import request

NOW = 1_700_000_000.0
LIMIT = budgets.UPGRADE_MARKER_S


def test_only_a_daemon_of_the_packaged_code_looks_for_the_package_s_own_marker() -> None:
    own = "/run/user/1000/netclaw/upgrading"
    packaged = "/usr/lib/python3/dist-packages/netclawd/daemon"
    assert upgrade.markers(own, packaged) == (own, "/run/netclawd.upgrading")
    assert upgrade.markers(own, "/home/ada/env/lib/python3.11/site-packages/netclawd/daemon") == (
        own,
    )


@pytest.mark.parametrize(
    ("age_s", "fresh"),
    [(0.0, True), (LIMIT - 1, True), (LIMIT, False), (86_400.0, False)],
)
@pytest.mark.parametrize("sign", [1, -1], ids=["past", "future"])
def test_a_marker_counts_only_so_long_on_either_side_of_the_clock(
    age_s: float, sign: int, fresh: bool
) -> None:
    assert upgrade.is_fresh(NOW - sign * age_s, NOW) is fresh


def test_the_refusal_says_what_to_do_and_for_how_long_it_holds() -> None:
    refusal = upgrade.refusal("/run/netclaw/upgrading")
    assert "/run/netclaw/upgrading" in refusal.reason
    assert f"after {LIMIT / 60:.0f} minutes" in refusal.remedy


FILE, HUP, FORCED = request("f", "file"), request("h", "hup"), request("c", force=True)


@pytest.mark.parametrize(
    ("held", "came", "kept"),
    [
        (None, FILE, FILE),
        (FILE, FILE, FILE),
        (FILE, HUP, HUP),
        (HUP, FILE, HUP),
        (FILE, FORCED, FORCED),
        (HUP, FORCED, replace(HUP, force=True)),
        (FORCED, HUP, FORCED),
        (FORCED, FILE, FORCED),
    ],
)
def test_who_asked_by_name_and_who_insisted_is_not_forgotten(
    held: Request | None, came: Request, kept: Request
) -> None:
    assert upgrade.join(held, came) == kept
