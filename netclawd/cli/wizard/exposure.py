"""The page about addresses: where the daemon listens, and who may reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.cli.wizard.page import Page, Trial, schema_of
from netclawd.core.exposure import TUNNEL_PROGRAMS, judge_proxy, judge_reach
from netclawd.core.interview import Answers, Choice, Question
from netclawd.core.listeners import parse_addresses
from netclawd.core.origins import Path
from netclawd.core.settings import Exposure
from netclawd.core.words import shown
from netclawd.errors import ConfigMeaningError

LOCAL = "local"
_MODES = {
    LOCAL: "programs on this host, and nobody else",
    "reverse-proxy": "a proxy of yours, over the network; it has to authenticate",
    "tailscale-serve": "your tailnet, through tailscaled on this host",
    "tailscale-funnel": "the Internet, through tailscaled on this host",
    "cloudflare-tunnel": "the Internet, through cloudflared on this host",
}
_CONSENT = ("daemon", "allow_unauthenticated")


def _modes(_answers: Answers) -> Sequence[Choice]:
    schema = schema_of(("daemon", "exposure"))
    return [Choice(name, _MODES.get(name, "")) for name in schema["enum"]]


def _exposed(answers: Answers) -> bool:
    return bool(answers.value("daemon.exposure") != LOCAL)


def _behind_proxy(answers: Answers) -> bool:
    return bool(answers.value("daemon.exposure") == "reverse-proxy")


def _tunnelled(answers: Answers) -> bool:
    return answers.value("daemon.exposure") in TUNNEL_PROGRAMS


def _same_mode(answers: Answers) -> bool:
    """Consent to one exposure is none to another."""
    return bool(answers.value("daemon.exposure") == answers.before("daemon.exposure"))


def _judge_addresses(value: Any, answers: Answers) -> None:
    judge_reach(Exposure(answers.value("daemon.exposure")), parse_addresses(value))


def _judge_proxies(value: Any, answers: Answers) -> None:
    for text in value:
        judge_proxy(text)
    if _behind_proxy(answers) and not value:
        raise ConfigMeaningError(
            "The proxy in front of the daemon has to be named.",
            "Give its address, or its network.",
        )


def _judge_consent(value: Any, answers: Answers) -> None:
    if _exposed(answers) and not value:
        raise ConfigMeaningError(
            f"Without it {shown(answers.value('daemon.exposure'))} is refused: there is no device "
            "authentication yet.",
            'Say yes, or let nobody but this host reach it: exposure "local".',
        )


def _withdrawn(answers: Answers) -> Mapping[Path, Any]:
    """Take consent back with the mode that it was for, unless it was given just now."""
    return {} if _same_mode(answers) or _CONSENT in answers.given else {_CONSENT: False}


def _try_out(trial: Trial) -> Answers:
    trial.judge()
    return trial.answers


EXPOSURE = Page(
    "addresses",
    "Where the daemon listens, and who may reach it.",
    (
        Question(
            ("daemon", "exposure"),
            "--exposure",
            "Who may reach the daemon",
            "netclawd authenticates nobody: whoever reaches it can drive every session.",
            choices=_modes,
            forgets=(_CONSENT,),
        ),
        Question(
            ("daemon", "listen"),
            "--listen",
            "Addresses to listen on",
            "HOST:PORT with a numeric host, [IPV6]:PORT, *:PORT, unix:/PATH or fd:NAME; commas between "
            "several.",
            judge=_judge_addresses,
        ),
        Question(
            ("daemon", "trusted_proxies"),
            "--trusted-proxies",
            "Proxies to trust",
            "Addresses or networks of the proxy, whose X-Forwarded-Host is believed.",
            applies=_behind_proxy,
            judge=_judge_proxies,
        ),
        Question(
            ("daemon", "skip_tunnel_check"),
            "--skip-tunnel-check",
            "Skip the look for the tunnel's program",
            "Its program is looked for among this host's processes; say yes if it runs where the daemon "
            "can't see it, such as in another container.",
            applies=_tunnelled,
        ),
        Question(
            _CONSENT,
            "--allow-unauthenticated",
            "Let whoever reaches it drive every session",
            "The daemon authenticates nobody yet. Say yes only if what stands in front of it lets in "
            "nobody but you.",
            applies=_exposed,
            judge=_judge_consent,
            has_default=_same_mode,
        ),
        Question(
            ("daemon", "allowed_hosts"),
            "--allowed-hosts",
            "Host names to accept",
            "Names under which clients ask for it, besides localhost and the addresses; commas between "
            "several.",
            applies=_exposed,
        ),
    ),
    more=_withdrawn,
    try_out=_try_out,
)
