"""The rules of exposure: modes by addresses, proxies, tunnels and consent, and which failure comes first.

The order that is expected is written down here once more, as issue and manual page have it, and worked out
without the code under test.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from netclawd.core.exposure import TUNNEL_PROGRAMS, Sighting, judge_handed_over, judge_meaning
from netclawd.core.settings import DaemonSettings, Exposure, Settings, Snapshot
from netclawd.core.values import replace
from netclawd.errors import ConfigMeaningError
from tests.core.test_settings import DEFAULTS

MODES = ("local", "reverse-proxy", "tailscale-serve", "tailscale-funnel", "cloudflare-tunnel")
TUNNELS = {
    "tailscale-serve": "tailscaled",
    "tailscale-funnel": "tailscaled",
    "cloudflare-tunnel": "cloudflared",
}

#: Addresses, and whether other hosts reach one; None where only systemd knows.
ADDRESSES: dict[tuple[str, ...], bool | None] = {
    ("127.0.0.1:5199",): False,
    ("127.8.8.8:5199", "[::1]:5199", "unix:/run/api.sock", "unix:@api"): False,
    ("unix:/run/api.sock",): False,
    ("fd:http",): None,
    ("127.0.0.1:5199", "fd:http"): None,
    ("0.0.0.0:5199",): True,
    ("[::]:5199",): True,
    ("*:5199",): True,
    ("127.0.0.1:5199", "192.0.2.7:5199"): True,
    ("[2001:db8::7]:5199", "unix:/run/api.sock"): True,
}
#: Lists of proxies, and whether they are well-formed.
PROXIES: dict[tuple[str, ...], bool] = {
    (): True,
    ("127.0.0.1",): True,
    ("10.0.0.0/8", "fd00::/8", "2001:db8::1"): True,
    ("proxy.example",): False,
    ("10.0.0.1/8",): False,
    ("10.0.0.0/8", "0.0.0.0/0"): False,
    ("::/0",): False,
}


@dataclass(frozen=True)
class Case:
    mode: str
    listen: tuple[str, ...]
    proxies: tuple[str, ...] = ()
    sighting: Sighting = Sighting.RUNNING
    skipped: bool = False
    allowed: bool = False

    @property
    def reachable(self) -> bool | None:
        return ADDRESSES[self.listen]

    def settings(self) -> Settings:
        settings = Settings.from_effective(DEFAULTS)
        daemon = replace(
            settings.daemon,
            exposure=Exposure(self.mode),
            listen=self.listen,
            trusted_proxies=self.proxies,
            skip_tunnel_check=self.skipped,
            allow_unauthenticated=self.allowed,
        )
        return replace(settings, daemon=daemon)


#: The failures in the order in which they are looked for: name, words, and when there is one.
ORDER: tuple[tuple[str, str, Callable[[Case], bool]], ...] = (
    ("proxies", "in daemon.trusted_proxies ", lambda c: not PROXIES[c.proxies]),
    (
        "reachable",
        "can be reached from other hosts",
        lambda c: c.mode == "local" and c.reachable is True,
    ),
    (
        "tunnel",
        "must run",
        lambda c: c.mode in TUNNELS and c.sighting is not Sighting.RUNNING and not c.skipped,
    ),
    (
        "loopback",
        "which no other host reaches",
        lambda c: c.mode == "reverse-proxy" and c.reachable is False,
    ),
    (
        "nobody",
        "daemon.trusted_proxies is empty",
        lambda c: c.mode == "reverse-proxy" and not c.proxies,
    ),
    (
        "consent",
        "there is no device authentication yet",
        lambda c: c.mode != "local" and not c.allowed,
    ),
)


def expected(case: Case) -> str | None:
    return next((name for name, _words, broken in ORDER if broken(case)), None)


def found(case: Case, served: DaemonSettings | None = None) -> str | None:
    """Judge it, and return the name of the failure."""
    asked: list[str] = []

    def look(program: str) -> Sighting:
        asked.append(program)
        return case.sighting

    failure = ""
    try:
        judged = [str(address) for address in judge_meaning(case.settings(), look, served)]
    except ConfigMeaningError as error:
        judged, failure, remedy = [], error.what, error.remedy
    assert asked in ([], [TUNNELS.get(case.mode)]), "one look at most, for the right program"
    assert not (case.skipped and asked), "a look that was to be skipped"
    if not failure:
        assert judged == list(case.listen)
        return None
    names = [name for name, words, _broken in ORDER if words in failure]
    assert len(names) == 1, failure
    assert remedy.endswith("."), "it says what to do"
    return names[0]


def cases(mode: str) -> Iterator[Case]:
    rows = product(ADDRESSES, PROXIES, Sighting, (False, True), (False, True))
    return (Case(mode, *row) for row in rows)


@pytest.mark.parametrize("mode", MODES)
def test_the_first_failure_is_the_one_that_the_order_says(mode: str) -> None:
    seen: Counter[str | None] = Counter()
    for case in cases(mode):
        want = expected(case)
        assert found(case) == want, case
        seen[want] += 1
    own = {
        "local": {"reachable"},
        "reverse-proxy": {"loopback", "nobody", "consent"},
    }.get(mode, {"tunnel", "consent"})
    assert set(seen) == {None, "proxies"} | own, "each failure came first somewhere, and some pass"


def test_the_modes_are_these_and_each_tunnel_has_its_program() -> None:
    assert tuple(mode.value for mode in Exposure) == MODES
    assert {mode.value: program for mode, program in TUNNEL_PROGRAMS.items()} == TUNNELS


# -- the tunnel ------------------------------------------------------------------------------------


def refusal(case: Case) -> ConfigMeaningError:
    with pytest.raises(ConfigMeaningError) as caught:
        judge_meaning(case.settings(), lambda _program: case.sighting)
    return caught.value


@pytest.mark.parametrize(("mode", "program"), TUNNELS.items())
@pytest.mark.parametrize(
    ("sighting", "words"),
    [
        (Sighting.ABSENT, "but no process of that name does."),
        (
            Sighting.HIDDEN,
            "other users' processes can't be seen from here (hidepid=, ProtectProc=)",
        ),
        (Sighting.APART, "processes outside of this container (PID namespace) can't be seen"),
    ],
)
def test_a_tunnel_that_is_not_seen_is_named_with_the_reason_and_the_way_round(
    mode: str, program: str, sighting: Sighting, words: str
) -> None:
    error = refusal(Case(mode, ("127.0.0.1:5199",), (), sighting, allowed=True))
    assert error.what.startswith(f'daemon.exposure is "{mode}", for which {program} must run')
    assert words in error.what
    assert "daemon.skip_tunnel_check = true" in error.remedy


def test_the_words_about_consent_name_the_mode_and_both_ways_out() -> None:
    for mode in MODES[1:]:
        error = refusal(Case(mode, ("0.0.0.0:5199",), ("10.0.0.1",)))
        assert error.what == (
            f'daemon.exposure is "{mode}", but there is no device authentication yet, so whoever comes'
            " in can drive every session."
        )
        assert 'daemon.exposure = "local"' in error.remedy
        assert "daemon.allow_unauthenticated = true" in error.remedy


#: What is served, what shall be, and whether the tunnel's program has to run for that.
CHANGES = [
    ("tailscale-serve", False, "tailscale-serve", False, False),
    ("tailscale-serve", True, "tailscale-serve", False, True),
    ("tailscale-serve", False, "tailscale-serve", True, False),
    ("tailscale-serve", False, "tailscale-funnel", False, True),
    ("tailscale-serve", False, "cloudflare-tunnel", False, True),
    ("cloudflare-tunnel", False, "cloudflare-tunnel", False, False),
    ("local", False, "cloudflare-tunnel", False, True),
    ("local", True, "cloudflare-tunnel", True, False),
    ("cloudflare-tunnel", False, "local", False, False),
]


@pytest.mark.parametrize(("was", "skipped", "shall", "skip", "asks"), CHANGES)
def test_a_running_daemon_asks_for_the_tunnel_when_a_change_makes_it_a_condition(
    was: str, skipped: bool, shall: str, skip: bool, asks: bool
) -> None:
    served = Case(was, ("127.0.0.1:1",), skipped=skipped, allowed=True).settings().daemon
    for sighting in Sighting:
        case = Case(shall, ("127.0.0.1:5199",), (), sighting, skip, True)
        unseen = sighting is not Sighting.RUNNING
        assert found(case, served) == ("tunnel" if asks and unseen else None)


def test_what_is_served_loses_no_other_rule() -> None:
    for mode in MODES:
        for case in cases(mode):
            want = expected(replace_sighting(case))
            assert found(case, case.settings().daemon) == want, case


def replace_sighting(case: Case) -> Case:
    return Case(case.mode, case.listen, case.proxies, Sighting.RUNNING, case.skipped, case.allowed)


def test_who_must_not_look_takes_the_tunnel_for_running() -> None:
    settings = Case("cloudflare-tunnel", ("127.0.0.1:1",), allowed=True).settings()
    assert judge_meaning(settings)


# -- what the supervisor hands over ----------------------------------------------------------------


HOSTS = {"127.0.0.1": False, "::1": False, "0.0.0.0": True, "::": True, "192.0.2.1": True}
#: What else is listened on, and whether others reach that.
BESIDE: dict[tuple[str, ...], bool] = {
    (): False,
    ("127.0.0.1:5199",): False,
    ("unix:/run/api.sock", "[::1]:5199"): False,
    ("192.0.2.7:5199",): True,
    ("*:5199",): True,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("beside", BESIDE, ids=str)
def test_a_socket_handed_over_counts_as_the_address_that_it_is_bound_to(
    mode: str, host: str, beside: tuple[str, ...]
) -> None:
    settings = Case("local", ("127.0.0.1:1",), ("10.0.0.1",), allowed=True).settings()
    listen = (*beside, "fd:http")
    daemon = replace(settings.daemon, exposure=Exposure(mode), listen=listen)
    bound = {"http": host, "other": "192.0.2.9"}
    words = {
        "local": f"fd:http in daemon.listen is bound to {host}, " if HOSTS[host] else "",
        "reverse-proxy": "" if HOSTS[host] or BESIDE[beside] else "which no other host reaches",
    }.get(mode, "")
    if words:
        with pytest.raises(ConfigMeaningError, match=re.escape(words)):
            judge_handed_over(daemon, bound)
    else:
        judge_handed_over(daemon, bound)


def test_a_socket_of_which_no_host_is_known_may_be_reached_or_not() -> None:
    """A Unix socket that systemd made, or none at all: claiming it says so."""
    for mode in MODES:
        listen = ("fd:http", "fd:web", "127.0.0.1:1")
        daemon = replace(Case(mode, ("127.0.0.1:5199",)).settings().daemon, listen=listen)
        judge_handed_over(daemon, {"http": "127.0.0.1"})


def test_without_a_socket_handed_over_nothing_is_judged_twice() -> None:
    for mode, listen in product(MODES, ADDRESSES):
        if not any(text.startswith("fd:") for text in listen):
            judge_handed_over(Case(mode, listen).settings().daemon, {"http": "0.0.0.0"})


# -- an older release ------------------------------------------------------------------------------


def test_the_values_of_a_release_before_the_tunnels_still_make_settings() -> None:
    daemon: dict[str, Any] = {**DEFAULTS["daemon"]}
    del daemon["skip_tunnel_check"]
    effective = {**DEFAULTS, "daemon": daemon}
    assert Snapshot("/x", None, effective, "d", "p").settings == Settings.from_effective(DEFAULTS)
