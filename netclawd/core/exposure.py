"""Whether settings that are well-formed make sense together.

Pure. The rule behind it: nobody outside this host reaches the daemon by accident. A way out is
taken on purpose, in so many words, or refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from netclawd.core.listeners import Address, Family, parse_addresses
from netclawd.core.settings import DaemonSettings, Exposure, Settings
from netclawd.core.words import dotted, shown
from netclawd.errors import ConfigMeaningError


def judge_meaning(settings: Settings) -> tuple[Address, ...]:
    """Return the addresses to listen on; ConfigMeaningError names the first thing that is wrong."""
    addresses = parse_addresses(settings.daemon.listen)
    proxies = [_judge_proxy(text) for text in settings.daemon.trusted_proxies]
    if settings.daemon.exposure is Exposure.LOCAL:
        _judge_local(addresses)
    else:
        _judge_reverse_proxy(settings.daemon, addresses, proxies)
    _judge_agent(settings)
    return addresses


def judge_handed_over(daemon: DaemonSettings, hosts: Mapping[str, str]) -> None:
    """Hold the sockets that the supervisor hands over to the same rule.

    ``hosts``: FileDescriptorName to the numeric host that it is bound to. Raises ConfigMeaningError.
    """
    if daemon.exposure is not Exposure.LOCAL:
        return
    for text in daemon.listen:
        host = hosts.get(text.removeprefix("fd:")) if text.startswith("fd:") else None
        if host is not None and not ipaddress.ip_address(host).is_loopback:
            raise ConfigMeaningError(
                f"The socket {text} in daemon.listen is bound to {host}, which can be reached from"
                ' other hosts, but daemon.exposure is "local".',
                "Give its socket unit a ListenStream= on 127.0.0.1 or [::1], or set daemon.exposure"
                ' = "reverse-proxy" with daemon.trusted_proxies and'
                " daemon.allow_unauthenticated = true.",
            )


def _judge_proxy(text: str) -> str:
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


def _judge_reverse_proxy(
    daemon: DaemonSettings, addresses: Sequence[Address], proxies: Sequence[str]
) -> None:
    # What systemd bound may be reachable from anywhere: its word is taken.
    if all(address.loopback and address.family is not Family.FD for address in addresses):
        raise ConfigMeaningError(
            'daemon.exposure is "reverse-proxy", but every address in daemon.listen is a loopback'
            " one or a Unix socket, which no other host reaches.",
            'Set daemon.exposure = "local", or add the address that the proxy connects to.',
        )
    if not proxies:
        raise ConfigMeaningError(
            'daemon.exposure is "reverse-proxy", but daemon.trusted_proxies is empty.',
            "Name the network or the address of the proxy.",
        )
    if not daemon.allow_unauthenticated:
        raise ConfigMeaningError(
            'daemon.exposure is "reverse-proxy", but netclawd authenticates nobody yet: whoever'
            f" reaches {', '.join(daemon.listen)} can drive every session.",
            "Let the proxy authenticate, and set daemon.allow_unauthenticated = true to say so.",
        )


def _judge_agent(settings: Settings) -> None:
    if settings.provider not in settings.providers:
        names = ", ".join(sorted(settings.providers)) or "none"
        raise ConfigMeaningError(
            f"agent.provider names {shown(settings.provider)}, which is no configured provider"
            f" ({names}).",
            f"Add a table [{dotted(('providers', settings.provider))}], or name one that exists.",
        )
