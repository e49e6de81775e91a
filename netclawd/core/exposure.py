"""Whether settings that are well-formed make sense together.

Pure. The rule behind it: nobody outside this host reaches the daemon by accident. A way out is
taken on purpose, in so many words, or refused.

The order is a promise: malformed trusted proxies, `local` on an address that others reach, a tunnel
whose program doesn't run, a reverse proxy that can't reach us or that nobody named, and then that
nobody is authenticated. What runs is a fact about the moment, not about the file: it is asked for at
a start, and when a change of configuration makes it a condition. A daemon that serves already is never
refused or ended because of a tunnel that went away.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from netclawd.core.listeners import Address, Family, parse_addresses
from netclawd.core.providers import judge_agent
from netclawd.core.settings import DaemonSettings, Exposure, Settings
from netclawd.core.words import shown
from netclawd.errors import ConfigMeaningError

#: The program that brings requests in, of the modes that have one on this host.
TUNNEL_PROGRAMS = {
    Exposure.TAILSCALE_SERVE: "tailscaled",
    Exposure.TAILSCALE_FUNNEL: "tailscaled",
    Exposure.CLOUDFLARE_TUNNEL: "cloudflared",
}


class Sighting(Enum):
    """What a look for a program found."""

    RUNNING = "running"
    ABSENT = "absent"
    #: Not seen, and other users' processes can't be seen.
    HIDDEN = "hidden"
    #: Not seen, and processes outside of this PID namespace can't be seen.
    APART = "apart"


#: Looks for a running program by its name.
Look = Callable[[str], Sighting]


def judge_meaning(
    settings: Settings, look: Look | None = None, served: DaemonSettings | None = None
) -> tuple[Address, ...]:
    """Return the addresses to listen on; ConfigMeaningError names the first thing that is wrong.

    ``look`` finds out about a tunnel's program; None: it is taken for running. ``served``: what a
    running daemon serves, whose tunnel was judged when it was taken.
    """
    daemon = settings.daemon
    proxies = [judge_proxy(text) for text in daemon.trusted_proxies]
    addresses = parse_addresses(daemon.listen)
    if daemon.exposure is Exposure.LOCAL:
        _judge_local(addresses)
    else:
        if look is not None and _asks_for_tunnel(daemon, served):
            _judge_tunnel(daemon.exposure, look(TUNNEL_PROGRAMS[daemon.exposure]))
        if daemon.exposure is Exposure.REVERSE_PROXY:
            _judge_reverse_proxy(addresses, proxies)
        _judge_authentication(daemon)
    judge_agent(settings)
    return addresses


def judge_handed_over(daemon: DaemonSettings, hosts: Mapping[str, str]) -> None:
    """Hold the sockets that the supervisor hands over to the same rules.

    ``hosts``: FileDescriptorName to the numeric host that it is bound to. Raises ConfigMeaningError.
    """
    named = [text.removeprefix("fd:") for text in daemon.listen if text.startswith("fd:")]
    bound = {name: ipaddress.ip_address(hosts[name]) for name in named if name in hosts}
    if daemon.exposure is Exposure.LOCAL:
        for name, host in bound.items():
            if not host.is_loopback:
                raise _reachable(name, hosts[name])
    elif daemon.exposure is Exposure.REVERSE_PROXY and named and len(bound) == len(named):
        # Of a socket that is bound to no host nothing is known here, and so nothing of them all.
        others = (address for address in parse_addresses(daemon.listen) if address.hosts)
        if all(host.is_loopback for host in bound.values()) and all(a.loopback for a in others):
            raise _reached_by_none()


def _reachable(name: str, host: str) -> ConfigMeaningError:
    return ConfigMeaningError(
        f"The socket fd:{name} in daemon.listen is bound to {host}, which can be reached from"
        ' other hosts, but daemon.exposure is "local".',
        "Give its socket unit a ListenStream= on 127.0.0.1 or [::1], or set daemon.exposure"
        ' = "reverse-proxy" with daemon.trusted_proxies and'
        " daemon.allow_unauthenticated = true.",
    )


def judge_proxy(text: str) -> str:
    """Return one of ``daemon.trusted_proxies`` as a network; ConfigMeaningError says what is wrong."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ConfigMeaningError(
            f"{shown(text)} in daemon.trusted_proxies is not a network.", _network_remedy(text)
        ) from None
    if network.prefixlen == 0:
        raise ConfigMeaningError(
            f"{shown(text)} in daemon.trusted_proxies believes everyone.",
            "Name the network or the address of the proxy.",
        )
    return str(network)


def _network_remedy(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "Write an address or a network, for example 10.0.0.0/8; names are not resolved."
    return f"Its address has bits beyond the prefix; write {network}."


def _judge_local(addresses: Sequence[Address]) -> None:
    for address in addresses:
        if not address.loopback:
            raise ConfigMeaningError(
                f"The address {address} in daemon.listen can be reached from other hosts, but"
                ' daemon.exposure is "local".',
                'Listen on 127.0.0.1, [::1] or a Unix socket, or set daemon.exposure = "reverse-proxy" with'
                " daemon.trusted_proxies and daemon.allow_unauthenticated = true.",
            )


def _asks_for_tunnel(daemon: DaemonSettings, served: DaemonSettings | None) -> bool:
    """Tell whether a tunnel's program has to run for this configuration to be taken."""
    if daemon.exposure not in TUNNEL_PROGRAMS or daemon.skip_tunnel_check:
        return False
    return served is None or served.exposure is not daemon.exposure or served.skip_tunnel_check


#: Why a program that runs might not be seen, and what to do about it besides starting it.
_UNSEEN = {
    Sighting.HIDDEN: (
        "but other users' processes can't be seen from here (hidepid=, ProtectProc=)",
        "If it runs, set daemon.skip_tunnel_check = true; otherwise start it first.",
    ),
    Sighting.APART: (
        "but processes outside of this container (PID namespace) can't be seen from here",
        "If it runs outside, set daemon.skip_tunnel_check = true; otherwise start it first.",
    ),
}


def _judge_tunnel(exposure: Exposure, sighting: Sighting) -> None:
    program = TUNNEL_PROGRAMS[exposure]
    if sighting is Sighting.RUNNING:
        return
    because = f'daemon.exposure is "{exposure.value}", for which {program} must run'
    if sighting is Sighting.ABSENT:
        raise ConfigMeaningError(
            f"{because}, but no process of that name does.",
            f'Start {program} first, or set daemon.exposure = "local"; daemon.skip_tunnel_check = true'
            " takes it for running.",
        )
    why, remedy = _UNSEEN[sighting]
    raise ConfigMeaningError(f"{because}: no such process is to be seen, {why}.", remedy)


def judge_reach(exposure: Exposure, addresses: Sequence[Address]) -> None:
    """Judge whether those may reach the addresses whom the mode means; ConfigMeaningError if not."""
    if exposure is Exposure.LOCAL:
        _judge_local(addresses)
    elif exposure is Exposure.REVERSE_PROXY:
        _judge_reached(addresses)


def _judge_reached(addresses: Sequence[Address]) -> None:
    # What systemd bound may be reachable from anywhere; judge_handed_over knows more.
    if all(address.loopback and address.family is not Family.FD for address in addresses):
        raise _reached_by_none()


def _judge_reverse_proxy(addresses: Sequence[Address], proxies: Sequence[str]) -> None:
    _judge_reached(addresses)
    if not proxies:
        raise ConfigMeaningError(
            'daemon.exposure is "reverse-proxy", but daemon.trusted_proxies is empty.',
            "Name the network or the address of the proxy.",
        )


def _reached_by_none() -> ConfigMeaningError:
    return ConfigMeaningError(
        'daemon.exposure is "reverse-proxy", but every address in daemon.listen is a loopback'
        " one or a Unix socket, which no other host reaches.",
        'Set daemon.exposure = "local", or add the address that the proxy connects to.',
    )


def _judge_authentication(daemon: DaemonSettings) -> None:
    if not daemon.allow_unauthenticated:
        raise ConfigMeaningError(
            f'daemon.exposure is "{daemon.exposure.value}", but there is no device authentication yet,'
            " so whoever comes in can drive every session.",
            'Set daemon.exposure = "local"; or let what stands before the daemon admit nobody else, and'
            " set daemon.allow_unauthenticated = true to say so.",
        )
